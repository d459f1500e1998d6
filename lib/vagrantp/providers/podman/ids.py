"""The ids of this host that belong to a container: each of root's has a user namespace of its own.

docs/adr/0028-a-user-namespace-for-each-container.md
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.errors import ConflictError
from vagrantp.core.places import state_root
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.instance.record import Instance

SIZE = 0x10000
NESTED_SIZE = 3 * SIZE  # with those that useradd(8) gives users of the guest by subuid(5)
# Above what systemd-nspawn takes and what useradd(8) gives by subuid(5), below the ids that systemd
# uses for foreign images: https://systemd.io/UIDS-GIDS/
BLOCKS = range(0x7000_0000, 0x7FFE_0000, SIZE)
NAME = contract.FIRST_ID  # of the file in an instance's state folder
NAMESPACES = Path("/run/netns")


def take(host: Host, folder: Path, size: int) -> int:
    """Choose `size` ids for the container whose state is in `folder`, and write down there which.

    Return the first.
    """
    own = folder / NAME
    with host.lock(state_root(), "user ids", "another vagrantp that takes user ids"):
        files = [path for path in state_root().glob(f"*/{NAME}") if path != own]
        taken = [_taken(file.read_text(encoding="ascii")) for file in files]
        for path in (Path("/etc/subuid"), Path("/etc/subgid")):
            taken += subordinate(path.read_text("utf-8") if path.exists() else "")
        first = choose(folder.name[-8:], taken, size)
        host.write(own, f"{first} {size}" if size != SIZE else str(first))
    return first


def share_namespaces(host: Host) -> None:
    """Make the folder of network namespaces a shared mount, as ip-netns(8) and Podman do.

    Podman does not where a container has ids of its own. Its clean-up runs in conmon's mount
    namespace: with a `/` that is not shared, as without systemd, it does not find the container's
    network there, and its address stays taken (4.3.1).
    """
    with host.lock(state_root(), "network namespaces", "another vagrantp that starts a container"):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        if any(f" {NAMESPACES} ".encode() in line and b" shared:" in line for line in lines):
            return
        script = 'mkdir --parents "$1" && mount --rbind --make-rshared "$1" "$1"'
        argv = ["sh", "-c", script, "sh", str(NAMESPACES)]
        host.change(argv, what="sharing the network namespaces", timeout=60)


def _taken(text: str) -> range:
    """Return the ids that a container has: the first, and how many where it is no whole block."""
    first, size = [*map(int, text.split()), SIZE][:2]
    return range(first, first + size)


def subordinate(text: str) -> list[range]:
    """Return the ids that a file of subuid(5) gives away. Pure."""
    lines = (line.split(":") for line in text.splitlines())
    numbers = ((int(w[1]), int(w[2])) for w in lines if len(w) == 3 and (w[1] + w[2]).isdecimal())
    return [range(first, first + count) for first, count in numbers]


def choose(identity: str, taken: Collection[range], size: int = SIZE) -> int:
    """Return the first of `size` free ids: of the block that `identity` points at, or a next. Pure.

    Raises ConflictError when there is none.
    """
    for step in range(len(BLOCKS)):
        first = BLOCKS[(int(identity, 16) + step) % len(BLOCKS)]
        last = first + size
        if last <= BLOCKS.stop and not any(t.start < last and first < t.stop for t in taken):
            return first
    raise ConflictError("no user ids are left for another container")


def of(instance: Instance) -> int | None:
    """Return the first id of a container; None where it has no user namespace of its own."""
    found: int | None = instance.machine().get("provider", {}).get(NAME)
    return found


def check(instance: Instance, pid: str) -> list[Check]:
    """Compare which user of this host root is in the container whose first process is `pid`.

    One that an older version made is root of this host. An ordinary user's is that user.
    """
    promised, found = of(instance) if os.getuid() == 0 else os.getuid(), _root_of(pid)
    shown = None if found is None else f"root is uid {found} of this host"
    if promised is None:
        return [Check("user namespace", "its own", shown or "nothing", "not enforced")]
    return [compare("user namespace", f"root is uid {promised} of this host", shown)]


def _root_of(pid: str) -> int | None:
    """Return which user of this host root is there, None for none, or where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/uid_map").read_text().splitlines()
    except FileNotFoundError:
        return None
    maps = (map(int, line.split()) for line in lines)
    return next((outside for inside, outside, _ in maps if inside == 0), None)
