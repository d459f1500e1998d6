"""The address that DHCP has given to a guest's card on a bridge: one, for the time of its lease.

What a server has said is judged here (pure); listener.py reads it at the card.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from vagrantp_guard import dhcp
from vagrantp_guard.contract import RUN
from vagrantp_guard.lan_ruleset import Lease
from vagrantp_guard.system import read, run, write

FILE = RUN / "leases"
LEASED = ("bridge", "vagrantp", "leased")
LONGEST = 10 * 365 * 86400  # seconds; of a lease without an end, too


@dataclass(frozen=True)
class Lan:
    """What this host knows of the LAN behind a card.

    `own`: its addresses there; `taken`: those of others that it knows, and all of its own.
    """

    own: Collection[IPv4Interface]
    taken: Collection[IPv4Address]


def judged(ack: dhcp.Message, lan: Lan, now: float) -> Lease | None:
    """Return the lease that an acknowledgement gives, None if none. Pure.

    The server must be in a network of this host's on that bridge, and the address be one of that
    network that nobody has. `now`: in seconds, of `clock`.
    """
    networks = [i.network for i in lan.own if ack.source in i.network]
    others = {ack.source, *ack.routers, *lan.taken}
    if not networks or ack.given in others or not ack.seconds:
        return None
    network = max(networks, key=lambda one: one.prefixlen)
    ends = (network.network_address, network.broadcast_address)
    if ack.given not in network or (network.prefixlen < 31 and ack.given in ends):
        return None
    routers = tuple(router for router in ack.routers if router in network)
    address = IPv4Interface(f"{ack.given}/{network.prefixlen}")
    return Lease(address, ack.source, routers, now + min(ack.seconds, LONGEST))


def clock() -> float:
    """Return the seconds since the host's start, those that it has slept among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kept() -> dict[str, Lease]:
    """Return the leases on record that have not ended, by port."""
    try:
        found = {port: from_json(one) for port, one in json.loads(read(FILE) or "{}").items()}
    except (ValueError, TypeError, AttributeError, KeyError):  # that of an older version
        return {}
    now = clock()
    return {port: lease for port, lease in found.items() if lease.until > now}


def keep(leases: Mapping[str, Lease]) -> None:
    """Record all leases: if the rules were lost, nobody would know."""
    text = json.dumps({port: to_json(lease) for port, lease in leases.items()})
    if text != read(FILE):
        write(FILE, text)


def in_force() -> dict[str, Lease]:
    """Return the leases of which the rules know, or all on record where there are no rules.

    The rules forget one at its release.
    """
    leases, there = kept(), elements()
    if there is not None:
        leases = {port: one for port, one in leases.items() if (port, one.address.ip) in there}
    return leases


def elements() -> set[tuple[str, IPv4Address]] | None:
    """Return ports with their addresses, as the rules have them; None where there are no rules."""
    live = run("nft", "list", "set", *LEASED, check=False)
    found = re.findall(r'"([\w.-]+)" \. 0x([0-9a-f]{1,8}) ', live)
    return {(port, IPv4Address(int(address, 16))) for port, address in found} if live else None


def removal(over: Iterable[tuple[str, IPv4Address]]) -> str:
    """Return input for nft(8) that removes elements, those that have just ended among them. Pure.

    What is not there cannot be deleted, and what is there can be added.
    """
    return "".join(
        f'{verb} element {" ".join(LEASED)} {{ "{port}" . {int(address):#x}{timeout} }}\n'
        for port, address in over
        for verb, timeout in (("add", " timeout 1s"), ("delete", ""))
    )


def from_json(found: Mapping[str, Any]) -> Lease:
    """Read a lease. Raises ValueError, KeyError, TypeError."""
    return Lease(
        IPv4Interface(found["address"]),
        IPv4Address(found["server"]),
        tuple(map(IPv4Address, found["routers"])),
        float(found["until"]),
    )


def to_json(lease: Lease) -> dict[str, Any]:
    """Return it as a JSON object."""
    return {
        "address": str(lease.address),
        "server": str(lease.server),
        "routers": [*map(str, lease.routers)],
        "until": lease.until,
    }


def lan_of(bridge: str, taken: Iterable[IPv4Address]) -> Lan:
    """Return what this host knows of the LAN behind a bridge. `taken`: addresses of guests.

    Raises Refused.
    """
    asked = "address show\nroute show\n"
    listed = run("ip", "-4", "-json", "-batch", "-", stdin=asked).splitlines()
    links, routes = map(json.loads, listed)
    own = {
        IPv4Interface(f"{a['local']}/{a['prefixlen']}"): link.get("ifname")
        for link in links
        for a in link.get("addr_info", ())
    }
    routers = {IPv4Address(route["gateway"]) for route in routes if "gateway" in route}
    here = [interface for interface, link in own.items() if link == bridge]
    return Lan(here, {*taken, *routers, *(interface.ip for interface in own)})
