"""What is sent through the rules, and how it ends, by docs/isolation.md and not by the rules."""

from __future__ import annotations

from collections.abc import Iterator

from vagrantp_guard.dhcp import ACK, RELEASE, REQUEST
from vagrantp_guard.lan_ruleset import ASKING, LIMIT, MEMORY, TELLING
from vagrantp_guard.ruleset import COUNT, RATE

from tests.attacks import frames
from tests.attacks.frames import ALL, ALL_MACS, NOBODY, SYN
from tests.attacks.lab import CONTAINER, VM
from tests.attacks.lookout import Frame, Probe, Round, Scene, Station
from tests.attacks.street import (
    BR0_MAC,
    BY_DEVICE,
    BY_ROUTER,
    BY_RULE,
    LEASE,
    NEW,
    SERVER,
    STATIONS,
)

OTHER = "52:54:00:00:00:99"
LLDP, EAPOL = "01:80:c2:00:00:0e", "01:80:c2:00:00:03"  # a bridge hands these to its host
INTERNET = "198.51.100.9"
GATEWAY, GATEWAY1 = "10.201.0.1", "10.201.128.1"
RESOLVER_ADDRESSES = ("169.254.76.5", "169.254.77.5")  # of vm, of container
PEER, STRANGER = "192.168.78.9", "192.168.78.7"
CALLER, IP_CALLER = "192.168.78.20", "192.168.78.22"
RANGES = ("10.9.9.9", "100.64.9.9", "169.254.9.9", "172.16.9.9", "192.0.0.9", "192.168.9.9")
DROPPED = "dropped"
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
        if not own.mac:
            return packet
        return frames.raw(own.to) + frames.raw(own.mac) + frames.IPV6 + packet

    return frame


def arp(
    asked: str = "",
    *,
    mac: str = "",
    sender_mac: str = "",
    sender: str = "",
    to: str = ALL_MACS,
    kind: int = frames.REQUEST,
) -> Frame:
    def frame(own: Station, number: int) -> bytes:
        body = frames.arp(sender_mac or own.mac, sender or own.ip, number, asked, kind)
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
    kind: int = 0,
    left: str = NOBODY,
    tag: bytes = frames.IP,
) -> Frame:
    """Make messages of DHCP: of a client; with `given`, a server's answer to `client`.

    `kind`: a request or an acknowledgement if not given, -1 for none; `left`: what is released.
    """

    def frame(own: Station, number: int) -> bytes:
        ports = (67, 68) if given else (68, 67)
        which = max(0, kind or (ACK if given else REQUEST))
        text = frames.dhcp(client or own.mac, number, which, left, given or NOBODY)
        packet = frames.ipv4(source, target, frames.UDP, frames.udp(*ports, text), number)
        there = to or (ALL_MACS if target == ALL else own.to)
        return frames.raw(there) + frames.raw(mac or own.mac) + tag + packet

    return frame


def junk(kind: str) -> Frame:
    return lambda own, number: (
        frames.raw(own.to + own.mac) + bytes.fromhex(kind) + frames.word(number).ljust(46)
    )


