"""Stays while guests run, and puts lost rules back."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, NoReturn, TextIO

from vagrantp_guard import forwarding, held
from vagrantp_guard.contract import RUN, Guest
from vagrantp_guard.guests import guests, record_of
from vagrantp_guard.held import Asks, Wall
from vagrantp_guard.links import Links
from vagrantp_guard.listener import Listener
from vagrantp_guard.resolver import Resolvers
from vagrantp_guard.system import (
    Refused,
    in_background,
    locked,
    read,
    run,
    watchers_file,
    watchers_lock,
)
from vagrantp_guard.tables import ask_again, inside_problems, load, load_inside, lost

WATCH_PAUSE = 30_000  # milliseconds after which the rules are looked at in any case
SETTLE = 0.05  # seconds in which one change is followed by more
RETRY = 1.0  # seconds after which a failed look at the rules is repeated
STOPPED_WITHIN = 5.0  # seconds that the process which watches has for its end
NETFILTER = 12  # netlink(7)'s family; Python has no name for it
# Its groups, as bind(2) takes them: linux/netfilter/nfnetlink.h, linux/rtnetlink.h.
OF_NFTABLES = 0x40
OF_LINKS, OF_ADDRESSES, OF_ROUTES, OF_RULES = 0x1, 0x10, 0x40, 0x80


UNIT_TRIES = 5
UNIT = Path("/etc/systemd/system/vagrantp-watch.service")
SYSTEMD = Path("/run/systemd/system")  # where it is PID 1: sd_booted(3)


def watch_host() -> None:
    """Have a process that watches while guests run, and wait until it holds the second wall.

    Whatever flushes nftables, such as a firewall that loads its own settings, does not know our
    rules. systemd runs it, and runs it again; without systemd another process stands by.
    Raises Refused.
    """
    with locked():  # not while `check` looks at it
        is_needed = bool(guests())
        lock = watchers_lock() if is_needed else None
    if not is_needed:
        return
    if lock and _is_unit():
        lock.close()
        with suppress(Refused):
            for _ in range(UNIT_TRIES):  # one that is just ending is not started again by the first
                run("systemctl", "--no-block", "start", UNIT.name)
                with suppress(Refused):
                    return held.ask(held.SECONDS / UNIT_TRIES)
        lock = watchers_lock()
    if lock and in_background():
        _leave(lock)
    if lock:
        lock.close()
    held.ask()


def watch() -> bool:
    """Watch while guests run, in the foreground; return False if it ended before they did."""
    lock = None
    if RUN.is_dir():
        with locked():
            lock = watchers_lock() if guests() else None
    return Watcher(lock, has_standby=False).run() if lock else True


def stop() -> None:
    """End the process that watches, and wait until it has ended."""
    if _is_unit():
        run("systemctl", "stop", UNIT.name, check=False)
    until = monotonic() + STOPPED_WITHIN
    while not (lock := watchers_lock()) and monotonic() < until:
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(read(RUN / "watch.lock")), signal.SIGTERM)
        sleep(0.05)
    if lock:
        lock.close()


def _is_unit() -> bool:
    return SYSTEMD.is_dir() and UNIT.exists()


def _leave(lock: TextIO) -> NoReturn:
    try:
        Watcher(lock, has_standby=True).run()
    finally:  # whatever happens, this process does nothing else
        os._exit(0)


class Watcher:
    """The process that watches. `lock`: held while it runs. `has_standby`: another stands by."""

    def __init__(self, lock: TextIO, *, has_standby: bool) -> None:
        self.lock = lock
        self.has_standby = has_standby
        self.standby: Standby | None = None
        self.poll = select.poll()
        self.links, self.wall, self.asks = Links(), Wall(), Asks(self._hold)
        routing = _listen(socket.NETLINK_ROUTE, OF_LINKS | OF_ADDRESSES | OF_ROUTES | OF_RULES)
        self.events = (_listen(NETFILTER, OF_NFTABLES), routing)
        for link in (*self.events, self.asks):
            self.poll.register(link, select.POLLIN)
        self.resolvers = Resolvers(self.poll)
        self.listener = Listener(self.poll, lambda leases: load(new=leases))
        self.must_ask = False

    def run(self) -> bool:
        """Watch until the last guest has ended."""
        signal.signal(signal.SIGTERM, self._end)
        with suppress(OSError):
            (RUN / "watch.lock").write_text(str(os.getpid()), encoding="utf-8")
        while RUN.is_dir():
            self._have_standby()
            try:
                if not self._keep_rules():
                    return True
            except Exception:  # somebody else's change, no room, or a bug: try again soon
                self.asks.serve(RETRY)
                continue
            ready = self._wait()
            if self.asks.fileno() in ready:
                self.asks.answer()
            has_ended = self.standby and self.standby.pidfd in ready
            if self.resolvers.forget(ready) or self.listener.has_ended or has_ended:
                self.asks.serve(RETRY)
            self.asks.serve(SETTLE)
            for link in self.events:
                _drain(link)
        return True

    def _wait(self) -> dict[int, int]:
        """Return what is ready, at the latest after WATCH_PAUSE; do what the listener says."""
        until = monotonic() + (RETRY if self.listener.has_ended else WATCH_PAUSE / 1000)
        while True:
            ready = dict(self.poll.poll(max(0, 1000 * (until - monotonic()))))
            if not self.listener.is_ready(ready):
                return ready
            try:
                with locked():
                    self.listener.hear()
            except Exception:  # _keep_rules tries it again
                return ready
            if len(ready) > 1 or self.listener.has_ended or monotonic() >= until:
                return ready

    def _keep_rules(self) -> bool:
        """Put back lost rules, the second wall, the resolvers, and what hears DHCP.

        Return False, with the lock released, when the last guest has ended. Where rules cannot be
        loaded, guests lose their links until they are.
        """
        is_standing = False
        try:
            with locked():
                ended = [guest for guest in guests() if not _runs(guest)]
                for guest in ended:  # a container that failed to start has no hook for its end
                    record_of(guest.name).unlink()
                known = guests()
                self.links.know(known)
                is_reloaded = bool(ended or (known and lost()))
                if is_reloaded:
                    load()
                if known:
                    self.wall.hold(known)
                self.links.restore()
                is_standing = True
                self.must_ask |= is_reloaded
                self.resolvers.keep()
                self.must_ask |= self.listener.keep()
                if not known:
                    self.lock.close()  # before another guest can start, and rely on it
                    return False
                self.asks.open()
                with suppress(Refused):  # last, as it waits for others
                    forwarding.keep()
        except Exception as error:
            if not is_standing:
                self.links.cut(str(error))
            raise
        if self.must_ask:
            ask_again()  # a lease that was given while there were no rules is not known
            self.must_ask = False
        return True

    def _hold(self) -> None:
        with locked():
            self.wall.hold(filter(_runs, guests()))

    def _have_standby(self) -> None:
        """Have a process that takes over when this one ends, however it does."""
        if self.standby and not self.standby.is_running():
            self.poll.unregister(self.standby.pidfd)
            os.close(self.standby.pidfd)
            self.standby = None
        if self.has_standby and not self.standby:
            with suppress(OSError):  # there is no room: later
                pid = os.fork()
                if pid == 0:
                    self._stand_by()
                try:
                    self.standby = Standby(pid, os.pidfd_open(pid))
                except OSError:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise
                self.poll.register(self.standby.pidfd, select.POLLIN)

    def _stand_by(self) -> NoReturn:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            for link in (self.lock, *self.events, self.asks.socket, self.links.socket):
                link.close()
            self.wall.close()
            self.listener.let_go()
            with watchers_file() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _is_needed(lock):
                    _leave(lock)
        finally:
            os._exit(0)

    def _end(self, *_: object) -> NoReturn:
        if self.standby and self.standby.is_running():
            os.kill(self.standby.pid, signal.SIGKILL)
        raise SystemExit(1)


class Standby(NamedTuple):
    """The process that stands by. `pidfd` can be read when it has ended."""

    pid: int
    pidfd: int

    def is_running(self) -> bool:
        """Say whether it runs; if not, it is not waited for any more."""
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG) is None


def _is_needed(lock: TextIO) -> bool:
    """Say whether guests run, and these are what the lock is for; release it if not."""
    with suppress(FileNotFoundError):
        is_current = os.path.samestat(os.fstat(lock.fileno()), (RUN / "watch.lock").stat())
        with locked():
            if is_current and guests():
                return True
            lock.close()
    return False


def _runs(guest: Guest) -> bool:
    return guest.pid is None or Path(f"/proc/{guest.pid}").exists()


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
