"""Guests' resolvers: which addresses each withholds, and where it listens."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from vagrantp_guard.contract import Guest, Policy
from vagrantp_guard.resolver import command, opened, withheld

NEAR = "203.0.113.0/24"  # a network with public addresses that the host is directly on
NO_INTERNET = ("0.0.0.0", "10.0.0.1", "100.64.0.1", "169.254.1.1", "172.31.0.1", "192.168.1.5")
GUEST: dict[str, Any] = {"name": "app-1234abcd", "port": "veth1", "mac": "52:54:12:34:ab:cd"}


def allowed(*networks: str | None) -> list[dict[str, Any]]:
    return [{"network": network, "port": 443, "protocol": "tcp"} for network in networks]


@pytest.mark.parametrize(
    ("policy", "open_", "closed"),
    [
        (
            {},
            ("127.0.0.1", "198.51.100.9", "203.0.114.1"),
            (*NO_INTERNET, "203.0.113.7"),
        ),
        (
            {"lan_allow": allowed("192.168.1.5/32", "172.16.0.0/12", "203.0.112.0/20")},
            ("192.168.1.5", "172.31.0.1", "203.0.113.7"),
            ("192.168.1.4", "192.168.1.6", "10.0.0.1"),
        ),
        ({"lan_allow": allowed(None)}, (), ("192.168.1.5",)),  # a port of the host
        ({"lan_access": True}, ("192.168.1.5", "203.0.113.7", "10.0.0.1"), ()),
    ],
)
def test_the_addresses_that_a_guest_learns(
    policy: dict[str, Any], open_: tuple[str, ...], closed: tuple[str, ...]
) -> None:
    whole = Policy.from_json({"lan_access": False, "lan_allow": [], **policy})
    found = withheld(whole, [IPv4Network(NEAR), IPv4Network("10.201.0.0/24")])
    kept = {a for a in (*open_, *closed) if any(IPv4Address(a) in net for net in found)}
    assert kept == {*closed}


def test_each_guest_has_a_resolver_of_its_own_and_private_networks_change_none() -> None:
    def guest(bridge: str, ip: str) -> Guest:
        return Guest.from_json(
            {**GUEST, "bridge": bridge, "ip": ip, "lan_access": False, "lan_allow": []}
        )

    vm, other = guest("vagrantp0", "10.201.0.5"), guest("vagrantp0", "10.201.0.254")
    container = guest("vagrantp1", "172.29.128.5")
    found = [str(each.resolver) for each in (vm, other, container)]
    assert found == ["169.254.76.5", "169.254.76.254", "169.254.77.5"]
    assert command(vm, [IPv4Network("10.201.128.0/24")]) == command(vm, [])
    assert command(vm, [IPv4Network(NEAR)]) != command(vm, [])


def test_a_resolver_runs_where_its_own_sockets_receive() -> None:
    head = (
        "sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode"
    )
    rows = (
        ("1:0035", "0A", 65534),
        ("2:0035", "08", 65534),
        ("3:0035", "0A", 0),
        ("4:0035", "07", 65534),
    )
    table = [
        f"{n}: {a} 0:0 {state} 0:0 00:0 0 {uid} 0 9 1 0" for n, (a, state, uid) in enumerate(rows)
    ]
    assert opened("\n".join([head, *table])) == {"1:0035", "4:0035"}