def before() -> Iterator[Probe]:
    """What the later ones answer, or what may not help them."""
    for place, there in (("192.0.2.9", "club"), (BY_DEVICE, "club"), ("198.18.77.2", "internet")):
        yield Probe("docker", f"to {place}, which the host is on", ip(place), there)
    yield Probe("container", "asks there first", ip("192.0.2.8"), "prohibited")
    for guest in ("vm", "container"):
        own = STATIONS[guest].ip
        call, end = ip(own, 7101, sport=7100), {"vm": "port+vm"}.get(guest, guest)
        yield Probe("host", f"calls {guest}", call, end)
        call = ip(INTERNET, 90, sport=INTERNET_PORTS[guest])
        yield Probe(guest, "calls the internet", call, "internet")
        connects = ip(INTERNET, 80, "tcp", sport=INTERNET_PORTS[guest] + 100)
        yield Probe(guest, "connects", connects, "internet mss 1360")
    mac = STATIONS["leased"].mac
    answer = dhcp(SERVER, LEASE, client=mac, given=LEASE, to=mac)
    yield Probe("peer", "a DHCP server gives an address", answer, "heard+leased")
    foreign = dhcp(SERVER, "192.168.78.61", client=OTHER, given="192.168.78.61", to=mac)
    yield Probe("peer", "a DHCP server gives another's MAC an address", foreign, DROPPED)
    tagged = dhcp(SERVER, client=mac, given=LEASE, tag=frames.VLAN + frames.IP)
    yield Probe("peer", "a DHCP server of another VLAN gives an address", tagged, "bridge")
    card = STATIONS["card"].ip
    yield Probe("peer", "calls by UDP", ip(card, 5001, sport=5000), "card")
    yield Probe("peer", "calls by TCP", ip(card, 5003, "tcp", sport=5002), "card")
    yield Probe("peer", "pings", ip(card, kind="ping"), "card")
    for who in (CALLER, "10.9.9.9"):
        asks = arp(card, sender=who)
        yield Probe("peer", f"asks as {who} for card", asks, "card+lantap+leased")
    asks = arp(LEASE, sender=CALLER)
    yield Probe("peer", f"asks as {CALLER} for leased", asks, "card+lantap+leased")
    for who in (IP_CALLER, "192.168.77.20"):
        yield Probe("peer", f"calls card as {who}", ip(card, 5005, source=who), "card")


