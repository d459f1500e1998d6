"""What is sent through the rules, and how each probe ends: read from docs/isolation.md, not from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.attacks import frames
from tests.attacks.frames import ALL, ALL_MACS, NOBODY, SYN
from tests.attacks.lab import BRIDGE_MAC, CONTAINER, LAN_CARD, VM
from tests.attacks.street import BR0_MAC, LEASE, STATIONS, Frame, Probe, Round, Station

OTHER = "52:54:00:00:00:99"
LLDP, EAPOL = "01:80:c2:00:00:0e", "01:80:c2:00:00:03"  # a bridge hands these to its host
INTERNET = "198.51.100.9"
GATEWAY, GATEWAY1 = "10.201.0.1", "10.201.128.1"
PEER = "192.168.78.9"
INTERNET_PORTS = {"vm": 9000, "container": 9001}


def ip(
    target: str,
    port: int = 9,
    kind: str = "udp",
    *,
    sport: int = 0,
    source: str = "",
    mac: str = "",
    to: str = "",
    tag: bytes = frames.IP,
    flags: int = SYN,
) -> Frame:
    """Make packets to an address. `kind`: udp, tcp, ping, pong. `tag`: bytes before the packet."""

    def frame(own: Station, number: int) -> bytes:
        origin = source or own.ip
        ports = (sport or 20_000 + number, port)
        if kind == "udp":
            protocol, body = frames.UDP, frames.udp(*ports, frames.word(number))
        elif kind == "tcp":
            protocol, body = frames.TCP, frames.tcp((origin, target), ports, flags, number)
        else:
            echo = {"ping": frames.ECHO, "pong": frames.ECHO_REPLY}[kind]
            protocol, body = frames.ICMP, frames.icmp(echo, number)
        packet = frames.ipv4(origin, target, protocol, body, number)
        if not own.mac:
            return packet
        return frames.raw(to or own.to) + frames.raw(mac or own.mac) + tag + packet

    return frame


def ip6(target: str, port: int, source: str) -> Frame:
    def frame(own: Station, number: int) -> bytes:
        body = frames.udp(20_000 + number, port, frames.word(number))
        packet = frames.ipv6(source, target, body, number)
        return frames.raw(own.to) + frames.raw(own.mac) + frames.IPV6 + packet

    return frame


def arp(*, mac: str = "", sender_mac: str = "", sender: str = "", to: str = ALL_MACS) -> Frame:
    def frame(own: Station, number: int) -> bytes:
        body = frames.arp(sender_mac or own.mac, sender or own.ip, number)
        return frames.raw(to) + frames.raw(mac or own.mac) + frames.ARP + body

    return frame


def dhcp(
    source: str = NOBODY,
    target: str = ALL,
    *,
    client: str = "",
    mac: str = "",
    given: str = "",
    to: str = "",
) -> Frame:
    """Make messages of DHCP: of a client; with `given`, a server's answer to `client`."""

    def frame(own: Station, number: int) -> bytes:
        op, ports = (2, (67, 68)) if given else (1, (68, 67))
        text = frames.dhcp(client or own.mac, number, op, given or NOBODY)
        packet = frames.ipv4(source, target, frames.UDP, frames.udp(*ports, text), number)
        there = to or (ALL_MACS if target == ALL else own.to)
        return frames.raw(there) + frames.raw(mac or own.mac) + frames.IP + packet

    return frame


def junk(kind: str) -> Frame:
    return lambda own, number: (
        frames.raw(own.to + own.mac) + bytes.fromhex(kind) + frames.word(number).ljust(46)
    )


def before() -> Iterator[Probe]:
    """What the later ones answer, or what may not help them."""
    yield Probe("Docker to a network that the host is on", "docker", ip("192.0.2.9"), "club")
    yield Probe("a container of ours asks there first", "container", ip("192.0.2.8"), "prohibited")
    for guest in ("vm", "container"):
        own = STATIONS[guest].ip
        call, end = ip(own, 7101, sport=7100), {"vm": "port+vm"}.get(guest, guest)
        yield Probe(f"the host calls {guest}", "host", call, end)
        call = ip(INTERNET, 90, sport=INTERNET_PORTS[guest])
        yield Probe(f"{guest} calls the internet", guest, call, "internet")
        end = "internet mss 1360"
        yield Probe(f"{guest} connects", guest, ip(INTERNET, 80, "tcp", sport=9100), end)
    mac = STATIONS["leased"].mac
    answer = dhcp("192.168.78.1", LEASE, client=mac, given=LEASE, to=mac)
    yield Probe("a DHCP server gives an address", "peer", answer, "leased")
    foreign = dhcp("192.168.78.1", "192.168.78.61", client=OTHER, given="192.168.78.61", to=mac)
    yield Probe("a DHCP server gives another's MAC an address", "peer", foreign, "leased")
    card = STATIONS["card"].ip
    yield Probe("the LAN calls by UDP", "peer", ip(card, 5001, sport=5000), "card")
    yield Probe("the LAN calls by TCP", "peer", ip(card, 5003, "tcp", sport=5002), "card")
    yield Probe("the LAN pings", "peer", ip(card, kind="ping"), "card")


