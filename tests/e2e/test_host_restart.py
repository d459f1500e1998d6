"""A host that lost its power and comes up again. With systemd, test_bed.py does it for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.conftest import CONTAINER, VM, MakeProject
from tests.e2e.conftest import GUARD, guest, run, status

LOST = (  # processes, as far as the kernel tells their names
    *("aardvark-dns", "bindfs", "conmon", "dnsmasq", "libvirtd", "qemu-system-x86", "virtiofsd"),
    *("virtlogd", "forward", "guard"),
)
# below /run, which is in memory
RUN = ("containers", "crun", "libpod", "libvirt", "runc", "vagrantp")


def lose_power() -> None:
    """Take away what a restart takes: processes, what is in memory, links, rules."""
    lost = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text().strip()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            above = (folder.parent / parent / "comm").read_text().strip() if parent != "0" else ""
        except FileNotFoundError:
            continue
        if name in LOST or above == "conmon":  # a container's first process ends all others in it
            lost.append(int(folder.name))
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    for pid in lost:
        run("tail", f"--pid={pid}", "--follow", "/dev/null")
    places = ("/var/lib/containers/storage/", *(f"/run/{name}/" for name in (*RUN, "netns")))
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(places):
            run("umount", "--lazy", mount)
    for name in RUN:
        shutil.rmtree(f"/run/{name}", ignore_errors=True)
    for path in (*Path("/run/netns").glob("netns-*"), *Path("/dev/shm").glob("libpod*")):
        path.unlink()
    for link in json.loads(run("ip", "-json", "link")):
        if link["ifname"].startswith(("vagrantp", "vgp", "vnet", "veth", "podman")):
            run("sh", "-c", f"ip link delete {link['ifname']} || true")
    run("sh", "-c", "nft flush ruleset; ip rule delete priority 77 || true")


def come_up() -> None:
    """Start what starts with a host: the rules, then libvirt, as the units of host set-up do."""
    run(GUARD, "load")
    for daemon in ("virtlogd", "libvirtd"):
        run(daemon, "--daemon")


@pytest.mark.soak
@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="test_bed.py does it for real")
def test_all_is_right_after_a_restart(guests: MakeProject) -> None:
    idle = guests("idle").write({**CONTAINER, "PORTS": "18070:22"})
    other = guests("other").write(CONTAINER)
    machine = guests("machine").write({**VM, "AUTOSTART": "yes", "PORTS": "18071:22"})
    for app in (idle, other, machine):
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
        guest(app, f"echo {app.folder.name} > note; sync")
    before = {app.folder.name: status(app) for app in (idle, other, machine)}
    lose_power()
    come_up()
    listed = json.loads(idle.fab("ls", "--json").stdout)["instances"]
    assert {one["name"]: one["state"] for one in listed} == {
        "idle": "stopped",
        "machine": "running",
        "other": "stopped",
    }
    deadline = monotonic() + 300
    while machine.fab("ssh", "--command", "true").returncode:
        assert monotonic() < deadline
        sleep(1)
    assert status(machine) == {**before["machine"], "vnc": status(machine)["vnc"]}
    with socket.create_connection(("127.0.0.1", 18071)) as client:
        assert client.recv(4) == b"SSH-"
    assert machine.fab("verify").returncode == 0
    # in the other order: a connection that was kept would lead to another guest
    for app in (other, idle):
        assert app.fab("ssh", "--command", "true").returncode == 8
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
    for app in (idle, other, machine):
        assert guest(app, "cat note") == f"{app.folder.name}\n"
        assert status(app)["address"] == before[app.folder.name]["address"]
        assert app.fab("verify").returncode == 0