def of_guests() -> Iterator[Probe]:
    """Both kinds of guests on our own network."""
    for guest, gateway in (("vm", GATEWAY), ("container", GATEWAY1)):
        far = {"vm": "container", "container": "vm"}[guest]
        yield Probe(guest, "ARP", arp(), "bridge")
        yield Probe(guest, "ARP as another address", arp(sender=gateway), DROPPED)
        yield Probe(guest, "ARP as another MAC", arp(sender_mac=OTHER), DROPPED)
        yield Probe(guest, "ARP from another MAC", arp(mac=OTHER), DROPPED)
        yield Probe(guest, "as another address", ip(INTERNET, source="10.201.0.99"), DROPPED)
        yield Probe(guest, "as another MAC", ip(INTERNET, mac=OTHER), DROPPED)
        for name, tag in (("802.1Q", frames.VLAN), ("802.1ad", frames.QINQ)):
            tagged = ip(INTERNET, tag=tag + frames.IP)
            yield Probe(guest, f"in a tag of {name}", tagged, DROPPED)
        yield Probe(guest, "IPv6", ip6("fd77::9", 53, "fd78::5"), DROPPED)
        yield Probe(guest, "another ethertype", junk("88b5"), DROPPED)
        # the resolver, and the internet
        for kind, refused in (("udp", "prohibited"), ("tcp", "reset")):
            yield Probe(guest, f"DNS by {kind}", ip(gateway, 53, kind), "host:53+resolver")
            for address in RESOLVER_ADDRESSES:
                past = ip(address, 53, kind)
                yield Probe(guest, f"{address} by {kind}", past, refused)
        yield Probe(guest, "to the internet", ip(INTERNET), "internet")
        yield Probe(guest, "pings the internet", ip(INTERNET, kind="ping"), "internet")
        routed = ip(BY_ROUTER)
        yield Probe(guest, "to a network behind a router", routed, "club")
        answer = ip(gateway, 7100, sport=7101)
        if guest == "container":
            answer = ip("10.201.0.1", 7100, sport=7101)
        yield Probe(guest, "answers the host", answer, "host:7100")
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
                name = f"the host at {address} by {kind}"
                yield Probe(guest, name, ip(address, 22, kind), end)
        yield Probe(guest, "another resolver of the host", ip("192.168.77.1", 53), "prohibited")
        yield Probe(guest, "a port of Docker's", ip(gateway, 8080, "tcp"), "reset")
        redirected = ip("198.51.100.77", 80, "tcp")
        yield Probe(guest, "what DNAT sends to the host", redirected, "reset")
        yield Probe(guest, "the host's DHCP server", ip("192.168.77.1", 67), DROPPED)
        # the LAN, and all that is no internet
        for kind, end in (("tcp", "reset"), ("udp", "prohibited"), ("ping", "prohibited")):
            for place in (
                "192.168.77.9",
                "172.17.0.2",
                "192.0.2.9",
                "198.18.77.2",
                BY_DEVICE,
                BY_RULE,
                NEW,
                STATIONS[far].ip,
            ):
                yield Probe(guest, f"{place} by {kind}", ip(place, 53, kind), end)
        for address in (*RANGES, "0.0.0.9", "127.0.0.1", "240.0.0.9"):
            yield Probe(guest, f"{address}", ip(address), "prohibited")
        yield Probe(guest, "224.0.0.9", ip("224.0.0.9"), "bridge")  # which no host forwards
        for sport in (22, 53, 67, 68, 80):
            answer = ip("192.168.77.9", 7000, "tcp", sport=sport)
            yield Probe(guest, f"the LAN from port {sport}", answer, "reset")
    # a bridge hands these to its host as if they had come to the port itself
    for name, to in (("LLDP", LLDP), ("EAPOL", EAPOL)):
        for guest in ("vm", "card"):
            yield Probe(guest, f"to the address of {name}", ip(INTERNET, to=to), DROPPED)
    for guest in ("vm", "container", "card"):
        forged = arp(sender_mac=OTHER, to=EAPOL)
        yield Probe(guest, "ARP as another MAC, to EAPOL", forged, DROPPED)
    # past the host, to another port of the bridge
    to, back = STATIONS["port"].mac, STATIONS["vm"].mac
    yield Probe("vm", "to another port", ip(STATIONS["port"].ip, to=to), DROPPED)
    yield Probe("vm", "to all ports", ip(ALL, to=ALL_MACS), "bridge")
    yield Probe(
        "container",
        "to another port",
        ip("10.201.128.66", to=STATIONS["foreign"].mac),
        DROPPED,
    )
    yield Probe("port", "to vm", ip(VM["ip"], to=back), DROPPED)
    yield Probe("foreign", "to container", ip(CONTAINER["ip"], to=CONTAINER["mac"]), DROPPED)
    yield Probe("port", "to all ports", ip(ALL, to=ALL_MACS), "bridge")
    # what the host sends reaches the guest that has this MAC
    yield Probe("vagrantp0", "to vm", ip(VM["ip"]), "vm")
    yield Probe("vagrantp0", "to all", ip(ALL, to=ALL_MACS), "open+port+tap+vm")
    nobody = ip(VM["ip"], to=OTHER)
    yield Probe("vagrantp0", "to a MAC of nobody", nobody, "port")
    yield Probe("vagrantp1", "to a MAC of nobody, vagrantp1", nobody, "foreign")
    # nobody takes another's MAC from it
    for guest, other, bridge in (
        ("vm", "open", "vagrantp0"),
        ("container", "foreign", "vagrantp1"),
    ):
        theirs = STATIONS[other]
        yield Probe(other, "is there", arp(), "bridge")
        yield Probe(guest, f"from the MAC of {other}", arp(mac=theirs.mac), DROPPED)
        yield Probe(bridge, f"to {other}", ip(theirs.ip, to=theirs.mac), other)