def of_guests() -> Iterator[Probe]:
    """Both kinds of guests on our own network."""
    for guest, gateway in (("vm", GATEWAY), ("container", GATEWAY1)):
        own = STATIONS[guest]
        far = {"vm": "container", "container": "vm"}[guest]
        yield Probe(f"{guest}: ARP", guest, arp(), "bridge")
        yield Probe(f"{guest}: ARP as another address", guest, arp(sender=gateway), "dropped")
        yield Probe(f"{guest}: ARP as another MAC", guest, arp(sender_mac=OTHER), "dropped")
        yield Probe(f"{guest}: ARP from another MAC", guest, arp(mac=OTHER), "dropped")
        yield Probe(
            f"{guest}: as another address", guest, ip(INTERNET, source="10.201.0.99"), "dropped"
        )
        yield Probe(f"{guest}: as another MAC", guest, ip(INTERNET, mac=OTHER), "dropped")
        for name, tag in (("802.1Q", frames.VLAN), ("802.1ad", frames.QINQ)):
            tagged = ip(INTERNET, tag=tag + frames.IP)
            yield Probe(f"{guest}: in a tag of {name}", guest, tagged, "dropped")
        yield Probe(f"{guest}: IPv6", guest, ip6("fd77::9", 53, "fd78::5"), "dropped")
        yield Probe(f"{guest}: another ethertype", guest, junk("88b5"), "dropped")
        # the resolver, and the internet
        port = {"vm": 53, "container": 53053}[guest]
        for kind in ("udp", "tcp"):
            asked = ip(gateway, 53, kind)
            yield Probe(f"{guest}: DNS by {kind}", guest, asked, f"host:{port}")
        yield Probe(f"{guest}: to the internet", guest, ip(INTERNET), "internet")
        yield Probe(f"{guest}: pings the internet", guest, ip(INTERNET, kind="ping"), "internet")
        # what the host says to whoever has called
        answer = ip(gateway, 7100, sport=7101)
        if guest == "container":
            answer = ip("10.201.0.1", 7100, sport=7101)
        yield Probe(f"{guest}: answers the host", guest, answer, "host:7100")
        # the host
        for kind, end in (("tcp", "reset"), ("udp", "prohibited"), ("ping", "prohibited")):
            places = (
                gateway,
                "10.201.0.1",
                "192.168.77.1",
                "172.17.0.1",
                "198.18.77.1",
                "192.0.2.1",
            )
            for address in dict.fromkeys(places):
                name = f"{guest}: the host at {address} by {kind}"
                yield Probe(name, guest, ip(address, 22, kind), end)
        yield Probe(
            f"{guest}: another resolver of the host", guest, ip("192.168.77.1", 53), "prohibited"
        )
        yield Probe(f"{guest}: a port of Docker's", guest, ip(gateway, 8080, "tcp"), "reset")
        redirected = ip("198.51.100.77", 80, "tcp")
        yield Probe(f"{guest}: what DNAT sends to the host", guest, redirected, "reset")
        yield Probe(f"{guest}: port 53053 of the host", guest, ip(gateway, 53053), "prohibited")
        yield Probe(f"{guest}: the host's DHCP server", guest, ip("192.168.77.1", 67), "dropped")
        # the LAN, and all that is no internet
        for kind, end in (("tcp", "reset"), ("udp", "prohibited"), ("ping", "prohibited")):
            for place in (
                "192.168.77.9",
                "172.17.0.2",
                "192.0.2.9",
                "198.18.77.2",
                STATIONS[far].ip,
            ):
                yield Probe(f"{guest}: {place} by {kind}", guest, ip(place, 53, kind), end)
        for place in ("10.9", "100.64", "169.254", "172.16", "192.0.0", "192.168"):
            address = f"{place}.9.9"[: len(place) + 4] if place.count(".") < 2 else f"{place}.9"
            yield Probe(f"{guest}: {address}", guest, ip(address), "prohibited")
        for place in ("0.0.0.9", "127.0.0.1", "240.0.0.9"):
            yield Probe(f"{guest}: {place}", guest, ip(place), "prohibited")
        yield Probe(
            f"{guest}: 224.0.0.9", guest, ip("224.0.0.9"), "bridge"
        )  # which no host forwards
        for sport in (22, 53, 67, 68, 80):
            answer = ip("192.168.77.9", 7000, "tcp", sport=sport)
            yield Probe(f"{guest}: the LAN from port {sport}", guest, answer, "reset")
    # a bridge hands these to its host as if they had come to the port itself
    for name, to in (("LLDP", LLDP), ("EAPOL", EAPOL)):
        for guest in ("vm", "card"):
            yield Probe(f"{guest}: to the address of {name}", guest, ip(INTERNET, to=to), "dropped")
    for guest in ("vm", "container", "card"):
        forged = arp(sender_mac=OTHER, to=EAPOL)
        yield Probe(f"{guest}: ARP as another MAC, to EAPOL", guest, forged, "dropped")
    # past the host, to another port of the bridge
    to, back = STATIONS["port"].mac, STATIONS["vm"].mac
    yield Probe("vm: to another port", "vm", ip(STATIONS["port"].ip, to=to), "dropped")
    yield Probe("vm: to all ports", "vm", ip(ALL, to=ALL_MACS), "bridge")
    yield Probe(
        "container: to another port",
        "container",
        ip("10.201.128.66", to=STATIONS["foreign"].mac),
        "dropped",
    )
    yield Probe("another port: to vm", "port", ip(VM["ip"], to=back), "dropped")
    yield Probe(
        "another port: to container", "foreign", ip(CONTAINER["ip"], to=CONTAINER["mac"]), "dropped"
    )
    yield Probe("another port: to all ports", "port", ip(ALL, to=ALL_MACS), "bridge")
    # what the host sends reaches the guest that has this MAC
    yield Probe("the host: to vm", "vagrantp0", ip(VM["ip"]), "vm")
    yield Probe("the host: to all", "vagrantp0", ip(ALL, to=ALL_MACS), "open+port+tap+vm")
    yield Probe("the host: to a MAC of nobody", "vagrantp0", ip(VM["ip"], to=OTHER), "port")


