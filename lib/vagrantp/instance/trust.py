"""MOUNT=rw: what this host reads and runs of a project whose guest may write it, once accepted.

Ansible, a template in a role, `.env` itself: whoever changes one of these can have this host do
something. So what was accepted is copied, and the copy is what is read and run; if the project has
changed since, a person has to say yes. docs/adr/0017-trust-by-copies.md
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vagrantp.core.errors import ConfigError, StateError
from vagrantp.core.system import Host
from vagrantp.instance import record as instances
from vagrantp.instance.record import Instance
from vagrantp.settings import env, saved
from vagrantp.settings.env import Settings

# What Ansible finds beside a playbook by itself, or people put there for it. It sees nothing else.
BESIDE = (
    *("ansible.cfg", "*.yml", "*.yaml"),
    *("collections", "defaults", "files", "group_vars", "handlers", "host_vars", "inventory"),
    *("library", "meta", "module_utils", "playbooks", "roles", "tasks", "templates", "vars"),
    "*_plugins",
)
MOST_BYTES = 64 * 1024**2  # of all that is copied
SETTINGS = "settings.json"  # beside the copies

Copies = dict[str, tuple[bytes, bool]]  # by path below the project: content, and is it executable


def accept(
    host: Host, instance: Instance, settings: Settings, is_sure: Callable[[str], bool]
) -> None:
    """Accept, as it is now, what this host reads and runs and a guest may have written.

    If anything has changed since the last time, `is_sure` is asked, with the changes. Raises
    StateError if the answer is no, and for a link, which could lead anywhere.
    """
    _finish(host, instance)
    if settings.mount != "rw" and not instance.accepted.is_dir():
        return
    copies = _copies(instance.folder, settings)
    if changed := _changed(instance, settings, copies):
        lines = "\n  ".join(changed)
        text = f"changed since the last accepted up, by its guest perhaps (MOUNT=rw):\n  {lines}"
        if not is_sure(text):
            raise StateError(text, "look at it, then: fab up --accept")
    if host.dry or (instance.accepted.is_dir() and not changed):
        return
    with host.scratch(instance.accepted.parent) as work:
        for name, (content, is_executable) in copies.items():
            path = work / "new/files" / name
            host.make_dir(path.parent)
            host.write(path, content, 0o700 if is_executable else 0o600)
        host.make_dir(work / "new/files")
        host.write(work / "new" / SETTINGS, json.dumps(saved.as_json(settings)))
        host.remove(_next(instance))
        host.move(work / "new", _next(instance))
    host.remove(instance.accepted)
    _finish(host, instance)


def _next(instance: Instance) -> Path:
    """Return the folder of newly accepted copies that are not in their place yet."""
    return instance.accepted.with_name(f"{instance.accepted.name}.next")


def _finish(host: Host, instance: Instance) -> None:
    """Move new copies into their place if that is free, also those of a verb that was killed."""
    if not instance.accepted.is_dir() and _next(instance).is_dir():
        host.move(_next(instance), instance.accepted)


def forget(host: Host, instance: Instance) -> None:
    """Remove the accepted copies with their guest, unless it has changed the project since."""
    _finish(host, instance)
    if not instance.accepted.is_dir():
        return
    try:
        settings = env.load(instance.folder)
        changed = _changed(instance, settings, _copies(instance.folder, settings))
    except (ConfigError, StateError) as error:
        changed = [error.message] if instance.folder.is_dir() else []
    if changed:
        host.progress.say(f"{instance.folder} has changed since it was accepted; fab up will ask")
    else:
        host.remove(instance.accepted)
        host.remove(_next(instance))
        with_others = instance.accepted.parent
        if not host.dry and not any(with_others.iterdir()):
            host.remove(with_others)


def _changed(instance: Instance, settings: Settings, copies: Copies) -> list[str]:
    """Return what differs from the accepted copies, a line each; nothing if there are none."""
    try:
        accepted = json.loads((instance.accepted / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    old = saved.from_json(accepted)
    changes = saved.differences(old, saved.kept(old, settings))
    found = [f"{key}: {was} → {now}" for key, was, now in changes]
    root = instance.accepted / "files"
    had = {
        str(path.relative_to(root)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in root.rglob("*")
        if path.is_file()
    }
    for name in sorted(had.keys() | copies.keys()):
        if name not in copies:
            found.append(f"{name} is gone")
        elif name not in had:
            found.append(f"{name} is new")
        elif had[name] != copies[name]:
            found.append(f"{name} is changed")
    return found


def _copies(folder: Path, settings: Settings) -> Copies:
    """Read all that this host would read or run, without following a link anywhere.

    The guest may be writing meanwhile: so only what is read here counts.
    """
    found: Copies = {}
    playbooks = [step.path for step in settings.provision_script if step.kind == "playbook"]
    scripts = [step.path for step in settings.provision_script if step.kind == "script"]
    named = (settings.provision_vars, settings.cloud_init, *settings.ssh_key, *scripts)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in [*filter(None, named), *playbooks]:
            if name := instances.inside(folder, path):
                found[name] = _read(root, name)
        for parent in {instances.inside(folder, path.parent) for path in playbooks}:
            if parent is not None:
                found |= dict(_tree(root, parent, BESIDE))
    finally:
        os.close(root)
    if sum(len(content) for content, _ in found.values()) > MOST_BYTES:
        raise StateError(
            f"with MOUNT=rw, what Ansible reads in {folder} must be {MOST_BYTES // 1024**2} MB "
            "at most"
        )
    return found


def _tree(root: int, name: str, wanted: Sequence[str]) -> Iterator[tuple[str, tuple[bytes, bool]]]:
    """Yield all below the folder `name`, of its own entries only what matches one of `wanted`."""
    descriptor = _open(root, name, os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as listing:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing)
    finally:
        os.close(descriptor)
    for entry, is_folder in entries:
        if any(map(Path(entry).match, wanted)):
            path = str(Path(name, entry))
            if is_folder:
                yield from _tree(root, path, ("*",))
            else:
                yield path, _read(root, path)


def _read(root: int, name: str) -> tuple[bytes, bool]:
    descriptor = _open(root, name, os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise StateError(f"{name} is no regular file, and MOUNT=rw needs one")
        return file.read(MOST_BYTES + 1), bool(mode & stat.S_IXUSR)


def _open(root: int, name: str, flags: int) -> int:
    """Open a path below `root`, no part of which may be a link. Raises StateError."""
    found = os.dup(root)
    parts = Path(name).parts
    for number, part in enumerate(parts):
        more = flags if number == len(parts) - 1 else os.O_DIRECTORY
        try:
            found, above = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | more, dir_fd=found), found
        except OSError as error:
            os.close(found)
            why = "is a link" if _is_link(error) else error.strerror
            raise StateError(f"{name}: {part} {why}, which MOUNT=rw does not allow") from None
        os.close(above)
    return found


def _is_link(error: OSError) -> bool:
    """Say whether open(2) failed for its O_NOFOLLOW, with O_DIRECTORY or without."""
    return error.errno in (errno.ELOOP, errno.ENOTDIR)