def of_vms() -> Iterator[Probe]:
    """DHCP, exceptions, LAN_ACCESS=yes."""
    own = VM["ip"]
    yield Probe("vm", "DHCP to all", dhcp(), "host:67")
    yield Probe("vm", "DHCP to all from its address", dhcp(own), "host:67")
    yield Probe("vm", "DHCP to the gateway", dhcp(own, GATEWAY), "host:67")
    yield Probe(
        "vm", "DHCP to another address of the host", dhcp(own, "192.168.77.1"), "prohibited"
    )
    yield Probe("vm", "DHCP for another's MAC", dhcp(own, GATEWAY, client=OTHER), DROPPED)
    yield Probe("vm", "DHCP for another's MAC from nobody", dhcp(client=OTHER), DROPPED)
    yield Probe("vm", "DHCP from another MAC", dhcp(mac=OTHER), DROPPED)
    yield Probe("vm", "DHCP from another address", dhcp("10.201.0.99", GATEWAY), DROPPED)
    yield Probe("container", "DHCP", dhcp(), DROPPED)
    yield Probe("container", "DHCP to the gateway", dhcp(CONTAINER["ip"], GATEWAY1), DROPPED)
    for name, frame, end in (
        ("a machine", ip("192.168.77.8", 5, "tcp"), "lan"),
        ("a machine by UDP", ip("192.168.77.8", 5), "lan"),
        ("a port", ip("192.168.77.9", 80, "tcp"), "lan"),
        ("the port by UDP", ip("192.168.77.9", 80), "prohibited"),
        ("a port of the host", ip("192.168.77.1", 7000, "tcp"), "host:7000"),
        ("the host's port by UDP", ip("192.168.77.1", 7000), "prohibited"),
    ):
        yield Probe("vm", f"LAN_ALLOW opens {name}", frame, end)
    for name, frame, end in (
        ("the LAN", ip("192.168.77.9", 22, "tcp"), "lan"),
        ("the club", ip("192.0.2.9"), "club"),
        ("Docker", ip("172.17.0.2", 80), "docker"),
        ("the internet", ip(INTERNET), "internet"),
        ("the host", ip("192.168.77.1", 22, "tcp"), "reset"),
        ("a port of Docker's", ip("192.168.77.1", 8080, "tcp"), "reset"),
        ("a VM", ip(VM["ip"], 22, "tcp"), "reset"),
        ("a VM past the host", ip(VM["ip"], 22, "tcp", to=VM["mac"]), DROPPED),
        ("a container", ip(CONTAINER["ip"], 22, "tcp"), "reset"),
    ):
        yield Probe("open", f"{name}", frame, end)


def of_others() -> Iterator[Probe]:
    """Whoever was not admitted, and whoever is no guest."""
    yield Probe("tap", "to the internet", ip(INTERNET), DROPPED)
    yield Probe("tap", "ARP", arp(), DROPPED)
    yield Probe("tap", "ARP to the address of EAPOL", arp(to=EAPOL), DROPPED)
    yield Probe("tap", "DHCP", dhcp(), DROPPED)
    yield Probe("vagrantp0", "to tap", ip("10.201.0.66", to=STATIONS["tap"].mac), "port")
    yield Probe("lantap", "to the internet", ip(INTERNET), DROPPED)
    yield Probe("lantap", "ARP", arp(), DROPPED)
    yield Probe("peer", "to lantap", ip("192.168.78.66", to=STATIONS["lantap"].mac), DROPPED)
    yield Probe("foreign", "to the internet", ip(INTERNET), "bridge")
    yield Probe("foreign", "to the LAN", ip("192.168.77.9"), "bridge")
    yield Probe("foreign", "DNS", ip(GATEWAY1, 53), "bridge")
    yield Probe("foreign", "to the LAN by IPv6", ip6("fd77::9", 53, "fd78::5"), "bridge")
    yield Probe("foreign", "DNS by IPv6", ip6("fd78::1", 53, "fd78::5"), "bridge")
    yield Probe("port", "DHCP", dhcp("10.201.0.67", GATEWAY), "bridge")
    for address in RESOLVER_ADDRESSES:
        yield Probe("lan", f"to a resolver at {address}", ip(address, 53), DROPPED)
    yield Probe("lan", "to Docker", ip("172.17.0.2", 80), "docker")
    yield Probe("lan", "to a port of Docker's", ip("192.168.77.1", 8080, "tcp"), "docker")
    for guest in ("vm", "container"):
        own = STATIONS[guest].ip
        yield Probe("lan", f"to {guest}", ip(own, 22), "prohibited")
        yield Probe("lan", f"connects to {guest}", ip(own, 22, "tcp"), "reset")
        port = INTERNET_PORTS[guest]
        yield Probe("docker", f"to {guest}", ip(own, port, sport=90), "prohibited")
        answer = ip("198.18.77.1", port, sport=90)
        yield Probe("internet", f"answers {guest}", answer, guest)
        accepts = ip("198.18.77.1", port + 100, "tcp", sport=80, flags=frames.SYN | frames.ACK)
        end = f"{guest} mss 1360"
        yield Probe("internet", f"accepts {guest}'s connection", accepts, end)


