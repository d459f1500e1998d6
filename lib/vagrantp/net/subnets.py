"""The NAT network `vagrantp`: a subnet that overlaps nothing, and a free address in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address, ip_network
from itertools import chain
from typing import Any

from vagrantp_guard.contract import BRIDGES, NETWORK

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ConfigError, ConflictError
from vagrantp.core.system import Host

NAME = NETWORK
# Away from what home routers and other tools hand out (192.168/16, 10.0/16, 172.17/16, 10.88/16).
# The second is for hosts that have a route to all of 10/8, as companies' VPNs do.
CANDIDATES = (IPv4Network("10.201.0.0/16"), IPv4Network("172.29.0.0/16"))
# A half for each provider: the bridge, and so the route, of a Podman network is there only while
# a container runs in it.
FOR_LIBVIRT, FOR_PODMAN = zip(*(network.subnets() for network in CANDIDATES), strict=True)
WIDEST = 8  # a route to more than a /8 is a default one in parts, as VPNs write it


def free_subnet(
    host: Host, within: Iterable[IPv4Network], also_taken: Iterable[IPv4Network]
) -> IPv4Network:
    """Return a /24 of `within` that overlaps no route of the host and none of `also_taken`.

    Raises ConflictError when there is none.
    """
    query = ["ip", "-4", "-json", "route", "show", "table", "all"]
    routes = as_json("ip", host.ask(query).stdout, list)
    return choose_subnet(within, [*_networks(route["dst"] for route in routes), *also_taken])


def choose_subnet(within: Iterable[IPv4Network], taken: Collection[IPv4Network]) -> IPv4Network:
    """Return the first candidate that overlaps none of `taken`."""
    for subnet in chain.from_iterable(network.subnets(new_prefix=24) for network in within):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    where = " and ".join(map(str, CANDIDATES))
    raise ConflictError(f"this host has routes to all of {where}: the network {NAME} has no place")


def choose_address(
    subnet: IPv4Network,
    identity: str,
    taken: Mapping[str, str],
    fixed: IPv4Address | None = None,
) -> IPv4Address:
    """Return `fixed`, or else a free address of `subnet`: the one its id points at, or the next.

    `taken`: addresses that are given away, and to whom. The network's own address, the gateway (.1)
    and the broadcast address are never given. Raises ConfigError where `fixed` cannot be on
    `subnet`, ConflictError where it is taken.
    """
    if fixed:
        address = IPv4Address(int(fixed))
        prefix = fixed.network.prefixlen if isinstance(fixed, IPv4Interface) else subnet.prefixlen
        if address not in subnet or prefix != subnet.prefixlen:
            raise ConfigError(
                f'.env: FIXED_IP must be on {subnet}, the network {NAME}, got "{fixed}"',
                f"{subnet[2]} to {subnet[-2]} are the addresses there",
            )
        if address in (subnet[0], subnet[1], subnet[-1]):
            text = "the network's own address, its gateway's or its broadcast address"
            raise ConfigError(f'.env: FIXED_IP must not be {text}, got "{fixed}"')
        if holder := taken.get(str(address)):
            raise ConflictError(f"FIXED_IP={fixed} is taken by {holder}")
        return address
    count = subnet.num_addresses - 3
    for step in range(count):
        address = subnet[2 + (int(identity, 16) + step) % count]
        if str(address) not in taken:
            return address
    raise ConflictError(f"no free address is left in {subnet}, the network {NAME}")


def leased(listing: str, but_to: str) -> dict[str, str]:
    """Return the addresses in `virsh net-dhcp-leases` that others than the MAC `but_to` hold."""
    leases = re.findall(r"(\S+ \S+) +(\S+) +ipv4 +([\d.]+)/", listing)
    return {a: f"{mac}, leased until {time}" for time, mac, a in leases if mac != but_to}


def is_ours(xml: ET.Element) -> bool:
    """Say whether libvirt's network of our name has the form that we give it."""
    bridge, ip = xml.find("bridge"), xml.find("ip")
    return (
        bridge is not None
        and bridge.get("name") == BRIDGES["vm"]
        and ip is not None
        and any(ip_address(ip.get("address", "::")) in network for network in CANDIDATES)
    )


def is_our_podman_network(listed: dict[str, Any]) -> bool:
    """Say whether Podman's network of our name has the form that we give it."""
    subnets = [ip_network(item["subnet"]) for item in listed.get("subnets") or []]
    ipv4 = (n for n in subnets if isinstance(n, IPv4Network))
    own = [n for n in ipv4 if any(map(n.subnet_of, CANDIDATES))]
    kind = listed.get("driver"), listed.get("network_interface")
    is_bridge = kind == ("bridge", BRIDGES["container"])
    return is_bridge and bool(own) and len(own) == len(subnets)


def _networks(destinations: Iterable[str]) -> list[IPv4Network]:
    networks = (ip_network(d, strict=False) for d in destinations if d != "default")
    return [n for n in networks if isinstance(n, IPv4Network) and n.prefixlen >= WIDEST]
