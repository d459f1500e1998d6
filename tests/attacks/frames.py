"""Frames that guests send, byte for byte; each carries a number by which it is known again."""

from __future__ import annotations

import re
import socket
import struct

TCP, UDP, ICMP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP
SYN, RST, ACK = 0x02, 0x04, 0x10
ECHO, ECHO_REPLY, UNREACHABLE, ADMIN_PROHIBITED = 8, 0, 3, 13
IP, ARP, VLAN, QINQ, IPV6 = (
    bytes.fromhex(t) for t in ("0800", "0806", "81000005", "88a80005", "86dd")
)
NOBODY, ALL, ALL_MACS = "0.0.0.0", "255.255.255.255", "ff:ff:ff:ff:ff:ff"
FIRST_SEQUENCE = 0x50000000  # of TCP; each number has 256 of them
REQUEST, REPLY = 1, 2  # of ARP
ASKED = "10.99"  # ARP asks for an address in it, which is the number
ICMPV6, UNREACHABLE6, ADMIN_PROHIBITED6 = 58, 1, 1  # RFC 4443
MSS = 2
WORD = re.compile(rb"#(\d{4})#")


def word(number: int) -> bytes:
    return b"#%04d#" % number


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total + (total >> 16)) & 0xFFFF)


def ipv4(source: str, target: str, protocol: int, body: bytes, number: int) -> bytes:
    """Return a packet with the number as its identification."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 9, protocol, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack(">H", checksum(head + ends)) + ends + body


def ipv6(source: str, target: str, body: bytes, number: int) -> bytes:
    """Return a packet of UDP with the number as its flow label."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    pseudo = ends + struct.pack(">II", len(body), UDP)
    body = body[:6] + struct.pack(">H", checksum(pseudo + body)) + body[8:]
    return struct.pack(">IHBB", 0x60000000 | number, len(body), UDP, 9) + ends + body


def udp(source: int, target: int, data: bytes) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def tcp(ends: tuple[str, str], ports: tuple[int, int], flags: int, number: int) -> bytes:
    """Return a segment without data, with a maximum segment size of 1460."""
    sequence = FIRST_SEQUENCE + 256 * number
    head = struct.pack(">HHIIBBHHH", *ports, sequence, 1, 6 << 4, flags, 9999, 0, 0)
    head += struct.pack(">BBH", MSS, 4, 1460)
    pseudo = b"".join(map(socket.inet_aton, ends)) + struct.pack(">HH", TCP, len(head))
    return head[:16] + struct.pack(">H", checksum(pseudo + head)) + head[18:]


def icmp(kind: int, number: int) -> bytes:
    head = struct.pack(">BBHHH", kind, 0, 0, number, 1) + word(number)
    return head[:2] + struct.pack(">H", checksum(head)) + head[4:]


def arp(mac: str, address: str, number: int, asked: str = "", kind: int = REQUEST) -> bytes:
    """Return a message of ARP about an address: without `asked` about one that is the number."""
    target = socket.inet_aton(asked or f"{ASKED}.{number >> 8}.{number & 255}")
    sender = raw(mac) + socket.inet_aton(address)
    padding = word(number).ljust(18, b"\0")
    return struct.pack(">HHBBH", 1, 0x800, 6, 4, kind) + sender + bytes(6) + target + padding


def dhcp(mac: str, number: int, kind: int, own: str = NOBODY, given: str = NOBODY) -> bytes:
    """Return a message of DHCP for the client with this MAC; of no kind at all with 0.

    `own`: ciaddr; `given`: yiaddr.
    """
    op = 2 if given != NOBODY else 1
    text = struct.pack(">BBBBI4x", op, 1, 6, 0, 1) + socket.inet_aton(own)
    text += socket.inet_aton(given) + bytes(8) + raw(mac).ljust(16, b"\0") + word(number)
    options = bytes((53, 1, kind, 255)) if kind else b"\xff"
    return text.ljust(236, b"\0") + bytes.fromhex("63825363") + options


def number_of(frame: bytes) -> tuple[int, str] | None:
    """Return a frame's number, and how it was refused: "reset", "prohibited", "unreachable", ""."""
    kind, body = frame[12:14], frame[14:]
    while kind in (VLAN[:2], QINQ[:2]):
        kind, body = body[2:4], body[4:]
    if kind == ARP:
        numbered = WORD.search(body[28:])
        return (int(numbered[1]), "") if numbered else None
    refusal = ""
    if kind == IP and body[9] == ICMP and body[20] == UNREACHABLE:
        refusal = "prohibited" if body[21] == ADMIN_PROHIBITED else "unreachable"
        body = body[28:]
    if kind == IPV6 and body[6] == ICMPV6 and body[40] == UNREACHABLE6:
        refusal = "prohibited" if body[41] == ADMIN_PROHIBITED6 else "unreachable"
    if kind == IP and body[9] == TCP:
        sequence, acknowledged, _, flags = struct.unpack(">IIBB", body[24:34])
        if flags & RST and not refusal and sequence < FIRST_SEQUENCE:  # no probe itself
            refusal, sequence = "reset", acknowledged - 1
        number = (sequence - FIRST_SEQUENCE) >> 8
        return (number, refusal) if 0 < number < 10_000 else None
    found = WORD.search(body)
    return (int(found[1]), refusal) if found else None


def segment_size(frame: bytes) -> int | None:
    """Return the maximum segment size that a SYN allows."""
    if frame[12:14] != IP or frame[23] != TCP or not frame[47] & SYN or frame[54] != MSS:
        return None
    return int.from_bytes(frame[56:58], "big")