def of_cards() -> Iterator[Probe]:
    """Cards on a bridge of the host."""
    card = STATIONS["card"]
    for guest, own, others in (
        ("card", card.ip, "lantap+leased+peer"),
        ("leased", LEASE, "card+lantap+peer"),
    ):
        yield Probe(guest, "ARP for its router", arp(SERVER), others)
        yield Probe(guest, "ARP for its own address", arp(own, sender=NOBODY), others)
        yield Probe(guest, "ARP that announces its own address", arp(own), others)
        yield Probe(guest, "ARP for another's, as nobody", arp(STRANGER, sender=NOBODY), DROPPED)
        yield Probe(guest, "ARP as another address", arp(SERVER, sender=STRANGER), DROPPED)
        yield Probe(guest, "ARP as another MAC", arp(SERVER, sender_mac=OTHER), DROPPED)
        yield Probe(guest, "ARP from another MAC", arp(SERVER, mac=OTHER), DROPPED)
        answer = arp(STRANGER, kind=frames.REPLY)
        yield Probe(guest, "ARP that answers", answer, others)
    for what, asked, end in (
        ("what LAN_ALLOW opens", "192.168.78.8", "lantap+leased+peer"),
        ("the host, of which it opens a port", "192.168.78.5", "lantap+leased+peer"),
        ("who has asked for it", CALLER, "lantap+leased+peer"),
        ("who has called it", IP_CALLER, "lantap+leased+peer"),
        ("who has asked for it from elsewhere", "10.9.9.9", DROPPED),
        ("who has called it from elsewhere", "192.168.77.20", DROPPED),
        ("another machine", STRANGER, DROPPED),
    ):
        yield Probe("card", f"ARP for {what}", arp(asked), end)
    yield Probe("leased", "ARP for another machine", arp(STRANGER), "card+lantap+peer")
    yield Probe("card", "as another address", ip(INTERNET, source=PEER), DROPPED)
    yield Probe("card", "as another MAC", ip(INTERNET, mac=OTHER), DROPPED)
    yield Probe("leased", "as another address", ip(INTERNET, source="192.168.78.61"), DROPPED)
    for name, tag in (("802.1Q", frames.VLAN), ("802.1ad", frames.QINQ)):
        yield Probe("card", f"in a tag of {name}", ip(INTERNET, tag=tag + frames.IP), DROPPED)
    yield Probe("card", "IPv6", ip6("fd77::9", 53, "fd78::5"), DROPPED)
    yield Probe("card", "another ethertype", junk("88b5"), DROPPED)
    yield Probe("card", "to the internet", ip(INTERNET), "peer")
    yield Probe("leased", "to the internet", ip(INTERNET), "peer")
    # DHCP
    yield Probe("card", "DHCP from nobody", dhcp(), DROPPED)
    yield Probe("card", "DHCP from its address", dhcp(card.ip, SERVER), DROPPED)
    yield Probe("leased", "DHCP from nobody", dhcp(), "card+heard+host:67+lantap+peer")
    yield Probe("leased", "DHCP to its server", dhcp(LEASE, SERVER), "heard+peer")
    yield Probe("leased", "DHCP to another server", dhcp(LEASE, PEER), DROPPED)
    yield Probe("leased", "DHCP to the internet", dhcp(LEASE, INTERNET), DROPPED)
    yield Probe("leased", "DHCP from another address", dhcp(STRANGER, SERVER), DROPPED)
    yield Probe("leased", "DHCP for another's MAC", dhcp(LEASE, SERVER, client=OTHER), DROPPED)
    for what, said in (("BOOTP", -1), ("an offer", 2), ("an acknowledgement", ACK)):
        yield Probe("leased", f"DHCP, as {what}", dhcp(kind=said), DROPPED)
    answer = dhcp(SERVER, client=card.mac, given=card.ip, to=card.mac)
    yield Probe("peer", "a DHCP server gives card an address", answer, DROPPED)
    yield Probe("card", "as a DHCP server", ip(INTERNET, 68, sport=67), DROPPED)
    yield Probe("leased", "as a DHCP server", ip(PEER, 68, sport=67), DROPPED)
    yield Probe("card", "to a DHCP server of the internet", ip(INTERNET, 67), DROPPED)
    # the LAN
    for kind in ("tcp", "udp", "ping", "pong"):
        for place in (
            "192.168.78.2",
            "192.168.78.7",
            "192.168.78.1",
            "192.168.77.9",
            "192.0.2.9",
            "198.18.77.2",
            BY_DEVICE,
            BY_RULE,
        ):
            yield Probe("card", f"{place} by {kind}", ip(place, 22, kind), DROPPED)
        if kind != "pong":
            yield Probe("card", f"{PEER} by {kind}", ip(PEER, 22, kind), DROPPED)
        yield Probe(
            "card", f"the host by {kind}", ip("192.168.78.5", 22, kind, to=BR0_MAC), DROPPED
        )
    for place in (*RANGES, "0.0.0.9", "127.0.0.1", "224.0.0.9", "240.0.0.9"):
        yield Probe("card", f"{place}", ip(place), DROPPED)
    yield Probe("card", "its resolver", ip("192.168.78.1", 53), "peer")
    yield Probe("card", "LAN_ALLOW opens a machine", ip("192.168.78.8", 5), "peer")
    yield Probe("card", "LAN_ALLOW opens a port", ip(PEER, 80, "tcp"), "peer")
    host = ip("192.168.78.5", 7000, "tcp", to=BR0_MAC)
    yield Probe("card", "LAN_ALLOW opens a port of the host", host, "host:7000")
    # who has called is answered, from the very port
    yield Probe("card", "answers UDP", ip(PEER, 5000, sport=5001), "peer")
    yield Probe("card", "answers TCP", ip(PEER, 5002, "tcp", sport=5003), "peer")
    yield Probe("card", "answers a ping", ip(PEER, kind="pong"), "peer")
    yield Probe("card", "answers from another port", ip(PEER, 5000, sport=5009), DROPPED)
    yield Probe("card", "answers another machine", ip("192.168.78.7", 5000, sport=5001), DROPPED)
    yield Probe("card", "answers by TCP what was UDP", ip(PEER, 5000, "tcp", sport=5001), DROPPED)
    # LAN_ACCESS=yes
    yield Probe("leased", "asks the LAN", ip(PEER, 6001, sport=6000), "peer")
    yield Probe("leased", "asks the LAN by TCP", ip(PEER, 6003, "tcp", sport=6002), "peer")
    yield Probe("leased", "pings the LAN", ip(PEER, kind="ping"), "peer")
    # to a card
    yield Probe("peer", "IPv6 to card", ip6("fd78::5", 53, "fd77::9"), DROPPED)
    yield Probe("peer", "to a MAC of nobody", ip(card.ip, to=OTHER), DROPPED)
    yield Probe("peer", "to all", ip(ALL, to=ALL_MACS), "card+host:9+lantap+leased")


