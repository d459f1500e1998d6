"""What libvirt and the OCI runtimes call: it admits a guest, or the guest does not start."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vagrantp_guard import listener, resolver
from vagrantp_guard.contract import (
    ANNOTATION,
    FORWARD,
    FORWARDS,
    HOOK_ERROR,
    LAN_TAPS,
    MOUNTS,
    NAME,
    Guest,
    Mount,
)
from vagrantp_guard.guests import (
    first_id_of,
    is_nested,
    is_recorded,
    mount_of,
    record,
    record_of,
    refuse_unrecorded,
)
from vagrantp_guard.lan import no_spanning_tree, plug
from vagrantp_guard.running import guest_of_container, guest_of_domain, parsed
from vagrantp_guard.share import project_in, share, unmount
from vagrantp_guard.system import Refused, in_background, is_rootless, locked, run
from vagrantp_guard.tables import load, load_inside
from vagrantp_guard.userns import check_ids, close, is_connected, open_up, starting
from vagrantp_guard.watcher import watch_container, watch_host


def on_qemu(name: str, operation: str) -> None:
    """Admit one of our VMs before it starts, and forget it when it has ended.

    Ignore any other domain: on our network, none of its packets gets through.
    """
    if operation == "prepare":  # virtiofsd comes before `start`
        _, values = parsed(sys.stdin.read())
        if values is not None and NAME.fullmatch(name):
            wanted = json.loads(values.get("mount", "null"))
            unmount(name)
            if wanted:
                MOUNTS.mkdir(mode=0o700, parents=True, exist_ok=True)
                MOUNTS.chmod(0o700)  # what is mounted below is open to all
                (MOUNTS / name).mkdir()
                person = (int(values.get("uid", "")), int(values.get("gid", "")))
                state = Path(values.get("state", "/"))
                share(MOUNTS / name, Mount.from_json(wanted), state, person)
    elif operation in ("start", "reconnect"):
        guest = guest_of_domain(sys.stdin.read())
        if guest:
            lan = guest.policy.lan if operation == "start" else None
            with locked():
                record(guest)
                load(starting=lan.port if lan else "")
            with suppress(*(() if operation == "start" else (Refused,))):  # it runs already
                watch_host()
            if operation == "start":
                _wait_for_helpers(guest)
    elif operation == "started":
        _, values = parsed(sys.stdin.read())
        if values is not None and record_of(name).exists():
            if json.loads(values.get("lan", "null")):
                no_spanning_tree(f"{LAN_TAPS}{values.get('id')}")
            pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
            user = ("setpriv", f"--reuid={values.get('uid')}", f"--regid={values.get('gid')}")
            forward_ports(Path(values.get("state", "/")), pid, (*user, "--init-groups"))
    elif operation == "release" and NAME.fullmatch(name):
        unmount(name)
        forget(name)


def on_oci(state: dict[str, Any]) -> None:
    """Admit or forget one of our containers; let any other start as if there were no hook.

    `state`: the container's, as the runtime writes it to the hook's stdin.
    """
    folder, bundle = Path(state["annotations"][ANNOTATION]), Path(state["bundle"])
    if not is_recorded(folder, state["id"]):
        refuse_unrecorded(folder, bundle)
    elif state["status"] == "stopped":
        forget(folder.name)
    else:
        with _explained(folder):
            _admit(int(state["pid"]), bundle, folder)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Record why a container must not start, or that nothing keeps it from that."""
    why = folder / HOOK_ERROR
    try:
        yield
        why.unlink(missing_ok=True)
    except Exception as error:  # crun(1) does not pass on what a hook prints
        why.write_text(f"{error}\n", encoding="utf-8")
        raise


def forget(name: str) -> None:
    """Take a guest that has ended out of the rules."""
    if not is_rootless() and record_of(name).exists():
        with locked():
            record_of(name).unlink(missing_ok=True)
            load()


def _admit(pid: int, bundle: Path, folder: Path) -> None:
    """Admit one of our containers before its first process.

    A user cannot write the host's filter: a user's container gets rules in its own network
    namespace, which nobody in it has the capability to change.
    """
    if mount := mount_of(folder):
        enter = ("nsenter", f"--target={pid}", "--mount")
        share(project_in(bundle), mount, folder, (0, 0), *enter)
    if is_rootless():
        load_inside(pid, folder)
        watch_container(pid, folder)
        return _forward_into(pid, folder)
    first_id = first_id_of(folder)
    if not first_id:
        return _admit_connected(pid, folder)
    close(pid, first_id, is_nested(folder))
    lock = starting()
    if in_background():
        try:
            with _explained(folder):
                if is_connected(pid):
                    _admit_connected(pid, folder, first_id)
                    open_up(pid)
        except BaseException:  # it stays closed; `check` must not call it admitted
            forget(folder.name)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # processes that stay have it open as well
            os._exit(0)


def _admit_connected(pid: int, folder: Path, first_id: int = 0) -> None:
    """Admit one of root's containers that has its network. `first_id`: of ids of its own."""
    guest = guest_of_container(folder, pid)
    lan = guest.policy.lan
    with locked():
        record(guest)
        load(starting=lan.port if lan else "")
    watch_host()
    _wait_for_helpers(guest)
    if lan:
        plug(pid, lan, hostname=folder.name.rpartition("-")[0])
    _forward_into(pid, folder, first_id)


def _wait_for_helpers(guest: Guest) -> None:
    """Raise Refused if a guest's resolver, or what hears its leases, does not run in time."""
    if not resolver.wait(guest.name):
        raise Refused(
            f"no resolver runs for it at {guest.resolver}: it needs dnsmasq 2.90, and port 53 there"
        )
    if not listener.wait(guest.name):
        raise Refused("nothing hears which address DHCP gives to it: see nfnetlink_log")


def _forward_into(pid: int, folder: Path, first_id: int = 0) -> None:
    """Start carrying a container's ports. `first_id`: of ids of its own. Raises Refused."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as netns:
        if first_id:  # the process may have ended, and its number be that of another one
            check_ids(pid, first_id)
        forward_ports(folder, pid, (), "--netns", f"/proc/{os.getpid()}/fd/{netns.fileno()}")


def forward_ports(folder: Path, pid: int, user: tuple[str, ...] = (), *options: str) -> None:
    """Start carrying a guest's ports, as its owner. A failure does not keep it from starting."""
    spec = folder / FORWARDS
    argv = (*user, "/usr/bin/python3", "-IS", str(FORWARD), str(spec), "--pid", str(pid), *options)
    try:
        run(*argv)
    except Refused as error:
        print(f"vagrantp guard: forwarding ports: {error}", file=sys.stderr)
