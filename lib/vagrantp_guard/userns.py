"""A container in a user namespace of its own: it is closed until it can be admitted.

Podman gives it a network only after the last hook that all OCI runtimes run before its first
process. docs/adr/0028-a-user-namespace-for-each-container.md
"""

from __future__ import annotations

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TextIO

from vagrantp_guard.contract import RUN
from vagrantp_guard.system import Refused, private, run, run_inside

TABLE = ("inet", "vagrantp")
CLOSED = f"""\
table {" ".join(TABLE)} {{
  chain output {{
    type filter hook output priority 0; policy drop;
    oifname "lo" accept;
  }}
}}
"""
# Kinds of namespaces, and how many of each a user of a container can have with NESTED=yes.
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
NAMESPACES = 512
CONNECTED_WITHIN = 20.0  # seconds that Podman has to set up the network
ADMITTED_WITHIN = 30.0  # seconds that `check` waits for those that are being admitted
PAUSE = 0.02  # seconds between two looks


def close(pid: int, first_id: int, is_nested: bool) -> None:
    """Let a container send no packet, and make no user namespace, or few. Raises Refused.

    `first_id`: as of check_ids; `is_nested`: NESTED=yes.
    """
    check_ids(pid, first_id)
    run_inside(pid, "nft", "-f", "-", stdin=CLOSED)
    # The kernel has one limit for each user namespace, and writes that of the caller's.
    most = dict.fromkeys(KINDS, NAMESPACES) if is_nested else {"user": 0}
    lines = (f"echo {n} > /proc/sys/user/max_{kind}_namespaces\n" for kind, n in most.items())
    run("nsenter", f"--target={pid}", "--user", "sh", "-ec", "".join(lines))


def check_ids(pid: int, first_id: int) -> None:
    """Raise Refused where a process is in another user namespace than its container was made with.

    `first_id`: the id on this host of root in that one.
    """
    for kind in ("uid_map", "gid_map"):
        inside, outside = Path(f"/proc/{pid}/{kind}").read_text().split()[:2]
        if (int(inside), int(outside)) != (0, first_id):
            raise Refused(f"its {kind} is not its own: {inside} is {outside}, not {first_id}")


def open_up(pid: int) -> None:
    """Let a container that the host's rules know send packets."""
    run_inside(pid, "nft", "delete", "table", *TABLE, check=False)


def is_connected(pid: int) -> bool:
    """Wait until a container has its network; return False if it ends before. Raises Refused."""
    until = monotonic() + CONNECTED_WITHIN
    while monotonic() < until:
        if not Path(f"/proc/{pid}/ns/net").exists():
            return False
        routes = run_inside(pid, "ip", "-json", "-4", "route", "show", "default", check=False)
        if json.loads(routes or "[]"):
            return True
        sleep(PAUSE)
    raise Refused("Podman has not connected it to a network")


def starting() -> TextIO:
    """Return a lock to be held while a container is being admitted. Many can hold it."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    lock = private(RUN / "starting.lock")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def wait_for_starting() -> None:
    """Wait until no container is being admitted, or for ADMITTED_WITHIN."""
    until = monotonic() + ADMITTED_WITHIN
    with private(RUN / "starting.lock") as lock:
        while monotonic() < until:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            sleep(PAUSE)
