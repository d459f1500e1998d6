"""The ways to call plain `fab` and `vagrantp`: links to this checkout, which replace nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from vagrantp.core import documents
from vagrantp.core.errors import VagrantpError
from vagrantp.core.places import MASTER, state_root
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.host import fabricyaml

BIN = MASTER / ".venv/bin"
COMMANDS = {"fab": BIN / "vagrantp-fab", "vagrantp": BIN / "vagrantp"}
FORMER = {"fab": BIN / "fab"}  # what older versions linked


def link(host: Host, root: str) -> None:
    """Make plain `fab` work in every folder below `root`, and print the links.

    Raises VagrantpError, with nothing changed, when it is no folder or something is in the way.
    """
    if not root:
        raise VagrantpError("ROOT is missing", "make link ROOT=~/repos, where your projects are")
    folder = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111 - which fails at ~nobody
    if not folder.is_dir():
        raise VagrantpError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    fabfile = folder / "fabfile.py"
    links = {fabfile: MASTER / "fabfile.py", **_commands()}
    _refuse_occupied(links)
    known = _remembered()
    if fabfile not in known:
        host.make_dir(_memory().parent)
        host.write(_memory(), json.dumps([str(path) for path in (*known, fabfile)]))
    _make(host, links)


def link_global(host: Host) -> None:
    """Make plain `fab` work in every folder, and print how.

    Raises VagrantpError, with nothing changed, when something is in the way.
    """
    settings = fabricyaml.edited(fabricyaml.with_root, MASTER)
    _refuse_occupied(_commands())
    if settings is not None:
        fabricyaml.write(host, settings)
    _make(host, _commands())
    if not host.dry:
        show(f"{fabricyaml.path()}: fab looks for its tasks in {MASTER}, and nowhere else")


def ours() -> list[Path]:
    """Return the links that were made and still lead here."""
    links = {**_commands(), **{path: MASTER / "fabfile.py" for path in _remembered()}}
    return [
        path
        for path, target in links.items()
        if path.is_symlink() and (_leads(path, target) or _is_former(path))
    ]


def _make(host: Host, links: dict[Path, Path]) -> None:
    for path, target in links.items():
        if is_former := _is_former(path):
            host.remove(path)
        if is_former or not os.path.lexists(path):
            host.make_dir(path.parent)
            host.link(path, target)
        if not host.dry:
            show(f"{path} -> {target}")
    _warn_about_path(host)


def _commands() -> dict[Path, Path]:
    folder = Path.home() / ".local/bin"
    return {folder / name: target for name, target in COMMANDS.items()}


def _refuse_occupied(links: dict[Path, Path]) -> None:
    taken = [
        f"{path} is {f'a link to {path.readlink()}' if path.is_symlink() else 'there already'}"
        for path, target in links.items()
        if os.path.lexists(path) and not (_leads(path, target) or _is_former(path))
    ]
    if taken:
        raise VagrantpError(
            "nothing was changed, as something is in the way:\n  " + "\n  ".join(taken),
            f"move it away; without links, {MASTER / '.venv/bin/vagrantp'} works everywhere",
        )


def _leads(path: Path, target: Path) -> bool:
    """Say whether `path` is, or is a link to, `target`, be that there or not."""
    return os.path.realpath(path) == os.path.realpath(target)


def _is_former(path: Path) -> bool:
    """Say whether `path` is a link that an older version made."""
    target = FORMER.get(path.name)
    return path.is_symlink() and target is not None and _leads(path, target)


def _warn_about_path(host: Host) -> None:
    """Warn if a shell would not find the commands, or other ones first."""
    for path, target in _commands().items():
        if str(path.parent) not in os.environ.get("PATH", "").split(os.pathsep):
            return host.progress.say(f"{path.parent} is not on your PATH: add it")
        first = shutil.which(path.name)
        if first and not _leads(Path(first), target):
            host.progress.say(f"{first} comes before {path} on your PATH")


def _memory() -> Path:
    """Where the links to the fabfile can be; whether they are is asked of the file system."""
    return state_root() / "links.json"


def _remembered() -> list[Path]:
    try:
        return [Path(path) for path in documents.json_file(_memory())]
    except (ValueError, TypeError):
        return []
