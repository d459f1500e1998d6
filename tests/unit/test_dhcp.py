"""What dhcp.py reads, whoever wrote it; what leases.py makes of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp_guard import dhcp, leases
from vagrantp_guard.dhcp_reader import INDEX, heard, packets
from vagrantp_guard.leases import Lan, judged

MAC, XID = "56:54:00:00:00:01", 0x12345678
ACK = [(53, b"\5"), (51, b"\0\0\2\x58"), (1, b"\xff\xff\xff\0"), (3, b"\xc0\xa8\x4e\1" * 2)]
NAME, FILE = slice(44, 108), slice(108, 236)
Options = Sequence[tuple[int, bytes]]


def packed(options: Options) -> bytes:
    return b"".join(bytes((number, len(value))) + value for number, value in options)


def packet(
    said: bytes,
    *,
    answer: bool = True,
    name: bytes = b"",
    file: bytes = b"",
    source: str = "192.168.78.1",
    part: int = 0,
    given: str = "192.168.78.60",
) -> bytes:
    """Return an IPv4 packet with a message of DHCP."""
    body = struct.pack(">BBBBIHH", 2 if answer else 1, 1, 6, 0, XID, 0, 0) + bytes(4)
    body += socket.inet_aton(given) + bytes(8) + bytes.fromhex(MAC.replace(":", ""))
    body = body.ljust(44, b"\0") + name.ljust(64, b"\0") + file.ljust(128, b"\0")
    body += dhcp.COOKIE + said
    ports = (67, 68) if answer else (68, 67)
    body = struct.pack(">HHHH", *ports, 8 + len(body), 0) + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, part, 64, 17, 0)
    return head + socket.inet_aton(source) + bytes([255] * 4) + body


def test_an_acknowledgement() -> None:
    found = dhcp.parse(packet(packed(ACK) + b"\xff"))
    assert found == dhcp.Message(
        is_answer=True,
        kind=dhcp.ACK,
        xid=XID,
        mac=MAC,
        source=IPv4Address("192.168.78.1"),
        own=IPv4Address(0),
        given=IPv4Address("192.168.78.60"),
        wanted=IPv4Address(0),
        seconds=600,
        routers=(IPv4Address("192.168.78.1"),) * 2,
    )
    assert dhcp.Message.from_wire(found.to_wire()) == found


@pytest.mark.parametrize(
    ("said", "name", "file"),
    [
        (packed([*ACK, (52, b"\1")]), b"\xff", packed([(50, b"\1\2\3\4")]) + b"\xff"),
        (packed([*ACK, (52, b"\2")]), packed([(50, b"\1\2\3\4")]), b""),
        (packed([*ACK, (52, b"\3")]), b"\0" * 9 + packed([(50, b"\1\2\3\4")]) + b"\xff", b"\xff"),
        (b"\0" * 5 + packed(ACK) + b"\0" + packed([(50, b"\1\2\3\4"), (52, b"\0")]), b"", b""),
    ],
)
def test_options_are_where_overload_says(said: bytes, name: bytes, file: bytes) -> None:
    found = dhcp.parse(packet(said + b"\xff\x32\x04", name=name, file=file))
    assert str(found.wanted) == "1.2.3.4" and found.seconds == 600


def test_options_elsewhere_do_not_count() -> None:
    hidden = packed([(50, b"\1\2\3\4")])
    assert int(dhcp.parse(packet(packed(ACK) + b"\xff" + hidden, name=hidden)).wanted) == 0


@pytest.mark.parametrize(
    "said",
    [
        b"",  # BOOTP
        b"\xff" + packed(ACK),
        packed(ACK[1:]),
        packed([(53, b"\3"), *ACK]),  # of two kinds
        packed([(53, b"")]),
        packed([*ACK, (51, b"\0\0\0\1")]),
        packed([*ACK, (50, b"\1\2\3")]),
        packed([*ACK, (3, b"\1\2\3")]),
        packed([*ACK, (52, b"\4")]),
        packed([*ACK, (52, b"\1"), (52, b"\2")]),
        packed(ACK) + b"\x32",
        packed(ACK) + b"\x32\4\1\2\3",
        packed(ACK) + b"\x0c\xff",
    ],
)
def test_what_is_no_message(said: bytes) -> None:
    with pytest.raises(dhcp.Malformed):
        dhcp.parse(packet(said))


def test_an_overload_in_what_is_overloaded() -> None:
    nested = packed([(52, b"\3")]) + b"\xff"
    with pytest.raises(dhcp.Malformed):
        dhcp.parse(packet(packed([*ACK, (52, b"\1")]), file=nested))


SOUND = packet(packed(ACK) + b"\xff")


@pytest.mark.parametrize(
    "bad",
    [
        SOUND[:-1],
        b"\x65" + SOUND[1:],
        b"\x44" + SOUND[1:],
        b"\x4f" + SOUND[1:24],
        SOUND[:9] + b"\6" + SOUND[10:],
        packet(packed(ACK), part=0x2000),
        packet(packed(ACK), part=31),
        SOUND[:24] + b"\xff\xff" + SOUND[26:],
        SOUND[:24] + b"\0\7" + SOUND[26:],
        SOUND[:20] + b"\0\x44" + SOUND[22:],
        SOUND[:28] + b"\1" + SOUND[29:],  # a request from a server's port
        SOUND[:29] + b"\6" + SOUND[30:],
        SOUND[:30] + b"\x10" + SOUND[31:],
        SOUND.replace(dhcp.COOKIE, b"cook"),
    ],
)
def test_what_is_no_packet_of_dhcp(bad: bytes) -> None:
    with pytest.raises(dhcp.Malformed):
        dhcp.parse(bad)
    assert heard(is_answer=True, packet=bad) is None


def test_each_packet_that_is_cut_off() -> None:
    for length in range(len(SOUND)):
        with pytest.raises(dhcp.Malformed):
            dhcp.parse(SOUND[:length])
        cut = SOUND[:2] + struct.pack(">H", length) + SOUND[4:length]
        with pytest.raises(dhcp.Malformed):
            dhcp.parse(cut)


number = st.one_of(st.sampled_from([0, 1, 3, 50, 51, 52, 53, 54, 255]), st.integers(0, 255))
option = st.tuples(number, st.binary(max_size=12))
noise = st.one_of(st.binary(max_size=300), st.lists(option, max_size=20).map(packed))


@given(noise, st.binary(max_size=64), st.binary(max_size=128), st.booleans())
def test_whatever_is_said_is_a_message_or_none(
    said: bytes, name: bytes, file: bytes, answer: bool
) -> None:
    data = packet(packed([(53, b"\5")]) + said, answer=answer, name=name, file=file)
    passed_on = heard(answer, data)
    if passed_on:
        found = dhcp.Message.from_wire(passed_on)
        assert found == dhcp.parse(data)
        assert len(passed_on) == dhcp.WIRE.size and len(found.routers) <= dhcp.MOST_ROUTERS
    else:
        assert passed_on == (None if answer else b"")
    assert heard(not answer, data) in (None, b"")


@given(st.binary(max_size=600), st.integers(0, 599), st.integers(0, 255), st.booleans())
def test_whatever_comes_is_a_message_or_none(data: bytes, at: int, byte: int, answer: bool) -> None:
    for packet in (data, SOUND[: at % len(SOUND)] + bytes((byte,)) + SOUND[at % len(SOUND) + 1 :]):
        heard(answer, packet)
    assert all(isinstance(each, tuple) for each in packets(data))


def logged(hook: int, index: int, kind: int, packet: bytes) -> bytes:
    """Return what nfnetlink_log sends for a packet."""
    body = bytes((7, 0, 0, 0))
    facts = ((1, struct.pack(">HBx", 0x800, hook)), (kind, INDEX.pack(index)), (9, packet))
    for number, value in facts:
        attribute = struct.pack("=HH", 4 + len(value), number) + value
        body += attribute.ljust(-4 & len(attribute) + 3, b"\0")
    message = struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body
    return message.ljust(-4 & len(message) + 3, b"\0")


def test_what_the_kernel_logs() -> None:
    data = logged(0, 7, 6, b"ask") + logged(4, 8, 7, b"told!") + logged(4, 9, 5, b"told")
    assert [*packets(data)] == [(7, False, b"ask"), (8, True, b"told!"), (9, True, b"told")]
    assert [*packets(logged(4, 7, 6, b"the other way"))] == []


LAN = Lan(
    (IPv4Interface("192.168.78.5/24"),), {*map(IPv4Address, ("192.168.78.5", "192.168.78.2"))}
)


def judge(source: str = "192.168.78.1", given: str = "192.168.78.60", lan: Lan = LAN) -> str:
    lease = judged(dhcp.parse(packet(packed(ACK), source=source, given=given)), lan, 1000)
    return str(lease.address) if lease else ""


def test_which_address_a_guest_gets() -> None:
    assert judge() == "192.168.78.60/24"
    for taken in (0, 1, 2, 5, 255):  # network, router, a guest, this host, broadcast
        assert judge(given=f"192.168.78.{taken}") == "", taken
    assert judge("192.168.78.9", "192.168.78.9") == ""
    assert judge(given="192.168.79.60") == judge(given="0.0.0.0") == judge(given="8.8.8.8") == ""
    for elsewhere in ("198.51.100.9", "192.168.79.1", "10.0.0.1"):
        assert judge(elsewhere) == "", elsewhere
    assert judge(lan=Lan((), ())) == ""
    assert judge("192.168.78.5") == "192.168.78.60/24"  # this host is the server


def test_a_lease_has_an_end() -> None:
    for seconds, until in ((b"\0\0\0\1", 1001), (b"\xff" * 4, 1000 + leases.LONGEST)):
        ack = dhcp.parse(packet(packed([(53, b"\5"), (51, seconds)])))
        lease = judged(ack, LAN, 1000)
        assert lease and lease.until == until
        assert leases.from_json(leases.to_json(lease)) == lease
    for options in ([(53, b"\5")], [(53, b"\5"), (51, bytes(4))]):
        assert judged(dhcp.parse(packet(packed(options))), LAN, 1000) is None