def after() -> Iterator[Probe]:
    """LAN_ACCESS=no once more."""
    to = STATIONS["leased"].mac
    yield Probe(
        "peer",
        "leased: its answer comes after LAN_ACCESS is no",
        ip(LEASE, 6000, sport=6001, to=to),
        "leased",
    )


def at_last() -> Iterator[Probe]:
    yield Probe(
        "leased",
        "an answer to what it asked opens nothing",
        ip(PEER, 6001, sport=6000),
        DROPPED,
    )
    others = "card+lantap+peer"
    yield Probe("leased", "ARP for its router, now", arp(SERVER), others)
    yield Probe("leased", "ARP for who has asked for it", arp(CALLER), others)
    yield Probe("leased", "ARP for another machine, now", arp(STRANGER), DROPPED)
    release = dhcp(LEASE, SERVER, kind=RELEASE, left=LEASE)
    yield Probe("leased", "gives its lease back", release, "heard+peer")
    yield Probe("leased", "to the internet, without a lease", ip(INTERNET), DROPPED)
    yield Probe("leased", "ARP, without a lease", arp(SERVER), DROPPED)


ROUNDS = (
    Round([*before()]),
    Round([*of_guests(), *of_vms(), *of_others(), *of_cards()]),
    Round([*after()], first="flush set bridge vagrantp lan_open"),
    Round([*at_last()]),
)


