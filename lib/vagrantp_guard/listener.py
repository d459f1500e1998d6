"""Hears at the cards on bridges of this host which addresses DHCP gives, and puts them into force.

The rules hand the messages to nfnetlink_log; dhcp_reader.py, a process without rights, reads them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from vagrantp_guard import dhcp
from vagrantp_guard.contract import Guest, LanNic
from vagrantp_guard.dhcp_reader import INDEX
from vagrantp_guard.guests import guests
from vagrantp_guard.lan_ruleset import HEARD, Lease
from vagrantp_guard.leases import clock, judged, kept, lan_of
from vagrantp_guard.system import PATH, until_none

READER = Path(__file__).with_name("dhcp_reader.py")
CAPABILITIES = "-all,+setuid,+setgid"  # by which it becomes nobody
CONFINED = (
    *("prlimit", f"--as={128 << 20}", "--core=0", "--nofile=16", "--nproc=1"),
    *("setpriv", "--no-new-privs"),
    *(f"--{which}={CAPABILITIES}" for which in ("inh-caps", "bounding-set")),
)
LISTENING = Path("/proc/net/netfilter/nfnetlink_log")  # the first column: groups that are read
NETFILTER, SO_RCVBUFFORCE = 12, 33  # linux/netlink.h, asm-generic/socket.h
ROOM = 1 << 20  # bytes, for hundreds of messages
# linux/netfilter/nfnetlink_log.h: bind to the group, copy whole packets, each at once.
CONFIGURE, ACKNOWLEDGED = 4 << 8 | 1, 5
SETTINGS = (
    struct.pack("=HHB3x", 5, 1, 1) + struct.pack("=HH", 10, 2) + struct.pack(">IBx2x", 1500, 2)
)
SETTINGS += struct.pack("=HH", 8, 5) + struct.pack(">I", 1)
REMEMBERED, SECONDS = 8, 120.0  # requests of a card that a server may answer, and for how long
STARTING = 10.0  # seconds until it must run
AT_ONCE = 1000  # messages that are read before others get the lock


class Listener:
    """The process that reads, a child of the watcher. `poll` reports what it says.

    `load` puts leases into force, by the ports of cards: None for one that has ended.
    """

    def __init__(
        self, poll: select.poll, load: Callable[[Mapping[str, Lease | None]], None]
    ) -> None:
        self.poll, self.load = poll, load
        self.running: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self.asked = defaultdict[str, list[tuple[int, float]]](list)
        self.new: dict[str, Lease | None] = {}
        self.has_ended = False

    def keep(self) -> bool:
        """Run it while guests need it, and put into force what was heard.

        Say whether something may not have been heard. Raises Refused, OSError, ValueError.
        """
        cards = _cards(guests())
        if not cards:
            self._end()
        elif not self.running:
            with suppress(OSError):  # `check` says that it does not run; rules come first
                self._start()
        self._apply()
        was_deaf = bool(cards and self.has_ended and self.running)
        self.has_ended = bool(cards and not self.running)
        return was_deaf

    def is_ready(self, ready: Iterable[int]) -> bool:
        """Say whether it has something to say, by what `poll` returned."""
        return bool(self.running and self.running[1].fileno() in {*ready})

    def hear(self) -> bool:
        """Do what was said; return False if the process has ended. Raises as `keep` does."""
        for _ in range(AT_ONCE):
            if not self.running:
                break
            try:
                data = self.running[1].recv(4096)
            except BlockingIOError:
                break
            if not data:
                self._end()
                self.has_ended = True
                return False
            self._learn(data)
        self._apply()
        return True

    def _learn(self, data: bytes) -> None:
        if len(data) < INDEX.size:
            return
        known = guests()
        with suppress(OSError, dhcp.Malformed):  # a card that is gone; not what the reader writes
            port = socket.if_indextoname(*INDEX.unpack(data[: INDEX.size]))
            said = data[INDEX.size :]
            guest = _cards(known).get(port)
            if guest and not said:
                if self._lease(port):
                    self.new[port] = None
            elif guest and (message := dhcp.Message.from_wire(said)).mac == guest.mac:
                learn = self._answered if message.is_answer else self._asks
                learn(guest, message, known)

    def _asks(self, card: LanNic, message: dhcp.Message, _: list[Guest]) -> None:
        lease = self._lease(card.port)
        left = {dhcp.DECLINE: message.wanted, dhcp.RELEASE: message.own}.get(message.kind)
        if message.kind == dhcp.REQUEST:
            recent = [*self.asked[card.port], (message.xid, clock())]
            self.asked[card.port] = recent[-REMEMBERED:]
        elif lease and left == lease.address.ip:
            self.new[card.port] = None

    def _answered(self, card: LanNic, message: dhcp.Message, known: list[Guest]) -> None:
        now, lease = clock(), self._lease(card.port)
        asked = {xid for xid, when in self.asked[card.port] if now - when < SECONDS}
        if message.xid not in asked or message.kind not in (dhcp.ACK, dhcp.NAK):
            return
        lan = lan_of(card.bridge, self._taken(card, known))
        if message.kind == dhcp.NAK:
            if lease and any(message.source in own.network for own in lan.own):
                self.new[card.port] = None
            return
        given = judged(message, lan, now)
        if given and not (lease and _is_much_the_same(lease, given, now)):
            self.new[card.port] = given

    def _lease(self, port: str) -> Lease | None:
        return self.new[port] if port in self.new else kept().get(port)

    def _taken(self, card: LanNic, known: list[Guest]) -> set[IPv4Address]:
        """Return the addresses of other guests, and of routers and resolvers that guests have."""
        lans = [guest.policy.lan for guest in known if guest.policy.lan]
        held = {**kept(), **self.new}
        found = {lease.address.ip for port, lease in held.items() if lease and port != card.port}
        for lan in lans:
            addresses = (lan.address and lan.address.ip, lan.gateway, lan.dns, *lan.resolvers)
            found |= {address for address in addresses if address}
        return found | {guest.ip for guest in known}

    def _apply(self) -> None:
        if self.new:
            self.load(self.new)
            self.new = {}

    def _start(self) -> None:
        with log() as group:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                argv = (*CONFINED, "/usr/bin/python3", "-IS", str(READER))
                process = subprocess.Popen(
                    argv,
                    env={"PATH": PATH},
                    stdin=group.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                )
        ours.setblocking(False)
        self.running = process, ours
        self.poll.register(ours, select.POLLIN)

    def let_go(self) -> None:
        """Close a copy of this in a child process: the reader ends with the one that started it."""
        if self.running:
            self.running[1].close()

    def _end(self) -> None:
        if self.running:
            process, link = self.running
            self.running = None
            self.poll.unregister(link)
            link.close()
            process.kill()
            process.wait()


def _cards(known: Iterable[Guest]) -> dict[str, LanNic]:
    """Return the cards that have their address by DHCP, by port."""
    lans = (guest.policy.lan for guest in known)
    return {lan.port: lan for lan in lans if lan and not lan.address}


def _is_much_the_same(lease: Lease, given: Lease, now: float) -> bool:
    """Say whether a renewal changes nothing but the end, and that by less than a tenth."""
    is_same = (lease.address, lease.server, lease.routers) == (
        *(given.address, given.server, given.routers),
    )
    return is_same and abs(given.until - lease.until) < (given.until - now) / 10


def log() -> socket.socket:
    """Return the socket that gets what the rules log. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        made.bind((0, 0))
        body = struct.pack(">BBH", 0, 0, HEARD) + SETTINGS
        made.send(struct.pack("=IHHII", 16 + len(body), CONFIGURE, ACKNOWLEDGED, 1, 0) + body)
        (failed,) = struct.unpack_from("=i", made.recv(4096), 16)
        if failed:
            raise OSError(-failed, f"group {HEARD} of nfnetlink_log: {os.strerror(-failed)}")
    except BaseException:
        made.close()
        raise
    return made


def missing() -> list[str]:
    """Return the guests whose DHCP nobody reads. Raises ValueError for an invalid record."""
    waiting = [g.name for g in guests() if g.policy.lan and not g.policy.lan.address]
    if not waiting:
        return []
    try:
        listed = LISTENING.read_text(encoding="ascii").splitlines()
    except OSError:
        return waiting
    return [] if any(line.split()[0] == str(HEARD) for line in listed) else waiting


def wait(name: str = "") -> bool:
    """Wait until a guest's DHCP is read, or that of each; return False if it is not in time."""
    return until_none(missing, name, STARTING)
