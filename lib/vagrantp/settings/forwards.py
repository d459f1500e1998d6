"""PORTS: text -> the forwards that it asks for, as parsers.py has it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations

from voluptuous import Invalid

from vagrantp.settings.parsers import ADDRESS, Protocol, items, port

FORWARD = re.compile(
    rf"(?:{ADDRESS}:)?(?P<host>[0-9]{{1,5}})(?:-(?P<host_end>[0-9]{{1,5}}))?"
    r":(?P<guest>[0-9]{1,5})(?:-(?P<guest_end>[0-9]{1,5}))?(?:/(?P<protocol>tcp|udp))?"
)
AUTO_FORWARD = re.compile(r"auto:(?P<guest>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?")
LONGEST_RANGE = 256  # ports


@dataclass(frozen=True)
class PortForward:
    """A port of the host that leads to one of the guest. `host` None: any free one, then kept."""

    address: IPv4Address | IPv6Address
    host: int | None
    guest: int
    protocol: Protocol

    def __str__(self) -> str:
        address = f"[{self.address}]:" if ":" in str(self.address) else f"{self.address}:"
        start = "auto" if self.host is None else f"{address}{self.host}"
        return f"{start}:{self.guest}{'/udp' if self.protocol == 'udp' else ''}"


def port_items(raw: str) -> tuple[str, ...]:
    """Split PORTS at commas; an empty one has no items."""
    return items(raw) if raw.strip() else ()


def port_forwards(text: str) -> tuple[PortForward, ...]:
    """Validate one item of PORTS, which may be a range of ports."""
    match = FORWARD.fullmatch(text) or AUTO_FORWARD.fullmatch(text)
    if not match:
        raise Invalid("must be [ADDR:]HOST:GUEST[/udp] or auto:GUEST[/udp], comma-separated")
    ends = dict.fromkeys(("v4", "v6", "host", "host_end", "guest_end"))
    found = {**ends, **match.groupdict()}
    try:
        address = ip_address(found["v4"] or found["v6"] or "127.0.0.1")
        is_usable = not address.is_multicast and (address.version == 6) == bool(found["v6"])
    except ValueError:
        is_usable = False
    if not is_usable:
        raise Invalid("must have an address of this host before its ports, when it has one")
    protocol: Protocol = "udp" if found["protocol"] == "udp" else "tcp"
    if found["host"] is None:
        return (PortForward(address, None, port(match["guest"]), protocol),)
    ours = _ports(found["host"], found["host_end"])
    theirs = _ports(match["guest"], found["guest_end"])
    if len(ours) != len(theirs):
        raise Invalid("must have as many ports before the colon as behind it")
    return tuple(
        PortForward(address, one, other, protocol) for one, other in zip(ours, theirs, strict=True)
    )


def _ports(first: str, last: str | None) -> range:
    found = range(port(first), port(last or first) + 1)
    if not 1 <= len(found) <= LONGEST_RANGE:
        raise Invalid(f"must have ranges of 1 to {LONGEST_RANGE} ports, from the lower one on")
    return found


def port_forward(text: str) -> PortForward:
    """Validate a single forward, as PortForward is written."""
    [found] = port_forwards(text)
    return found


def together(found: tuple[tuple[PortForward, ...], ...]) -> tuple[PortForward, ...]:
    """Return all forwards of the items of PORTS."""
    return tuple(one for each in found for one in each)


def each_port_once(forwards: tuple[PortForward, ...]) -> tuple[PortForward, ...]:
    """Validate that no two forwards want the same port of the host, or the same free one."""
    for one, other in combinations(forwards, 2):
        if one.protocol != other.protocol or one.host != other.host:
            continue
        if one.host is None and one.guest == other.guest:
            raise Invalid(f"must not have auto:{one.guest} twice")
        is_everywhere = one.address.is_unspecified or other.address.is_unspecified
        overlap = is_everywhere and one.address.version == other.address.version
        if one.host is not None and (overlap or one.address == other.address):
            raise Invalid(f"must not have port {one.host} of the host twice")
    return forwards


def is_wider_forward(one: str, other: str) -> bool:
    """Say whether an item of PORTS opens all that another one does."""
    try:
        wide, narrow = port_forward(one), port_forward(other)
    except Invalid:
        return False
    if wide.address.is_unspecified and wide.address.version == narrow.address.version:
        narrow = replace(narrow, address=wide.address)
    return wide == narrow
