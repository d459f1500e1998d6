"""What guests send, against the rules that `guard` writes: in network namespaces, see lab.py."""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from tests import network
from tests.attacks.lab import (
    BRIDGE_MAC,
    CONTAINER,
    LAN_BRIDGE,
    LAN_CARD,
    ON_LAN,
    VM,
    Lab,
    Namespace,
    received,
)
from tests.e2e.conftest import run

ALL = "255.255.255.255"
OTHER = "52:54:00:00:00:99"
TCP, SYN, ACK, MSS = 6, 0x02, 0x10, 2
DATAGRAM = socket.SOCK_DGRAM
Kind = tuple[int, int, int, int]  # of a DHCP message: op, htype, hlen, hops
HONEST = (1, 1, 6, 0)
BY_DHCP: dict[str, object] = {
    "lan": {**LAN_CARD, "address": None, "gateway": None, "resolvers": []}
}
ON_THE_BRIDGE = {"lan_access": True, "lan": {**LAN_CARD, "resolvers": []}}


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def dhcp(word: str, mac: str, kind: Kind = HONEST, relay: str = "0.0.0.0") -> bytes:
    """Return a request of DHCP from port 68 to 67, with a word in it."""
    text = struct.pack(">BBBBI16x", *kind, 1) + socket.inet_aton(relay)
    text += raw(mac).ljust(16, b"\0") + word.encode()
    text = text.ljust(236, b"\0") + bytes.fromhex("63825363 350103 ff")
    return struct.pack(">HHHH", 68, 67, 8 + len(text), 0) + text