def small(text: str) -> str:
    """Return the rules with memories of a few packets."""
    return text.replace(MEMORY, MEMORY.replace("262144", str(SMALL)))


def unremembered() -> Iterator[Probe]:
    """What nobody has to answer, and so is not remembered."""
    card = STATIONS["card"].ip
    for number in range(SMALL + 1):
        yield Probe(
            "peer", f"the internet calls a card, {number}", ip(card, source=INTERNET), "card"
        )
        yield Probe(
            "peer",
            f"calls all, {number}",
            ip(ALL, to=ALL_MACS),
            "card+host:9+lantap+leased",
        )


def many() -> Iterator[Probe]:
    """More than is remembered. A caller arrives all the same."""
    card = STATIONS["card"].ip
    for n in range(SMALL + 1):
        yield Probe("peer", f"calls a card, {n}", ip(card, 5000, sport=5000 + n), "card")
    for n in range(SMALL + 1):
        end = "peer" if n < SMALL else DROPPED
        asks = ip(PEER, 7000 + n, sport=7000)
        yield Probe("leased", f"asks the LAN, {n}", asks, end)
    yield Probe("leased", "pings the LAN", ip(PEER, kind="ping"), "peer")


def many_answers() -> Iterator[Probe]:
    for n in range(SMALL + 1):
        end = "peer" if n < SMALL else DROPPED
        answer = ip(PEER, 5000 + n, sport=5000)
        yield Probe("card", f"answers, {n}", answer, end)


def few(text: str) -> str:
    """Return the rules with low limits of what one guest, or one card, may do."""
    for limit in (LIMIT, ASKING, TELLING):
        text = _rarely(text, limit)
    return text.replace(COUNT, f"ct count over {SMALL}")


def slow(text: str) -> str:
    """Return the rules with few new connections of a guest in an hour."""
    return _rarely(text, RATE)


def _rarely(text: str, limit: str) -> str:
    return text.replace(limit, f"limit rate over 1/hour burst {SMALL} packets")


def _end(n: int, end: str) -> str:
    return end if n < SMALL else DROPPED


def flows() -> Iterator[Probe]:
    """More connections than one guest may have, and another beside it."""
    for guest, gateway in (("vm", GATEWAY), ("container", GATEWAY1)):
        for n in range(SMALL + 2):
            end = "internet" if n < SMALL else "prohibited"
            yield Probe(guest, f"flow {n}", ip(INTERNET, n), end)
        yield Probe(guest, "asks a resolver, too", ip(gateway, 53), "prohibited")


def too_many() -> Iterator[Probe]:
    """More calls than one card may make or get, and another beside it."""
    yield from flows()
    card, leased = STATIONS["card"].ip, STATIONS["leased"]
    for n in range(SMALL + 1):
        given = dhcp(SERVER, LEASE, client=leased.mac, given=LEASE, to=leased.mac)
        yield Probe("peer", f"gives an address, {n}", given, _end(n, "heard+leased"))
        yield Probe("leased", f"asks for one, {n}", dhcp(LEASE, SERVER), _end(n, "heard+peer"))
    for n in range(2 * SMALL):  # the same over and over counts once
        yield Probe("peer", f"says, {n}", ip(card, 5000, sport=5000), "card")
    for n in range(1, SMALL + 1):
        yield Probe("peer", f"calls card, {n}", ip(card, 5000, sport=5000 + n), "card")
    call = ip(LEASE, 5000, sport=5000, to=leased.mac)
    yield Probe("peer", "calls leased", call, "leased")


