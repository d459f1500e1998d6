"""What a packet of DHCP says, by RFC 2131, 2132 and 3396. Pure: bytes -> a message of fixed size.

Whoever wrote these bytes may want to mislead: a guest, or anybody who can send it a packet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

REQUEST, DECLINE, ACK, NAK, RELEASE = 3, 4, 5, 6, 7
UDP, SERVER, CLIENT = 17, 67, 68
COOKIE = bytes.fromhex("63825363")
FIXED = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
PAD, END, OVERLOAD = 0, 255, 52
# The options that are looked at, by number, with their length in bytes.
MASK, ROUTERS, WANTED, SECONDS, KIND, SERVER_ID = 1, 3, 50, 51, 53, 54
LENGTHS = {MASK: 4, WANTED: 4, SECONDS: 4, OVERLOAD: 1, KIND: 1, SERVER_ID: 4}
MOST_ROUTERS = 4
WIRE = struct.Struct(">BBI6s4s4s4s4sI16s")


class Malformed(ValueError):
    """A packet that is no message of DHCP, or not only one."""


@dataclass(frozen=True)
class Message:
    """A message between a client and a server. An address of 0.0.0.0 is none.

    `source`: who has sent it; `own`: what the client has (ciaddr); `given`: what a server gives
    (yiaddr); `wanted`: what the client asks for; `seconds`: of the lease.
    """

    is_answer: bool
    kind: int
    xid: int
    mac: str
    source: IPv4Address
    own: IPv4Address
    given: IPv4Address
    wanted: IPv4Address
    seconds: int
    routers: tuple[IPv4Address, ...]

    def to_wire(self) -> bytes:
        """Return it as bytes of a fixed number."""
        addresses = (a.packed for a in (self.source, self.own, self.given, self.wanted))
        routers = b"".join(router.packed for router in self.routers)
        mac = bytes.fromhex(self.mac.replace(":", ""))
        start = (self.is_answer, self.kind, self.xid, mac)
        return WIRE.pack(*start, *addresses, self.seconds, routers)

    @classmethod
    def from_wire(cls, data: bytes) -> Message:
        """Read what `to_wire` has written. Raises Malformed."""
        if len(data) != WIRE.size:
            raise Malformed(f"{len(data)} bytes are no message")
        is_answer, kind, xid, mac, source, own, given, wanted, seconds, routers = WIRE.unpack(data)
        return cls(
            is_answer=is_answer == 1,
            kind=kind,
            xid=xid,
            mac=mac.hex(":"),
            source=IPv4Address(source),
            own=IPv4Address(own),
            given=IPv4Address(given),
            wanted=IPv4Address(wanted),
            seconds=seconds,
            routers=_addresses(routers),
        )


def parse(packet: bytes) -> Message:
    """Read an IPv4 packet, from its header on. Raises Malformed."""
    source, from_, to, data = _datagram(packet)
    if (from_, to) not in ((SERVER, CLIENT), (CLIENT, SERVER)):
        raise Malformed(f"ports {from_} and {to} are not those of DHCP")
    if len(data) < FIXED.size:
        raise Malformed("it is too short")
    op, hardware, length, _, xid, _, _, own, given, _, _, mac, name, file, cookie = (
        FIXED.unpack_from(data)
    )
    is_answer = from_ == SERVER
    if (op, hardware, length, cookie) != (2 if is_answer else 1, 1, 6, COOKIE):
        raise Malformed("it is no DHCP of Ethernet")
    options = _options(data[FIXED.size :], file, name)
    if KIND not in options:
        raise Malformed("it does not say of which kind it is")
    return Message(
        is_answer=is_answer,
        kind=options[KIND][0],
        xid=xid,
        mac=mac[:6].hex(":"),
        source=source,
        own=IPv4Address(own),
        given=IPv4Address(given),
        wanted=IPv4Address(options.get(WANTED, bytes(4))),
        seconds=int.from_bytes(options.get(SECONDS, b"")),
        routers=_addresses(options.get(ROUTERS, b"")),
    )


def _datagram(packet: bytes) -> tuple[IPv4Address, int, int, bytes]:
    """Return source, ports and data of a whole datagram of UDP in an IPv4 packet."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        raise Malformed("it is no IPv4")
    head, total, part = 4 * (packet[0] & 15), *struct.unpack_from(">H2xH", packet, 2)
    if not 20 <= head <= total - 8 or total > len(packet):
        raise Malformed("its lengths do not fit")
    if part & 0x3FFF or packet[9] != UDP:
        raise Malformed("it is a fragment, or no UDP")
    from_, to, length = struct.unpack_from(">HHH", packet, head)
    if not 8 <= length <= total - head:
        raise Malformed("the lengths of UDP do not fit")
    return IPv4Address(packet[12:16]), from_, to, packet[head + 8 : head + length]


def _options(field: bytes, file: bytes, name: bytes) -> dict[int, bytes]:
    """Return the options of a message; OVERLOAD says whether `file` and `name` have some, too.

    What comes twice is one option, in parts (RFC 3396): of one that has a fixed length, too long.
    """
    found: dict[int, bytes] = {}
    _add(found, field)
    overload = found.get(OVERLOAD, b"\0")
    if overload not in (b"\0", b"\1", b"\2", b"\3"):
        raise Malformed("its overload is none")
    for bit, more in ((1, file), (2, name)):
        if overload[0] & bit:
            _add(found, more)
    if found.get(OVERLOAD, b"\0") != overload:
        raise Malformed("its overload is overloaded")
    for option, length in LENGTHS.items():
        if len(found.get(option, bytes(length))) != length:
            raise Malformed(f"option {option} has another length")
    if len(found.get(ROUTERS, b"")) % 4:
        raise Malformed("its routers are no addresses")
    return found


def _add(found: dict[int, bytes], field: bytes) -> None:
    at = 0
    while at < len(field) and field[at] != END:
        if field[at] == PAD:
            at += 1
            continue
        end = at + 2 + field[at + 1] if at + 1 < len(field) else len(field) + 1
        if end > len(field):
            raise Malformed("an option is longer than what is there")
        found[field[at]] = found.get(field[at], b"") + field[at + 2 : end]
        at = end


def _addresses(data: bytes) -> tuple[IPv4Address, ...]:
    """Return the first addresses in `data`, without 0.0.0.0."""
    parts = (data[at : at + 4] for at in range(0, min(len(data), 4 * MOST_ROUTERS), 4))
    return tuple(IPv4Address(part) for part in parts if any(part))