def packet(
    source: str, target: str, body: bytes, offset: int = 0, more: bool = False, options: bytes = b""
) -> bytes:
    """Return an IPv4 packet of UDP; `offset` and `more` as of a fragment, in units of 8 bytes."""
    words = 5 + len(options) // 4
    part = offset | (0x2000 if more else 0)
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, 4 * words + len(body), 7, part, 9, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    total = sum(struct.unpack(f">{2 * words}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + body


def send(there: Namespace, mac: str, *packets: bytes, to: str = BRIDGE_MAC) -> None:
    with there.sniff() as link:
        for each in packets:
            link.send(raw(to) + raw(mac) + b"\x08\x00" + each)


def words(server: socket.socket) -> list[str]:
    """Return the words of the DHCP messages that came."""
    return [data[44:236].rstrip(b"\0").decode() for data in received(server)]


def test_dhcp_is_for_vms_and_at_their_bridge(lab: Lab) -> None:
    lab.load(lan_access=True)
    with lab.host.listen(67, DATAGRAM) as server:
        for guest, there in ((VM, lab.vm), (CONTAINER, lab.container)):
            own, mac = guest["ip"], guest["mac"]
            for target in ("10.201.0.1", "10.201.128.1", "192.168.77.1", "172.17.0.1", ALL):
                body = dhcp(f"{guest['name']} {target}", mac)
                send(there, mac, packet(own, target, body))
                broadcast = dhcp(f"{guest['name']} {target} from nobody", mac)
                send(there, mac, packet("0.0.0.0", target, broadcast), to="ff:ff:ff:ff:ff:ff")
        at_bridge, to_all = f"{VM['name']} 10.201.0.1", f"{VM['name']} {ALL}"
        assert words(server) == [at_bridge, to_all, f"{to_all} from nobody"]


def test_dhcp_speaks_for_the_own_mac_alone(lab: Lab) -> None:
    lab.load()
    own, mac, gateway = VM["ip"], VM["mac"], "10.201.0.1"
    options = b"\x01" * 4  # no-operation

    def ways(
        word: str, client: str, kind: Kind = HONEST, relay: str = "0.0.0.0"
    ) -> Iterator[bytes]:
        for source, target in ((own, gateway), ("0.0.0.0", ALL)):
            for extra in (b"", options):
                body = dhcp(f"{word} {target} {len(extra)}", client, kind, relay)
                yield packet(source, target, body, options=extra)

    def fragments(word: str, first: int, overlap: int = 0) -> Iterator[bytes]:
        """The message in two fragments, the first `first` units of 8 bytes long."""
        foreign, at = dhcp(word, OTHER), first - overlap
        honest = dhcp(word, mac) if overlap else foreign
        yield packet(own, gateway, honest[: 8 * first], more=True)
        yield packet(own, gateway, foreign[8 * at :], offset=at)

    tricks = [
        *ways("of another", OTHER),
        *ways("short address", mac, (1, 1, 5, 0)),
        *ways("long address", mac, (1, 1, 16, 0)),
        *ways("other hardware", mac, (1, 6, 6, 0)),
        *ways("relayed", mac, (1, 1, 6, 1)),
        *ways("of a relay", mac, HONEST, "10.201.0.77"),
        *ways("answer", mac, (2, 1, 6, 0)),
        *fragments("header alone", 1),
        *fragments("without a MAC", 4),
        *fragments("half a MAC", 5),
        *fragments("overlapping", 6, 2),
        *reversed([*fragments("overlapping backwards", 6, 2)]),
        packet(own, gateway, struct.pack(">HHHH", 68, 67, 12, 0) + b"\1\1\6\0"),
        packet(own, gateway, b"\x04\x04" + dhcp("other port", OTHER)[2:]),
    ]
    with lab.host.listen(67, DATAGRAM) as server:
        send(lab.vm, mac, *tricks)
        send(lab.vm, mac, *ways("honest", mac))
        assert words(server) == [f"honest {t} {n}" for t in (gateway, ALL) for n in (0, 4)]


def test_dhcp_on_a_bridge_speaks_for_the_own_mac_alone(lab: Lab) -> None:
    there, peer = on_a_bridge(lab)
    lab.load(**BY_DHCP)
    own, mac = f"{ON_LAN}.50", LAN_CARD["mac"]
    tricks = [
        packet(own, ALL, dhcp("of another", OTHER)),
        packet("0.0.0.0", ALL, dhcp("long address", mac, (1, 1, 16, 0))),
        packet(own, f"{ON_LAN}.9", b"\x04\x04" + dhcp("other port", OTHER)[2:]),
        packet(own, ALL, struct.pack(">HHHH", 68, 67, 12, 0) + b"\1\1\6\0"),
    ]
    with peer.listen(67, DATAGRAM) as server:
        send(there, mac, *tricks, to="ff:ff:ff:ff:ff:ff")
        send(there, mac, packet("0.0.0.0", ALL, dhcp("honest", mac)), to="ff:ff:ff:ff:ff:ff")
        assert words(server) == ["honest"]


DNAT = """
table ip others {
  chain published {
    type nat hook prerouting priority -100;
    fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80
    ip daddr 192.0.2.7 tcp dport 80 dnat to 172.17.0.2:80
  }
  chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
}
"""


@pytest.mark.parametrize("through_iptables", [0, 1])
def test_a_port_that_the_host_hands_on_is_a_port_of_the_host(
    lab: Lab, through_iptables: int
) -> None:
    lab.host.run(f"echo {through_iptables} > /proc/sys/net/bridge/bridge-nf-call-iptables || true")
    lab.host.run("nft -f -", DNAT)
    of_docker = {"network": "172.17.0.2/32", "port": 80, "protocol": "tcp"}
    of_host = {"network": None, "port": 8080, "protocol": "tcp"}
    host = [(address, 8080) for address in ("10.201.0.1", "192.168.77.1", "172.17.0.1")]
    host += [("192.168.77.1", 22)]
    handed_on, itself, beside = ("192.0.2.7", 80), ("172.17.0.2", 80), ("192.168.77.9", 80)
    listening = [lab.docker.listen(80), lab.lan.listen(80), lab.host.listen(22), lab.vm.listen(22)]

    def reached(there: Namespace) -> list[tuple[str, int]]:
        found = {way: there.call(*way) for way in (*host, handed_on, itself, beside)}
        ends = {end for way, end in found.items() if way in host}
        assert ends <= {"open", "ConnectionRefusedError"}  # at once, either way
        return [way for way, end in found.items() if end == "open"]

    for there in (lab.vm, lab.container):
        lab.load(lan_access=True)
        assert reached(there) == [handed_on, itself, beside]
        lab.load(lan_allow=[of_docker])
        assert reached(there) == [handed_on, itself]
        lab.load()
        assert reached(there) == []
        lab.load(lan_access=True, lan_allow=[of_host])
        assert reached(there) == [*host[:3], handed_on, itself, beside]
    # others are published to as before, and the host reaches its guests
    assert lab.lan.call("192.168.77.1", 8080) == "open"
    assert lab.host.call(VM["ip"], 22) == "open"
    with lab.vm.listen(9000, DATAGRAM) as service, lab.host.listen(9001, DATAGRAM) as client:
        client.sendto(b"ping", (VM["ip"], 9000))
        service.settimeout(1)
        service.sendto(*service.recvfrom(100))
        assert [*received(client)] == [b"ping"]
    for each in listening:
        each.close()


def on_a_bridge(lab: Lab) -> tuple[Namespace, Namespace]:
    """Have a bridge of the host with a guest's card on it; return the guest, and another there."""
    lab.host.run(f"ip link add {LAN_BRIDGE} type bridge; ip link set {LAN_BRIDGE} up")
    there, peer = lab.new(), lab.new()
    lab.host.link(LAN_CARD["port"], there, LAN_CARD["address"], LAN_CARD["mac"])
    lab.host.link("peer", peer, f"{ON_LAN}.9/24", BRIDGE_MAC)
    lab.host.run(
        f"ip link set {LAN_CARD['port']} master {LAN_BRIDGE}; ip link set peer master {LAN_BRIDGE}"
    )
    return there, peer


def test_only_ipv4_and_arp_leave_a_guest(lab: Lab) -> None:
    lab.load()
    there, peer = on_a_bridge(lab)

    def arrived(guest: Namespace, listener: socket.socket, *facts: str) -> list[bytes]:
        with guest.inside():
            run(sys.executable, str(network.HERE / "tricks.py"), "eth0", *facts)
        return [word for data in received(listener) for word in re.findall(rb"trick: [^;]*", data)]

    for guest, own in ((VM, lab.vm), (CONTAINER, lab.container)):
        gateway = guest["ip"].rpartition(".")[0]
        with lab.host.sniff(guest["bridge"]) as listener:
            facts = (guest["mac"], guest["ip"], f"{gateway}.1", BRIDGE_MAC, f"{gateway}.254")
            assert arrived(own, listener, *facts) == [b"trick: none"]
    lab.load(**ON_THE_BRIDGE)
    with peer.sniff() as listener:
        facts = (LAN_CARD["mac"], f"{ON_LAN}.50", f"{ON_LAN}.9", BRIDGE_MAC, f"{ON_LAN}.254")
        assert arrived(there, listener, *facts) == [b"trick: none"]


def sizes(listener: socket.socket, flags: int) -> list[int]:
    """Return the maximum segment sizes in the TCP packets with these of SYN and ACK."""
    found = []
    for frame in received(listener):
        if frame[12:14] == b"\x08\x00" and frame[23] == TCP:
            segment = frame[14 + 4 * (frame[14] & 15) :]
            options = segment[20 : 4 * (segment[12] >> 4)]
            if segment[13] & (SYN | ACK) == flags and options[0] == MSS:
                found.append(int.from_bytes(options[2:4], "big"))
    return found


def test_segments_fit_through_a_narrow_way_out(lab: Lab) -> None:
    lab.host.run("nft -f -", DNAT)
    lab.host.run("ip link set out mtu 1400")
    lab.load()
    with lab.internet.listen(80):
        for there in (lab.vm, lab.container):
            for asked, seen in ((0, 1360), (536, 536)):
                with lab.internet.sniff() as outside, there.sniff() as inside:
                    assert there.call("198.51.100.9", 80, mss=asked) == "open"
                    assert sizes(outside, SYN) == [seen]
                    assert sizes(inside, SYN | ACK) == [1360]
