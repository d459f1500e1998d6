"""NETWORK_TYPE=bridge: the bridge of this host, and what a guest is on the LAN behind it."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from time import monotonic, sleep

from vagrantp_guard.contract import BRIDGES, LAN_TAPS, LanNic

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ConfigError, ConflictError, ProviderError
from vagrantp.core.places import SET_UP
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

GUESTS_PORTS = ("tun", "veth")  # kinds of a bridge's ports that lead to guests; others lead out
NOBODYS = 9  # the port "discard": a datagram to it only makes this host ask for a MAC address
ANSWER_SECONDS = 1.0  # that a machine on a LAN has to answer with its MAC address
SECONDS_IF_KNOWN = 8.0  # Linux asks a known one again only after five: delay_first_probe_time
# systemd-resolved shows itself as the resolver, and has those that it asks in a file of its own.
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def card(host: Host, instance: Instance, settings: Settings) -> LanNic | None:
    """Return the guest's card on a bridge of this host, None where it gets none.

    `resolvers` are those that it may ask although they are on the LAN. Raises ConfigError where
    `.env` lacks what this host does not know, ConflictError where there is no such bridge, and
    ProviderError where the guest could not be kept from the LAN.
    """
    if settings.network_type == "default":
        return None
    if os.getuid() != 0 and settings.infra_type == "container":
        raise ProviderError(
            "NETWORK_TYPE=bridge is not for a user's container: it is on no network of this host",
            "take it out, or make it as root",
        )
    bridge = _bridge(host, settings)
    own = _addresses(host, bridge)
    routes = as_json("ip", host.answer(["ip", "-4", "-json", "route", "show", "default"]), list)
    there = [r for r in routes if r.get("dev") == bridge and "gateway" in r]
    routers = [IPv4Address(route["gateway"]) for route in there]
    port, mac = f"{LAN_TAPS}{instance.id}", settings.mac or instance.lan_mac
    if settings.fixed_ip:
        address = _with_prefix(settings.fixed_ip, own, bridge)
        gateway = settings.gateway or _router_in(address.network, routers)
        dns = settings.dns or gateway
        return LanNic(port, bridge, mac, address, gateway, dns, (dns,))
    if not own:  # nobody could tell a server of that LAN from one elsewhere
        raise ProviderError(
            f"a guest by DHCP cannot be isolated: this host has no address on {bridge}, "
            "and so does not know that LAN",
            "write FIXED_IP=ADDRESS/PREFIX and GATEWAY",
        )
    if settings.infra_type == "container" and not is_installed("busybox"):
        raise ProviderError("busybox, which asks for an address by DHCP, is not installed", SET_UP)
    near = [a for a in _resolvers_of_host() if any(a in i.network for i in own)]
    resolvers = tuple(dict.fromkeys([*routers, *near]))
    return LanNic(port, bridge, mac, address=None, gateway=None, dns=None, resolvers=resolvers)


def refuse_taken(host: Host, nic: LanNic) -> None:
    """Raise ConflictError where another machine on the LAN has the guest's fixed address.

    This host asks by ARP, if it is on that network itself.
    """
    if not nic.address:
        return
    wanted = nic.address
    if any(wanted.ip == own.ip for own in _addresses(host)):
        raise ConflictError(f"FIXED_IP={wanted.ip} is taken by this host itself")
    if not any(wanted.ip in own.network for own in _addresses(host, nic.bridge)):
        return
    with socket.socket(type=socket.SOCK_DGRAM) as trial, suppress(OSError):
        trial.sendto(b"", (str(wanted.ip), NOBODYS))
    began = monotonic()
    query = ["ip", "-json", "neighbour", "show", "to", str(wanted.ip), "dev", nic.bridge]
    seconds = ANSWER_SECONDS
    while monotonic() < began + seconds:
        for known in as_json("ip", host.answer(query) or "[]", list):
            if "REACHABLE" in known["state"] and known["lladdr"] != nic.mac:
                raise ConflictError(
                    f"FIXED_IP={wanted.ip} is taken by {known['lladdr']} on {nic.bridge}"
                )
            if {*known["state"]} & {"DELAY", "PROBE"}:
                seconds = SECONDS_IF_KNOWN
        sleep(0.1)


def _bridge(host: Host, settings: Settings) -> str:
    """Return BRIDGE, or the only bridge of this host that leads out of it."""
    links = as_json("ip", host.answer(["ip", "-json", "-details", "link"]), list)
    kinds: dict[str, str] = {
        link["ifname"]: link.get("linkinfo", {}).get("info_kind", "") for link in links
    }
    ours = BRIDGES.values()
    bridges = [name for name, kind in kinds.items() if kind == "bridge" and name not in ours]
    there = f"this host has {', '.join(bridges)}" if bridges else "this host has none"
    if settings.bridge:
        if settings.bridge not in bridges:
            raise ConflictError(f"{settings.bridge} is not a bridge of this host", there)
        return settings.bridge
    out = {
        link.get("master")
        for link in links
        if "master" in link and kinds[link["ifname"]] not in GUESTS_PORTS
    }
    found = [name for name in bridges if name in out]
    if len(found) != 1:
        what = f"{len(found)} bridges lead" if found else "no bridge leads"
        raise ConflictError(
            f"{what} out of this host" + (f": {', '.join(found)}" if found else ""),
            f"BRIDGE names the one to take; {there}",
        )
    return found[0]


def _addresses(host: Host, link: str = "") -> list[IPv4Interface]:
    """Return this host's addresses, with the networks that they are in: all, or those of a link."""
    only = ["dev", link] if link else []
    found = as_json("ip", host.answer(["ip", "-4", "-json", "address", "show", *only]), list)
    return [
        IPv4Interface(f"{a['local']}/{a['prefixlen']}")
        for each in found
        for a in each.get("addr_info", [])
    ]


def _with_prefix(fixed: IPv4Address, own: list[IPv4Interface], bridge: str) -> IPv4Interface:
    if isinstance(fixed, IPv4Interface):
        return fixed
    for interface in own:
        if fixed in interface.network:
            return IPv4Interface(f"{fixed}/{interface.network.prefixlen}")
    raise ConfigError(
        f'.env: FIXED_IP must have a prefix, as this host is not on its network, got "{fixed}"',
        f"FIXED_IP={fixed}/24 is usual; this host has "
        + (f"{', '.join(map(str, own))} on {bridge}" if own else f"no address on {bridge}"),
    )


def _router_in(net: IPv4Network, routers: list[IPv4Address]) -> IPv4Address:
    for router in routers:
        if router in net:
            return router
    raise ConfigError(
        f".env: missing key GATEWAY: this host knows no router of its own on {net}",
        f"GATEWAY={net[1]} is usual",
    )


def _resolvers_of_host() -> list[IPv4Address]:
    for path in RESOLVERS:
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            return [*map(IPv4Address, re.findall(r"^nameserver +([\d.]+)\s*$", text, re.M))]
    return []
