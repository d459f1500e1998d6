"""MOUNT: the project folder in the guest, at /project. docs/adr/0016-the-folder-by-bindfs.md"""

from __future__ import annotations

import json
from pathlib import Path

from vagrantp_guard.contract import PROJECT

from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.guest import session, shell
from vagrantp.guest.facts import Facts
from vagrantp.instance import guard
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

PLACE = PROJECT
WARNING = (
    "MOUNT=rw: the guest can write .git/config and .git/hooks, so git in this folder may run "
    "its programs on this host: docs/howto.md says how to review safely"
)
TYPES = {"vm": "virtiofs", "container": "fuse"}  # "fuse.bindfs" where an older version made it


def check(instance: Instance, settings: Settings, facts: Facts) -> list[Check]:
    """Return whether a guest, by its facts, has the project folder as promised."""
    found = _found(instance, facts)
    return [] if found == settings.mount == "none" else [compare("mount", settings.mount, found)]


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

    `ssh`: the argv that reaches it, from `cwd`. A container has the folder from its start.
    """
    if instance.infra_type == "container" or _found(instance, facts) == settings.mount:
        return facts
    session.as_root(host, ssh, shell.mount_inside(settings.mount), f"mounting {PLACE}", cwd)
    return session.ask(host, ssh, cwd)[0]
