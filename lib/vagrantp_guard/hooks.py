"""What libvirt and the OCI runtimes call: guests are admitted, or do not start."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from vagrantp_guard.contract import FORWARD, LAN_TAPS, METADATA, MOUNTS, NAME
from vagrantp_guard.guests import (
    card_of,
    checked_mount,
    guest_of_domain,
    mount_of,
    record,
    record_of,
    wishes_of,
)
from vagrantp_guard.lan import no_spanning_tree, plug
from vagrantp_guard.share import project_in, share, unmount
from vagrantp_guard.system import Refused, is_rootless, locked, run
from vagrantp_guard.tables import load, load_inside
from vagrantp_guard.watcher import watch_container, watch_host


def on_qemu(name: str, operation: str) -> None:
    """Admit a VM of ours before it starts, forget it when it has ended.

    A domain that is not ours gets nothing: on our network that is no packet at all.
    """
    if operation == "prepare":  # virtiofsd comes before `start`
        values = ET.fromstring(sys.stdin.read()).find(f"metadata/{METADATA}")
        if values is not None and NAME.fullmatch(name):
            wish = checked_mount(json.loads(values.get("mount", "null")))
            unmount(name)
            if wish:
                MOUNTS.mkdir(mode=0o700, parents=True, exist_ok=True)
                MOUNTS.chmod(0o700)  # what is mounted below is open to all
                (MOUNTS / name).mkdir()
                person = (int(values.get("uid", "")), int(values.get("gid", "")))
                share(MOUNTS / name, wish, person)
    elif operation in ("start", "reconnect"):
        guest = guest_of_domain(sys.stdin.read())
        if guest:
            with locked():
                record(guest)
                load(starting=guest["lan"]["port"] if operation == "start" and guest["lan"] else "")
            watch_host()
    elif operation == "started":
        values = ET.fromstring(sys.stdin.read()).find(f"metadata/{METADATA}")
        if values is not None and record_of(name).exists():
            if json.loads(values.get("lan", "null")):
                no_spanning_tree(f"{LAN_TAPS}{values.get('id')}")
            pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
            user = ("setpriv", f"--reuid={values.get('uid')}", f"--regid={values.get('gid')}")
            forward_ports(Path(values.get("state", "/")), pid, (*user, "--init-groups"))
    elif operation == "release" and NAME.fullmatch(name):
        unmount(name)
        forget(name)


def on_oci(pid: int, bundle: Path, folder: Path) -> None:
    """Admit a container of ours before its first process, or write down why it must not start.

    In a user's container there is no host's filter to write: it gets rules in its own network
    namespace, which nobody in it has the capability to change.
    """
    why = folder / "hook.error"
    try:
        _admit(pid, bundle, folder)
        why.unlink(missing_ok=True)
    except Exception as error:  # crun(1) tells nobody what a hook says
        why.write_text(f"{error}\n", encoding="utf-8")
        raise


def forget(name: str) -> None:
    """Take a guest that has ended out of the rules."""
    if not is_rootless() and record_of(name).exists():
        with locked():
            record_of(name).unlink(missing_ok=True)
            load()


def _admit(pid: int, bundle: Path, folder: Path) -> None:
    if wish := mount_of(folder):
        share(project_in(bundle), wish, (0, 0), "nsenter", f"--target={pid}", "--mount")
    if is_rootless():
        load_inside(pid, folder)
        watch_container(pid, folder)
        return forward_ports(folder, pid, (), "--netns", f"/proc/{pid}/ns/net")
    wishes = wishes_of(folder)
    with locked():
        record({"name": folder.name, **card_of(pid), **wishes})
        load(starting=wishes["lan"]["port"] if wishes["lan"] else "")
    watch_host()
    if wishes["lan"]:
        plug(pid, wishes["lan"], hostname=folder.name.rpartition("-")[0])
    forward_ports(folder, pid)


def forward_ports(folder: Path, pid: int, user: tuple[str, ...] = (), *options: str) -> None:
    """Let its ports be carried, as whose guest it is. That is no condition for a guest to start."""
    spec = folder / "forwards.json"
    argv = (*user, "/usr/bin/python3", "-IS", str(FORWARD), str(spec), "--pid", str(pid), *options)
    try:
        run(*argv)
    except Refused as error:
        print(f"vagrantp guard: forwarding ports: {error}", file=sys.stderr)