def of_vms() -> Iterator[Probe]:
    """DHCP, exceptions, LAN_ACCESS=yes."""
    own = VM["ip"]
    yield Probe("vm: DHCP to all", "vm", dhcp(), "host:67")
    yield Probe("vm: DHCP to all from its address", "vm", dhcp(own), "host:67")
    yield Probe("vm: DHCP to the gateway", "vm", dhcp(own, GATEWAY), "host:67")
    yield Probe(
        "vm: DHCP to another address of the host", "vm", dhcp(own, "192.168.77.1"), "prohibited"
    )
    yield Probe("vm: DHCP for another's MAC", "vm", dhcp(own, GATEWAY, client=OTHER), "dropped")
    yield Probe("vm: DHCP for another's MAC from nobody", "vm", dhcp(client=OTHER), "dropped")
    yield Probe("vm: DHCP from another MAC", "vm", dhcp(mac=OTHER), "dropped")
    yield Probe("vm: DHCP from another address", "vm", dhcp("10.201.0.99", GATEWAY), "dropped")
    yield Probe("container: DHCP", "container", dhcp(), "dropped")
    yield Probe(
        "container: DHCP to the gateway", "container", dhcp(CONTAINER["ip"], GATEWAY1), "dropped"
    )
    for name, frame, end in (
        ("a machine", ip("192.168.77.8", 5, "tcp"), "lan"),
        ("a machine by UDP", ip("192.168.77.8", 5), "lan"),
        ("a port", ip("192.168.77.9", 80, "tcp"), "lan"),
        ("the port by UDP", ip("192.168.77.9", 80), "prohibited"),
        ("a port of the host", ip("192.168.77.1", 7000, "tcp"), "host:7000"),
        ("the host's port by UDP", ip("192.168.77.1", 7000), "prohibited"),
    ):
        yield Probe(f"vm: LAN_ALLOW opens {name}", "vm", frame, end)
    for name, frame, end in (
        ("the LAN", ip("192.168.77.9", 22, "tcp"), "lan"),
        ("the club", ip("192.0.2.9"), "club"),
        ("Docker", ip("172.17.0.2", 80), "docker"),
        ("the internet", ip(INTERNET), "internet"),
        ("the host", ip("192.168.77.1", 22, "tcp"), "reset"),
        ("a port of Docker's", ip("192.168.77.1", 8080, "tcp"), "reset"),
        ("a VM", ip(VM["ip"], 22, "tcp"), "reset"),
        ("a VM past the host", ip(VM["ip"], 22, "tcp", to=VM["mac"]), "dropped"),
        ("a container", ip(CONTAINER["ip"], 22, "tcp"), "reset"),
    ):
        yield Probe(f"open: {name}", "open", frame, end)


