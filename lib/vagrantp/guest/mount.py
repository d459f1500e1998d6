"""MOUNT: the project folder in the guest, at /project. docs/adr/0016-the-folder-by-bindfs.md"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from vagrantp_guard.contract import PROJECT

from vagrantp.core import documents
from vagrantp.core.places import SCRIPTS
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.guest import session, shell
from vagrantp.guest.facts import FOLDER_SCRIPT, Facts, OfFolder, of_folder
from vagrantp.instance import guard
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

PLACE = PROJECT
GIT = SCRIPTS / "git.sh"
MAX_PATH = 4096 + len("gitdir: \n")  # bytes (linux/limits.h)
WARNING = (
    "MOUNT=rw, unprotected: the guest can write .git/config and .git/hooks, so git in this folder "
    "may run its programs on this host: docs/howto.md says how to review safely"
)
TYPES = {"vm": "virtiofs", "container": "fuse"}  # "fuse.bindfs" where an older version made it


def shown(settings: Settings) -> str:
    """Return where and how a guest with these settings has the folder; "" for not at all."""
    if settings.mount == "none":
        return ""
    protection = "protected" if settings.protect else "unprotected"
    return ", ".join(
        [str(PLACE), settings.mount, *([protection] if settings.mount == "rw" else [])]
    )


def is_unprotected(settings: Settings) -> bool:
    """Say whether a guest with these settings writes what programs of this host run."""
    return settings.mount == "rw" and not settings.protect


def check(instance: Instance, settings: Settings, facts: Facts) -> list[Check]:
    """Return whether a guest, by its facts, has the project folder as promised."""
    found = _found(instance, facts)
    return [] if found == settings.mount == "none" else [compare("mount", settings.mount, found)]


def check_kept(
    host: Host, instance: Instance, settings: Settings, ssh: list[str], cwd: Path | None = None
) -> list[Check]:
    """Return whether PROTECT and HIDE are in force in a guest that `ssh` reaches, from `cwd`."""
    had = instance.settings
    if settings.mount == "none" or not (settings.hide or settings.mount == "rw"):
        return []
    is_protected = bool(had and had.protect)  # else asking would try to make a file
    script = f"set -- {shlex.join(settings.hide)}\n" + FOLDER_SCRIPT
    answer = session.tolerant(host, ssh, script, cwd) if is_protected or settings.hide else None
    found = of_folder(answer.stdout if answer else "", len(settings.hide))
    return [
        *([check_protect(settings.protect, is_protected, found)] if settings.mount == "rw" else []),
        *([check_hide(instance.folder, settings.hide, found)] if settings.hide else []),
    ]


def check_protect(promised: bool, is_protected: bool, found: OfFolder) -> Check:
    yes_or_no = {True: "yes", False: "no"}
    if is_protected and found.refuses is None:
        return Check(
            "protect", yes_or_no[promised], "unknown: it can write no file", "not enforced"
        )
    return compare("protect", yes_or_no[promised], yes_or_no[is_protected and bool(found.refuses)])


def check_hide(folder: Path, paths: tuple[str, ...], found: OfFolder) -> Check:
    """Compare files: what is hidden is another file in the guest, which may have written it."""
    inodes = zip(paths, found.inodes, strict=True)
    kept = [path for path, inode in inodes if inode not in (None, _inode(folder / path))]
    return compare("hide", ", ".join(paths), ", ".join(kept))


def _inode(path: Path) -> int | None:
    return path.lstat().st_ino if os.path.lexists(path) else None


def _found(instance: Instance, facts: Facts) -> str:
    mounted = facts.project
    if not mounted or mounted.kind.partition(".")[0] != TYPES[instance.infra_type]:
        return "none"
    is_this = instance.folder.is_dir() and mounted.inode == instance.folder.stat().st_ino
    return mounted.mode if is_this else "another folder"


def learn_user(host: Host, instance: Instance, settings: Settings, facts: Facts) -> bool:
    """Record the user who logs in; say whether the guest's folder belongs to another one.

    From its next start on it belongs to the right one.
    """
    wanted = guard.mount(instance, settings)
    if wanted is None or not facts.user or (wanted.uid, wanted.gid) == facts.user:
        return False
    document = instance.machine()
    document["provider"]["user_ids"] = facts.user
    host.write(instance.machine_json, json.dumps(document, indent=2, sort_keys=True))
    return True


def ensure(
    host: Host,
    instance: Instance,
    settings: Settings,
    facts: Facts,
    ssh: list[str],
    cwd: Path,
) -> Facts:
    """Mount the folder in a running VM, or unmount it, as promised; return its facts then.

    In any guest that has it, have git work there. `ssh`: the argv that reaches it, from `cwd`. A
    container has the folder from its start.
    """
    if settings.mount != "none" and not facts.trusted:
        session.as_root(host, ssh, GIT.read_text(encoding="utf-8"), f"git in {PLACE}", cwd)
    if instance.infra_type == "container" or _found(instance, facts) == settings.mount:
        return facts
    session.as_root(host, ssh, shell.mount_inside(settings.mount), f"mounting {PLACE}", cwd)
    return session.ask(host, ssh, cwd)[0]


def why_no_repository(folder: Path) -> str:
    """Return why git finds no repository at /project in a guest, "" where it may.

    A linked worktree and a submodule have a file in place of .git, which names another folder.
    """
    try:
        link = documents.text(folder / ".git", documents.without_links, at_most=MAX_PATH)
    except documents.Unreadable:
        return ""
    target, top = link.removeprefix("gitdir:").strip(), Path(os.path.realpath(folder))
    if target == link or target.startswith(f"{PLACE}/"):  # it is no such file, or a guest's
        return ""
    is_within = Path(os.path.realpath(f"{top}/{target}")).is_relative_to(top)
    if is_within and not target.startswith("/"):  # else the guest has another path for it
        return ""
    return (
        f".git leads out of this folder, to {plain(target)}, so git in the guest finds no "
        "repository: put .env into the main repository's folder, or make this one a clone"
    )
