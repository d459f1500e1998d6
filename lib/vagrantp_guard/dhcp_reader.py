#!/usr/bin/python3 -IS
"""Reads the DHCP of guests' cards on bridges, as nobody, and passes on what it says.

`dhcp_reader.py`, with a socket of nfnetlink_log as standard input and one of SOCK_SEQPACKET as
standard output: it writes 4 bytes, the number of the card's port, and a message as dhcp.py writes
it, or nothing for a message of a guest that is none. It ends when whoever reads that does.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from vagrantp_guard import dhcp

NOBODY = 65534  # by number, as the name of its group differs between distributions
# linux/netfilter/nfnetlink_log.h, linux/netfilter_bridge.h
PACKET = 4 << 8
HEADER, IN, OUT, PHYSICAL_IN, PHYSICAL_OUT, PAYLOAD = 1, 4, 5, 6, 7, 9
POSTROUTING = 4
INDEX = struct.Struct(">I")


def main() -> int:
    """Run until the other end closes. Raises OSError."""
    log, out = socket.socket(fileno=0), socket.socket(fileno=1)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    poll = select.poll()
    poll.register(log, select.POLLIN)
    poll.register(out, select.POLLHUP)
    while out.fileno() not in dict(poll.poll()):
        with suppress(OSError):  # ENOBUFS: what is lost is not heard, and so opens nothing
            data, (sender, _) = log.recvfrom(65536)
            for index, is_answer, packet in [] if sender else packets(data):
                passed_on = heard(is_answer, packet)
                if passed_on is not None:
                    out.send(INDEX.pack(index) + passed_on)
    return 0


def heard(is_answer: bool, packet: bytes) -> bytes | None:
    """Return what is passed on about an IPv4 packet, None for nothing. Pure."""
    try:
        message = dhcp.parse(packet)
    except dhcp.Malformed:
        return None if is_answer else b""
    return message.to_wire() if message.is_answer == is_answer else None


def packets(data: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Yield the number of a guest's card, whether it was sent that packet, and the packet. Pure.

    `data`: messages of netlink(7), from the kernel.
    """
    while len(data) >= 20:
        length, kind = struct.unpack_from("=IH", data)
        if kind == PACKET:
            found = dict(_attributes(data[20:length]))
            is_answer = found.get(HEADER, b"\0" * 3)[2] == POSTROUTING
            physical, plain = (PHYSICAL_OUT, OUT) if is_answer else (PHYSICAL_IN, IN)
            # the latter in a kernel without br_netfilter
            index = found.get(physical, found.get(plain, b""))
            if len(index) == INDEX.size:
                yield INDEX.unpack(index)[0], is_answer, found.get(PAYLOAD, b"")
        data = data[max(20, -4 & length + 3) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[max(4, -4 & length + 3) :]


if __name__ == "__main__":
    sys.exit(main())