def of_others() -> Iterator[Probe]:
    """Whoever was not admitted, and whoever is no guest."""
    yield Probe("tap: to the internet", "tap", ip(INTERNET), "dropped")
    yield Probe("tap: ARP", "tap", arp(), "dropped")
    yield Probe("tap: DHCP", "tap", dhcp(), "dropped")
    yield Probe("the host: to tap", "vagrantp0", ip("10.201.0.66", to=STATIONS["tap"].mac), "port")
    yield Probe("lantap: to the internet", "lantap", ip(INTERNET), "dropped")
    yield Probe("lantap: ARP", "lantap", arp(), "dropped")
    yield Probe(
        "peer: to lantap", "peer", ip("192.168.78.66", to=STATIONS["lantap"].mac), "dropped"
    )
    yield Probe("foreign: to the internet", "foreign", ip(INTERNET), "bridge")
    yield Probe("foreign: to the LAN", "foreign", ip("192.168.77.9"), "bridge")
    yield Probe("foreign: DNS", "foreign", ip(GATEWAY1, 53), "bridge")
    yield Probe("foreign: to the LAN by IPv6", "foreign", ip6("fd77::9", 53, "fd78::5"), "bridge")
    yield Probe("foreign: DNS by IPv6", "foreign", ip6("fd78::1", 53, "fd78::5"), "bridge")
    yield Probe("port: DHCP", "port", dhcp("10.201.0.67", GATEWAY), "bridge")
    yield Probe("the LAN to Docker", "lan", ip("172.17.0.2", 80), "docker")
    yield Probe("the LAN to a port of Docker's", "lan", ip("192.168.77.1", 8080, "tcp"), "docker")
    for guest in ("vm", "container"):
        own = STATIONS[guest].ip
        yield Probe(f"the LAN to {guest}", "lan", ip(own, 22), "prohibited")
        yield Probe(f"the LAN connects to {guest}", "lan", ip(own, 22, "tcp"), "reset")
        port = INTERNET_PORTS[guest]
        yield Probe(f"Docker to {guest}", "docker", ip(own, port, sport=90), "prohibited")
        answer = ip("198.18.77.1", port, sport=90)
        yield Probe(f"the internet answers {guest}", "internet", answer, guest)


