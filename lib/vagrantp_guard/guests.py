"""Records of admitted guests, and of what a container is to get."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from vagrantp_guard.contract import (
    CONTAINER_ID,
    FIRST_ID,
    ISOLATION,
    NESTED,
    RUN,
    SEED,
    SEED_MOUNT,
    Guest,
    Mount,
    Policy,
)
from vagrantp_guard.system import Refused, is_private, write


def guests() -> list[Guest]:
    """Return the guests that are admitted now. Raises ValueError for an invalid record."""
    paths = sorted((RUN / "guests").glob("*.json"))
    return [Guest.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def record(guest: Guest) -> None:
    """Admit a guest: the next load of the rules includes it."""
    write(record_of(guest.name), json.dumps(guest.to_json()))


def record_of(name: str) -> Path:
    """Return the file with the record of an admitted guest."""
    return RUN / "guests" / f"{name}.json"


def policy_of(folder: Path) -> Policy:
    """Read what a container may reach. Raises Refused, ValueError."""
    return checked(Policy.from_json(_written(folder)))


def checked(policy: Policy) -> Policy:
    """Return a policy that can be enforced. Raises Refused for any other."""
    for rule in policy.lan_allow:
        if isinstance(rule.network, IPv6Network):
            raise Refused(f"LAN_ALLOW has {rule.network}, and guests have no IPv6")
    return policy


def mount_of(folder: Path) -> Mount | None:
    """Read how a container gets its project folder, None if not. Raises Refused, ValueError.

    Its user and group are those of this host that the guest's are.
    """
    found = _written(folder).get("mount")
    if not found:
        return None
    mount, first_id = Mount.from_json(found), first_id_of(folder)
    return replace(mount, uid=first_id + mount.uid, gid=first_id + mount.gid)


def first_id_of(folder: Path) -> int:
    """Read which id of this host root in a container is, 0 for root's. Raises Refused, ValueError.

    0 as well where it has no user namespace of its own: that of an older version, or a user's.
    """
    return int(_written(folder).get(FIRST_ID) or 0)


def is_nested(folder: Path) -> bool:
    """Read whether containers may be made in a container. Raises Refused, ValueError."""
    return _written(folder).get(NESTED) is True


def _written(folder: Path) -> dict[str, Any]:
    """Read a container's isolation.json. Raises Refused if others could have written it."""
    path = folder / ISOLATION
    with path.open(encoding="utf-8") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused(f"{path} may be written by others")
        found: dict[str, Any] = json.load(file)
    return found


def is_recorded(folder: Path, identity: str) -> bool:
    """Say whether a container is the one whose state folder this is, by its id.

    Podman copies annotations of an image to its containers, so any container may name any folder.
    None can know its own id beforehand. The record must be the caller's own and private.
    """
    with suppress(OSError, ValueError):  # whatever an image has put into the annotation
        if not (folder.is_absolute() and is_private(folder.lstat(), stat.S_ISDIR)):
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(
            folder / CONTAINER_ID, opener=lambda path, more: os.open(path, flags | more)
        ) as file:
            is_own = is_private(os.fstat(file.fileno()), stat.S_ISREG)
            return is_own and file.read(len(identity) + 2).strip() == identity
    return False


def has_seed(folder: Path, mounts: Iterable[tuple[str, str]]) -> bool:
    with suppress(OSError, ValueError):
        return any(
            target == SEED_MOUNT and (folder / SEED).samefile(source) for target, source in mounts
        )
    return False


def config_of(bundle: Path) -> dict[str, Any]:
    """Return a container's configuration: config.json of the runtime-spec."""
    found: dict[str, Any] = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    return found


def mounts_of(bundle: Path) -> dict[str, str]:
    """Return the sources of a container's mounts, by their places in it."""
    return {m["destination"]: m.get("source", "") for m in config_of(bundle)["mounts"]}


def refuse_unrecorded(folder: Path, bundle: Path) -> None:
    """Raise Refused for a container of vagrantp whose id is not on record; let any other start.

    Such a container has the seed of that folder, which an image cannot mount.
    """
    if has_seed(folder, mounts_of(bundle).items()):
        raise Refused(f"{folder.name} is not on record, as an older version made it: run fab up")
