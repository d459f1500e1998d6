"""A container's card on a bridge of the host, and what DHCP gives there."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vagrantp_guard.contract import GUARD, LAN_CARD, LanNic
from vagrantp_guard.system import PATH, in_background, run, run_inside


def plug(pid: int, lan: LanNic, hostname: str) -> None:
    """Give a container a card on a bridge of the host, as its only way out."""
    port = lan.port
    run("ip", "link", "delete", port, check=False)
    card = ("name", LAN_CARD, "address", lan.mac, "netns", str(pid))
    run("ip", "link", "add", port, "type", "veth", "peer", *card)
    run("ip", "link", "set", port, "master", lan.bridge)
    no_spanning_tree(port)
    run("ip", "link", "set", port, "up")
    run_inside(pid, "ip", "link", "set", LAN_CARD, "up")
    run_inside(pid, "ip", "route", "delete", "default", check=False)
    if lan.address:
        run_inside(pid, "ip", "address", "add", str(lan.address), "dev", LAN_CARD)
        run_inside(pid, "ip", "route", "add", "default", "via", str(lan.gateway), "dev", LAN_CARD)
    elif in_background():
        client = ("setpriv", "--pdeathsig=KILL", "busybox", "udhcpc", "-f", "-i", LAN_CARD)
        own = (*client, "-s", str(GUARD), "-x", f"hostname:{hostname}")
        try:
            guest = os.pidfd_open(pid)
            argv = ("nsenter", f"--target={pid}", "--net", *own)
            with subprocess.Popen(argv, env={"PATH": PATH, "PORT": port}) as process:
                select.select([guest], [], [])
                process.kill()
        finally:
            os._exit(0)


def no_spanning_tree(port: str) -> None:
    """Disable a port that sends spanning tree messages: a bridge obeys them before any filter."""
    run("ip", "link", "set", "dev", port, "type", "bridge_slave", "guard", "on")


def configure(lease: Mapping[str, str]) -> None:
    """Apply a lease in the current network namespace. `lease`: the environment from udhcpc(1)."""
    card = lease["interface"]
    own = f"{IPv4Address(lease['ip'])}/{IPv4Network('0.0.0.0/' + lease['subnet']).prefixlen}"
    run("ip", "address", "replace", own, "dev", card)
    for old in json.loads(run("ip", "-4", "-json", "address", "show", "dev", card)):
        for address in old["addr_info"]:
            if (known := f"{address['local']}/{address['prefixlen']}") != own:
                run("ip", "address", "delete", known, "dev", card)
    for router in lease.get("router", "").split()[:1]:
        run("ip", "route", "replace", "default", "via", router, "dev", card)


def ask_for_a_lease(port: str) -> None:
    """Make the udhcpc(1) of a container's card give back its lease, and ask for one again."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            client = os.pidfd_open(int(process.name))
            try:
                argv, environment = (
                    (process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ")
                )
                if argv[:2] == [b"busybox", b"udhcpc"] and f"PORT={port}".encode() in environment:
                    for told in (signal.SIGUSR2, signal.SIGUSR1):
                        signal.pidfd_send_signal(client, told)
            finally:
                os.close(client)