def of_cards() -> Iterator[Probe]:
    """Cards on a bridge of the host."""
    card, mac = STATIONS["card"], STATIONS["leased"].mac
    yield Probe("card: ARP", "card", arp(), "lantap+leased+peer")
    yield Probe("card: ARP for its own address", "card", arp(sender=NOBODY), "lantap+leased+peer")
    yield Probe("card: ARP as another address", "card", arp(sender=PEER), "dropped")
    yield Probe("card: ARP as another MAC", "card", arp(sender_mac=OTHER), "dropped")
    yield Probe("card: ARP from another MAC", "card", arp(mac=OTHER), "dropped")
    yield Probe("leased: ARP", "leased", arp(), "card+lantap+peer")
    yield Probe(
        "leased: ARP as an address that was another's",
        "leased",
        arp(sender="192.168.78.61"),
        "dropped",
    )
    yield Probe("card: as another address", "card", ip(INTERNET, source=PEER), "dropped")
    yield Probe("card: as another MAC", "card", ip(INTERNET, mac=OTHER), "dropped")
    yield Probe(
        "leased: as another address", "leased", ip(INTERNET, source="192.168.78.61"), "dropped"
    )
    for name, tag in (("802.1Q", frames.VLAN), ("802.1ad", frames.QINQ)):
        yield Probe(
            f"card: in a tag of {name}", "card", ip(INTERNET, tag=tag + frames.IP), "dropped"
        )
    yield Probe("card: IPv6", "card", ip6("fd77::9", 53, "fd78::5"), "dropped")
    yield Probe("card: another ethertype", "card", junk("88b5"), "dropped")
    yield Probe("card: to the internet", "card", ip(INTERNET), "peer")
    yield Probe("leased: to the internet", "leased", ip(INTERNET), "peer")
    # DHCP
    yield Probe("card: DHCP from nobody", "card", dhcp(), "host:67+lantap+leased+peer")
    yield Probe("card: DHCP from its address", "card", dhcp(card.ip, PEER), "peer")
    yield Probe("leased: DHCP from its address", "leased", dhcp(LEASE, PEER), "peer")
    yield Probe("card: DHCP from another address", "card", dhcp("192.168.78.99", PEER), "dropped")
    yield Probe("card: DHCP for another's MAC", "card", dhcp(client=OTHER), "dropped")
    yield Probe(
        "leased: DHCP for another's MAC", "leased", dhcp(LEASE, PEER, client=OTHER), "dropped"
    )
    yield Probe("card: as a DHCP server", "card", ip(INTERNET, 68, sport=67), "dropped")
    yield Probe("leased: as a DHCP server", "leased", ip(PEER, 68, sport=67), "dropped")
    yield Probe("card: to a DHCP server of the internet", "card", ip(INTERNET, 67), "dropped")
    # the LAN
    for kind in ("tcp", "udp", "ping", "pong"):
        for place in (
            "192.168.78.2",
            "192.168.78.7",
            "192.168.78.1",
            "192.168.77.9",
            "192.0.2.9",
            "198.18.77.2",
        ):
            yield Probe(f"card: {place} by {kind}", "card", ip(place, 22, kind), "dropped")
        if kind != "pong":
            yield Probe(f"card: {PEER} by {kind}", "card", ip(PEER, 22, kind), "dropped")
        yield Probe(
            f"card: the host by {kind}", "card", ip("192.168.78.5", 22, kind, to=BR0_MAC), "dropped"
        )
    for place in (
        "0.0.0.9",
        "10.9.9.9",
        "100.64.9.9",
        "127.0.0.1",
        "169.254.9.9",
        "172.16.9.9",
        "192.0.0.9",
    ):
        yield Probe(f"card: {place}", "card", ip(place), "dropped")
    for place in ("192.168.9.9", "224.0.0.9", "240.0.0.9"):
        yield Probe(f"card: {place}", "card", ip(place), "dropped")
    yield Probe("card: its resolver", "card", ip("192.168.78.1", 53), "peer")
    yield Probe("card: LAN_ALLOW opens a machine", "card", ip("192.168.78.8", 5), "peer")
    yield Probe("card: LAN_ALLOW opens a port", "card", ip(PEER, 80, "tcp"), "peer")
    host = ip("192.168.78.5", 7000, "tcp", to=BR0_MAC)
    yield Probe("card: LAN_ALLOW opens a port of the host", "card", host, "host:7000")
    # who has called is answered, from the very port
    yield Probe("card: answers UDP", "card", ip(PEER, 5000, sport=5001), "peer")
    yield Probe("card: answers TCP", "card", ip(PEER, 5002, "tcp", sport=5003), "peer")
    yield Probe("card: answers a ping", "card", ip(PEER, kind="pong"), "peer")
    yield Probe("card: answers from another port", "card", ip(PEER, 5000, sport=5009), "dropped")
    yield Probe(
        "card: answers another machine", "card", ip("192.168.78.7", 5000, sport=5001), "dropped"
    )
    yield Probe(
        "card: answers by TCP what was UDP", "card", ip(PEER, 5000, "tcp", sport=5001), "dropped"
    )
    # LAN_ACCESS=yes
    yield Probe("leased: asks the LAN", "leased", ip(PEER, 6001, sport=6000), "peer")
    yield Probe("leased: asks the LAN by TCP", "leased", ip(PEER, 6003, "tcp", sport=6002), "peer")
    yield Probe("leased: pings the LAN", "leased", ip(PEER, kind="ping"), "peer")
    # to a card
    yield Probe("peer: IPv6 to card", "peer", ip6("fd78::5", 53, "fd77::9"), "dropped")
    yield Probe("peer: to a MAC of nobody", "peer", ip(card.ip, to=OTHER), "dropped")
    yield Probe("peer: to all", "peer", ip(ALL, to=ALL_MACS), "card+host:9+lantap+leased")


def after() -> Iterator[Probe]:
    """LAN_ACCESS=no once more."""
    to = STATIONS["leased"].mac
    yield Probe(
        "leased: its answer comes after LAN_ACCESS is no",
        "peer",
        ip(LEASE, 6000, sport=6001, to=to),
        "leased",
    )


def at_last() -> Iterator[Probe]:
    yield Probe(
        "leased: an answer to what it asked opens nothing",
        "leased",
        ip(PEER, 6001, sport=6000),
        "dropped",
    )


ROUNDS = (
    Round([*before()]),
    Round([*of_guests(), *of_vms(), *of_others(), *of_cards()]),
    Round([*after()], first="flush set bridge vagrantp lan_open"),
    Round([*at_last()]),
)


@dataclass(frozen=True)
class Scene:
    """Probes, and what is changed in the rules for them."""

    rounds: Sequence[Round]
    text: Callable[[str], str] = str


SCENES = (Scene(ROUNDS),)
