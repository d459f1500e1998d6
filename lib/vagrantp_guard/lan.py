"""A container's card on a bridge of the host, and what DHCP gives there."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from vagrantp_guard.contract import GUARD, LAN_CARD, RUN, LanNic
from vagrantp_guard.system import PATH, in_background, locked, read, run, run_inside, write


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
            environment = {"PATH": PATH, "PORT": port, "WATCHER": str(os.getpid())}
            with subprocess.Popen(argv, env=environment) as process:
                select.select([guest], [], [])
                process.kill()
        finally:
            os._exit(0)


def no_spanning_tree(port: str) -> None:
    """Disable a port that sends spanning tree messages: a bridge obeys them before any filter."""
    run("ip", "link", "set", "dev", port, "type", "bridge_slave", "guard", "on")


def configure(lease: Mapping[str, str]) -> None:
    """Apply a lease in the current network namespace. `lease`: the environment from udhcpc(1).

    Its WATCHER is a process in the host's namespace.
    """
    card = lease["interface"]
    own = f"{IPv4Address(lease['ip'])}/{IPv4Network('0.0.0.0/' + lease['subnet']).prefixlen}"
    run("ip", "address", "replace", own, "dev", card)
    for old in json.loads(run("ip", "-4", "-json", "address", "show", "dev", card)):
        for address in old["addr_info"]:
            if (known := f"{address['local']}/{address['prefixlen']}") != own:
                run("ip", "address", "delete", known, "dev", card)
    for router in lease.get("router", "").split()[:1]:
        run("ip", "route", "replace", "default", "via", router, "dev", card)
    with locked():
        given = f"{int(IPv4Address(lease['ip'])):08x}"
        write(RUN / "leases", json.dumps({**kept_leases(), lease["PORT"]: [given]}))
        # the rules have seen it as well, unless they were lost just then
        element = f'{{ "{lease["PORT"]}" . 0x{given} }}'
        which = ("bridge", "vagrantp", "leased")
        run_inside(int(lease["WATCHER"]), "nft", "add", "element", *which, element, check=False)


def keep_leases() -> None:
    """Record what DHCP has given: if the rules were lost, nobody would know."""
    live = run("nft", "list", "set", "bridge", "vagrantp", "leased", check=False)
    if live:
        found = defaultdict[str, list[str]](list)
        for port, address in re.findall(r'"([\w.-]+)" \. 0x([0-9a-f]{1,8}) ', live):
            found[port].append(address)
        write(RUN / "leases", json.dumps(found))


def leased() -> dict[str, list[str]]:
    return {
        port: [str(IPv4Address(int(address, 16))) for address in all_]
        for port, all_ in kept_leases().items()
    }


def kept_leases() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(read(RUN / "leases") or "{}")
    return found