def too_many_answers() -> Iterator[Probe]:
    """Who called in time is answered; who calls another card, too."""
    for n in range(SMALL + 1):
        end = "peer" if n < SMALL else DROPPED
        yield Probe("card", f"answers {n}", ip(PEER, 5000 + n, sport=5000), end)
    for n in range(SMALL + 1):
        end = "peer" if n < SMALL else DROPPED
        yield Probe("leased", f"calls, {n}", ip(PEER, 7000 + n, sport=7000), end)
    yield Probe("leased", "goes on", ip(PEER, 7000, sport=7000), "peer")
    yield Probe("card", "calls", ip(PEER, 80, "tcp"), "peer")


def hasty(text: str) -> str:
    """Return the rules with moments for the half minute that an unanswered call has."""
    return text.replace("timeout 30s", f"timeout {MOMENT}ms")


TALK = (("tcp", 0, frames.ACK), ("udp", 10, 0))  # and how far its ports are from others


def calls() -> Iterator[Probe]:
    """Calls of the LAN that a guest answers, does not answer, and ends."""
    yield Probe("peer", "pings", ip(STATIONS["card"].ip, kind="ping"), "card")
    for kind, far, _ in TALK:
        for n in range(4):
            call = ip(STATIONS["card"].ip, 5000, kind, sport=5000 + far + n)
            yield Probe("peer", f"calls by {kind}, {n}", call, "card")


def answers() -> Iterator[Probe]:
    """The first is answered, the second is not, the third is refused, the fourth accepted only."""
    for kind, far, flags in TALK:
        answer = ip(PEER, 5000 + far, kind, sport=5000, flags=flags)
        yield Probe("card", f"answers {kind}", answer, "peer")
        for n in range(3):
            asks = ip(PEER, 6000 + far + n, kind, sport=6000)
            yield Probe("leased", f"calls by {kind}, {n}", asks, "peer")
    for n, flags in ((2, frames.RST), (3, frames.SYN | frames.ACK)):
        refusal = ip(PEER, 5000 + n, "tcp", sport=5000, flags=flags)
        yield Probe("card", f"answers with flags {flags}", refusal, "peer")


def their_answers() -> Iterator[Probe]:
    """The same the other way round."""
    to = STATIONS["leased"].mac
    for kind, far, flags in TALK:
        answer = ip(LEASE, 6000, kind, sport=6000 + far, flags=flags, to=to)
        yield Probe("peer", f"answers {kind}", answer, "leased")
    refusal = ip(LEASE, 6000, "tcp", sport=6001, flags=frames.RST, to=to)
    yield Probe("peer", "refuses", refusal, "leased")


def later() -> Iterator[Probe]:
    """What was answered goes on; nothing else does. Then leased has LAN_ACCESS=no."""
    leased = STATIONS["leased"]
    for kind, far, flags in TALK:
        for n in range(4):
            answer = ip(PEER, 5000 + far + n, kind, sport=5000, flags=flags)
            yield Probe("card", f"{kind}, {n}, later", answer, DROPPED if n else "peer")
        for n in range(2):
            call = ip(LEASE, 6000, kind, sport=6000 + far + n, flags=flags, to=leased.mac)
            yield Probe("peer", f"says something by {kind}, {n}", call, "leased")


def at_the_end() -> Iterator[Probe]:
    """What leased had begun itself is open no more; what it had forgotten was a call of the LAN."""
    for kind, far, flags in TALK:
        for n in range(2):
            answer = ip(PEER, 6000 + far + n, kind, sport=6000, flags=flags)
            yield Probe("leased", f"answers by {kind}, {n}", answer, "peer" if n else DROPPED)


SMALL = 3
MOMENT = 1000  # milliseconds
TALKS = (Round([*calls()]), Round([*answers()]), Round([*their_answers()]))
SCENES = (
    Scene(ROUNDS),
    Scene((Round([*unremembered()]), Round([*many()]), Round([*many_answers()])), small),
    Scene((Round([*too_many()]), Round([*too_many_answers()])), few),
    Scene((Round([*flows()]),), slow),
    Scene(
        (
            *TALKS,
            Round([*later()], "flush set bridge vagrantp lan_open", 1.2 * MOMENT / 1000),
            Round([*at_the_end()]),
        ),
        hasty,
    ),
)
