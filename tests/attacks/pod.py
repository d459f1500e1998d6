"""A user's container: its rules are in its own network namespace, and whatever it sends is here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Interface, IPv4Network

from vagrantp_guard.contract import Policy
from vagrantp_guard.ruleset import inside_rules

from tests.attacks.lab import Namespace
from tests.attacks.lookout import Lookout, Probe, Round, Scene, Station
from tests.attacks.probes import DROPPED, INTERNET, RANGES, ip, ip6
from tests.attacks.street import ALLOWED, BY_DEVICE, HOST_MAC, MUTE

OWN, MAC = "10.0.2.100", "52:54:00:00:00:07"
HOST, RESOLVER = "10.0.2.2", "10.0.2.3"  # as slirp4netns(1) shows them
STATIONS = {"pod": Station("", OWN, ""), "outside": Station(HOST_MAC, HOST, MAC)}
POLICY = Policy.from_json({"lan_access": False, "lan_allow": ALLOWED})
NETWORKS = (IPv4Interface("192.168.77.1/24"), IPv4Interface("203.0.113.1/24"))
DEVICE_ROUTES = (IPv4Network(f"{BY_DEVICE}/24", strict=False),)
LOOPBACK = "lo"  # where it sees its own packets to itself, and how others were refused


def pod_rules(policy: Policy) -> str:
    """Return the rules of a user's container here."""
    return inside_rules(policy, NETWORKS, DEVICE_ROUTES)


class Pod(Lookout):
    """The container, and all that is outside of it."""

    prefix = "user's container: "

    def __init__(self) -> None:
        self.own, self.outside = Namespace(), Namespace()
        self.outside.link("pod", self.own, f"{OWN}/24", MAC)
        self.outside.run(f"ip link set pod address {HOST_MAC}")
        self.outside.run("nft -f -", MUTE)
        self.own.run(
            "echo 0 > /proc/sys/net/ipv4/icmp_ratemask; echo > /proc/sys/net/ipv6/icmp/ratemask"
            "; ip address add fd77::5/64 dev eth0 nodad"
            f"; for to in {HOST} {RESOLVER} fd77::2; do"
            f" ip neigh replace $to lladdr {HOST_MAC} dev eth0 nud permanent; done"
            f"; ip route add default via {HOST}; ip route add default via fd77::2"
        )
        super().__init__({"outside": self.outside.sniff("pod"), LOOPBACK: self.own.sniff(LOOPBACK)})
        with self.own.inside():
            self.raw = {
                family: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                for family in (socket.AF_INET, socket.AF_INET6)
            }

    def text(self) -> str:
        """Return its rules."""
        return pod_rules(POLICY)

    def nft(self, text: str) -> None:
        """Run nft(8) in it."""
        self.own.run("nft -f -", text)

    def load_text(self, text: str) -> None:
        """Write its rules."""
        self.nft(text)

    def send(self, probe: Probe, number: int) -> None:
        """Send a probe."""
        data = probe.frame(STATIONS[probe.origin], number)
        if probe.origin == "outside":
            self.links["outside"].send(data)
            return
        is_ip6 = data[0] >> 4 == 6
        family, end = (socket.AF_INET6, data[24:40]) if is_ip6 else (socket.AF_INET, data[16:20])
        with suppress(PermissionError):  # where the rules refuse it
            self.raw[family].sendto(data, (socket.inet_ntop(family, end), 0))

    def close(self) -> None:
        """Remove the namespaces."""
        for link in self.raw.values():
            link.close()
        super().close()


def before() -> Iterator[Probe]:
    """What it answers."""
    yield Probe("outside", "calls", ip(OWN, 5001, sport=5000), "unreachable")  # nothing listens


def ways_out() -> Iterator[Probe]:
    """What it sends."""
    yield Probe("pod", "to itself", ip("127.0.0.1", source="127.0.0.1"), LOOPBACK)
    yield Probe("pod", "answers", ip(HOST, 5000, sport=5001), "outside")
    yield Probe("pod", "to the internet", ip(INTERNET), "outside")
    yield Probe("pod", "pings the internet", ip(INTERNET, kind="ping"), "outside")
    yield Probe("pod", "DNS by udp", ip(RESOLVER, 53), "outside")
    yield Probe("pod", "DNS by tcp", ip(RESOLVER, 53, "tcp"), "outside")
    yield Probe("pod", "IPv6", ip6("fd99::9", 53, "fd77::5"), "prohibited")
    for kind, end in (("tcp", "reset"), ("udp", "prohibited"), ("ping", "prohibited")):
        for place in (HOST, RESOLVER, "192.168.77.1", "192.168.77.9", "203.0.113.1", "203.0.113.9"):
            yield Probe("pod", f"{place} by {kind}", ip(place, 22, kind), end)
        yield Probe("pod", f"a network behind a device by {kind}", ip(BY_DEVICE, 22, kind), end)
    for address in (*RANGES, "0.0.0.9", "240.0.0.9"):
        yield Probe("pod", address, ip(address), "prohibited")
    yield Probe("pod", "224.0.0.9", ip("224.0.0.9"), DROPPED)  # there is no ICMP error for it
    yield Probe("pod", "LAN_ALLOW opens a machine", ip("192.168.77.8"), "outside")
    yield Probe("pod", "LAN_ALLOW opens another", ip("192.168.78.8"), "outside")
    for address in ("192.168.77.9", "192.168.78.9"):
        yield Probe(
            "pod", f"LAN_ALLOW opens a port of {address}", ip(address, 80, "tcp"), "outside"
        )
    for address in (HOST, "192.168.77.1"):
        opened = ip(address, 7000, "tcp")
        yield Probe("pod", f"LAN_ALLOW opens a port of the host at {address}", opened, "outside")


def opened(text: str) -> str:
    """Return the rules as LAN_ACCESS=yes has them."""
    for closed in ("private", "on_link"):
        text = text.replace(f"    ip daddr @{closed} goto refuse\n", "")
    return text


def open_ways() -> Iterator[Probe]:
    """What LAN_ACCESS=yes opens, and what it does not."""
    for place in ("192.168.77.9", "203.0.113.9", BY_DEVICE, INTERNET, "10.9.9.9"):
        yield Probe("pod", place, ip(place, 22, "tcp"), "outside")
    for place in (HOST, "169.254.1.2", "192.168.77.1", "203.0.113.1"):
        yield Probe("pod", f"the host at {place}", ip(place, 22, "tcp"), "reset")


POD_SCENES = (
    Scene((Round([*before()]), Round([*ways_out()]))),
    Scene((Round([*open_ways()]),), opened),
)
