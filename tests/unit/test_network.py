"""Free subnets and addresses."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp.core.errors import ConfigError, ConflictError
from vagrantp.net import subnets
from vagrantp.providers.libvirt import domain
from vagrantp.settings.parsers import fixed_ip

SUBNET = IPv4Network("10.201.0.0/24")


def test_the_first_subnet_that_overlaps_nothing() -> None:
    assert subnets.choose_subnet(subnets.FOR_LIBVIRT, []) == SUBNET
    taken = [
        IPv4Network("10.201.0.128/25"),
        IPv4Network("10.201.1.0/24"),
        IPv4Network("10.0.0.0/16"),
    ]
    assert subnets.choose_subnet(subnets.CANDIDATES, taken) == IPv4Network("10.201.2.0/24")


def test_the_providers_never_choose_the_same() -> None:
    for one in subnets.FOR_LIBVIRT:
        assert not any(map(one.overlaps, subnets.FOR_PODMAN))


def test_beside_a_vpn_that_takes_all_of_ten() -> None:
    company = IPv4Network("10.0.0.0/8")
    chosen = subnets.choose_subnet(subnets.FOR_PODMAN, [company])
    assert chosen == IPv4Network("172.29.128.0/24")
    with pytest.raises(ConflictError, match="has no place"):
        subnets.choose_subnet(subnets.FOR_PODMAN, [company, IPv4Network("172.16.0.0/12")])


def test_a_vpn_that_takes_all_is_no_network() -> None:
    halves = ["default", "0.0.0.0/1", "128.0.0.0/1", "192.168.1.0/24"]
    assert subnets._networks(halves) == [IPv4Network("192.168.1.0/24")]


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(2, 254), max_size=252))
def test_an_address_is_never_taken_nor_the_gateways_nor_the_broadcast(
    number: int, hosts: set[int]
) -> None:
    taken = dict.fromkeys((str(SUBNET[host]) for host in hosts), "somebody")
    address = subnets.choose_address(SUBNET, f"{number:08x}", taken)
    assert str(address) not in taken
    assert SUBNET[2] <= address <= SUBNET[-2]


def test_a_full_subnet() -> None:
    with pytest.raises(ConflictError, match="no free address"):
        subnets.choose_address(SUBNET, "00000000", dict.fromkeys(map(str, SUBNET), "x"))


@pytest.mark.parametrize(
    ("bridge", "address", "is_ours"),
    [
        ("vagrantp0", "10.201.0.1", True),
        ("virbr1", "10.201.0.1", False),
        ("vagrantp0", "192.168.7.1", False),
        ("vagrantp0", "fd00::1", False),
    ],
)
def test_which_network_is_ours(bridge: str, address: str, is_ours: bool) -> None:
    xml = f"<network><bridge name='{bridge}'/><ip address='{address}'/></network>"
    assert subnets.is_ours(ET.fromstring(xml)) == is_ours
    assert not subnets.is_ours(ET.fromstring("<network><bridge name='vagrantp0'/></network>"))
    made = domain.nat_network(subnets.NAME, SUBNET)
    assert subnets.is_ours(ET.fromstring(made))


@pytest.mark.parametrize(
    ("networks", "is_ours"),
    [(["10.201.0.0/24"], True), (["10.201.0.0/24", "fd00::/64"], False), ([], False)],
)
def test_which_podman_network_is_ours(networks: list[str], is_ours: bool) -> None:
    bridge = {"driver": "bridge", "network_interface": "vagrantp1"}
    listed: dict[str, object] = {**bridge, "subnets": [{"subnet": network} for network in networks]}
    assert subnets.is_our_podman_network(listed) == is_ours
    assert not subnets.is_our_podman_network({**listed, "driver": "macvlan"})
    assert not subnets.is_our_podman_network({**listed, "network_interface": "podman1"})


def test_a_fixed_address_is_had_or_refused() -> None:
    def choose(text: str, **taken: str) -> str:
        fixed = fixed_ip(text)
        return str(subnets.choose_address(SUBNET, "00000000", taken, fixed))

    assert choose("10.201.0.9") == choose("10.201.0.9/24") == "10.201.0.9"
    with pytest.raises(ConflictError, match=r"FIXED_IP=10\.201\.0\.9 is taken by app-12345678"):
        choose("10.201.0.9", **{"10.201.0.9": "app-12345678"})
    for outside in ("10.201.8.9", "10.201.0.9/16", "192.168.1.5/24"):
        with pytest.raises(ConfigError, match=r"must be on 10\.201\.0\.0/24, the network vagrantp"):
            choose(outside)
    for reserved in ("10.201.0.0", "10.201.0.1", "10.201.0.255"):
        text = "must not be the network's own address, its gateway's or its broadcast address, got"
        with pytest.raises(ConfigError, match=text):
            choose(reserved)


def test_an_address_that_a_removed_vm_still_leases_is_taken() -> None:
    listing = """\
 2026-11-23 18:23:06   52:54:af:5a:e0:b3   ipv4   10.201.0.63/24    a-af5ae0b3   ff:66:18:dd
 2026-11-23 18:48:21   52:54:48:00:42:bd   ipv4   10.201.0.56/24    -            -
"""
    assert subnets.leased(listing, but_to="52:54:00:00:00:01") == {
        "10.201.0.63": "52:54:af:5a:e0:b3, leased until 2026-11-23 18:23:06",
        "10.201.0.56": "52:54:48:00:42:bd, leased until 2026-11-23 18:48:21",
    }
    assert subnets.leased(listing, but_to="52:54:af:5a:e0:b3").keys() == {"10.201.0.56"}
