"""Stays while guests run, and puts lost rules back."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TextIO

from vagrantp_guard import forwarding
from vagrantp_guard.contract import RUN
from vagrantp_guard.guests import guests, record_of
from vagrantp_guard.listener import Listener
from vagrantp_guard.resolver import Resolvers
from vagrantp_guard.system import Refused, in_background, locked, watchers_lock
from vagrantp_guard.tables import ask_again, inside_problems, load, load_inside, lost

WATCH_PAUSE = 30_000  # milliseconds after which the rules are looked at in any case
SETTLE = 0.05  # seconds in which one change is followed by more
RETRY = 1.0  # seconds after which a failed look at the rules is repeated
NETFILTER = 12  # netlink(7)'s family; Python has no name for it
# Its groups, as bind(2) takes them: linux/netfilter/nfnetlink.h, linux/rtnetlink.h.
OF_NFTABLES = 0x40
OF_LINKS, OF_ADDRESSES, OF_ROUTES, OF_RULES = 0x1, 0x10, 0x40, 0x80


def watch_host() -> None:
    """Stay in the background while guests of this host run, and put lost rules back.

    Whatever flushes nftables, such as a firewall that loads its own settings, does not know them.
    """
    with locked():  # not while `check` looks at it
        lock = watchers_lock() if guests() else None
    if lock and in_background():
        try:
            _watching_host(lock)
        finally:  # whatever happens, this process does nothing else
            os._exit(0)


def _watching_host(lock: TextIO) -> None:
    (RUN / "watch.lock").write_text(str(os.getpid()), encoding="utf-8")
    poll = select.poll()
    routing = _listen(socket.NETLINK_ROUTE, OF_LINKS | OF_ADDRESSES | OF_ROUTES | OF_RULES)
    links = (_listen(NETFILTER, OF_NFTABLES), routing)
    for link in links:
        poll.register(link, select.POLLIN)
    resolvers, listener = Resolvers(poll), Listener(poll, lambda leases: load(new=leases))
    while RUN.is_dir():
        try:
            if not _keep_rules(lock, resolvers, listener):
                return
        except (Refused, OSError, ValueError):  # somebody else's change, or no room: try again soon
            sleep(RETRY)
            continue
        ready = _wait(poll, listener)
        if resolvers.forget(ready) or listener.has_ended:
            sleep(RETRY)
        sleep(SETTLE)
        for link in links:
            _drain(link)


def _wait(poll: select.poll, listener: Listener) -> dict[int, int]:
    """Return what is ready, at the latest after WATCH_PAUSE; do what the listener says at once."""
    until = monotonic() + WATCH_PAUSE / 1000
    while True:
        ready = dict(poll.poll(max(0, 1000 * (until - monotonic()))))
        if not listener.is_ready(ready):
            return ready
        with suppress(Refused, OSError, ValueError), locked():  # what fails is tried again
            listener.hear()
        if len(ready) > 1 or listener.has_ended:
            return ready


def _keep_rules(lock: TextIO, resolvers: Resolvers, listener: Listener) -> bool:
    """Put back lost rules, the resolvers, and what hears DHCP.

    Return False, with the lock released, when the last guest has ended.
    """
    with locked():
        ended = [g for g in guests() if g.pid is not None and not Path(f"/proc/{g.pid}").exists()]
        for guest in ended:  # a container that failed to start has no hook for its end
            record_of(guest.name).unlink()
        resolvers.keep()
        is_deaf = listener.keep()
        is_needed = bool(guests())
        is_reloaded = bool(ended or (is_needed and lost()))
        if is_reloaded:
            load()
        if not is_needed:
            lock.close()  # before another guest can start, and rely on it
            return False
        with suppress(Refused):  # last, as it waits for others
            forwarding.keep()
    if is_reloaded or is_deaf:
        ask_again()  # a lease that was given while there were no rules is not known
    return True


def watch_container(pid: int, folder: Path) -> None:
    """Stay in the background while a user's container runs, and keep its rules up to date.

    They name the host's networks, which change and which its own namespace does not know.
    """
    lock = (folder / "watch.lock").open("w")
    with suppress(BlockingIOError):  # where it is watched already
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if in_background():
            try:
                _watching(pid, folder)
            finally:
                os._exit(0)


def _watching(pid: int, folder: Path) -> None:
    poll = select.poll()
    guest = os.pidfd_open(pid)
    poll.register(guest, select.POLLIN)
    link = _listen(socket.NETLINK_ROUTE, OF_ADDRESSES | OF_ROUTES)
    poll.register(link, select.POLLIN)
    while guest not in dict(poll.poll(WATCH_PAUSE)):
        _drain(link)
        with suppress(Refused, OSError, ValueError):  # somebody else's change may be at work
            if inside_problems(pid, folder):
                load_inside(pid, folder)


def _listen(family: int, groups: int) -> socket.socket:
    """Return a socket of netlink(7) that can be read when something of these groups has changed."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    link.setblocking(False)
    link.bind((0, groups))
    return link


def _drain(link: socket.socket) -> None:
    """Read and discard all messages: that there were any is enough to know."""
    while True:
        try:
            link.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:  # ENOBUFS: there were more messages than the kernel has room for
            if error.errno != errno.ENOBUFS:
                raise
