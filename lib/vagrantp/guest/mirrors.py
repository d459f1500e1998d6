"""Which mirrors of its packages a guest may not reach, and what to write so that it may."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from vagrantp_guard.contract import PRIVATE

from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.settings.env import Settings

# apt's sources, in both of its forms: sources.list(5).
SCRIPT = r"""
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources \
    2>/dev/null | sed -n 's/^[^#]*[ ]\(https\{0,1\}:[/][/][^ ]*\).*/\1/p' | sort -u | head -n 20
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
MOST = 5  # that are looked up
SECONDS = 5  # to look one up
PORTS = {"http": 80, "https": 443}


def places(printed: str) -> list[tuple[str, int]]:
    """Return host and port of the mirrors in what SCRIPT has printed."""
    return [*dict.fromkeys(_places(printed))][:MOST]


def _places(printed: str) -> Iterator[tuple[str, int]]:
    for line in printed.splitlines():
        with suppress(ValueError):
            found = urlsplit(line)
            if found.scheme in PORTS and NAME.fullmatch(found.hostname or ""):
                yield str(found.hostname), found.port or PORTS[found.scheme]


def out_of_reach(host: Host, settings: Settings, printed: str) -> list[str]:
    """Return what to say of the mirrors in what SCRIPT has printed that a guest may not reach."""
    if settings.lan_access:
        return []
    said = []
    for name, port in places(printed):
        addresses = _addresses(host, name)
        if addresses and not any(_is_open(settings, one, port) for one in addresses):
            where = f"{name} is on the LAN ({addresses[0]})" if name != str(addresses[0]) else name
            what = f"the guest's apt asks {where}, which it may not reach"
            said.append(f"{what}: LAN_ALLOW={addresses[0]}:{port} allows it")
    return said


def _addresses(host: Host, name: str) -> list[IPv4Address]:
    with suppress(ValueError):
        return [IPv4Address(name)]
    with suppress(ProviderError, ValueError):
        answer = host.ask(["getent", "ahostsv4", name], timeout=SECONDS)
        words = (line.split() for line in answer.stdout.splitlines())
        return [*dict.fromkeys(IPv4Address(line[0]) for line in words if line)]
    return []


def _is_open(settings: Settings, address: IPv4Address, port: int) -> bool:
    if address.is_loopback or not any(address in IPv4Network(network) for network in PRIVATE):
        return True
    return any(
        rule.network is not None
        and address in rule.network
        and rule.port in (None, port)
        and rule.protocol in (None, "tcp")
        for rule in settings.lan_allow
    )
