"""The second wall in force: the watcher holds it, hooks ask for it and wait.

Its tables belong to one socket, which libnftables(3) keeps open in the watcher. So no flush of
nftables takes them away; they end with the watcher.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from time import monotonic, sleep
from typing import TYPE_CHECKING

from vagrantp_guard.contract import BRIDGES, RUN, Guest
from vagrantp_guard.held_ruleset import TABLES, held_rules, replacing
from vagrantp_guard.system import Refused, read, run, write

if TYPE_CHECKING:
    import ctypes

LIBRARY = "libnftables.so.1"  # what nft(8) itself is made of
LINUX = (5, 12)  # which has tables with an owner
SOCKET = RUN / "watch.sock"
ONE_WALL = RUN / "one-wall"  # why this host has no second one
HELD = "held"  # the watcher's answer
GONE = "the second wall, which a flush of nftables leaves, is not there"
SECONDS = 10.0  # that an answer may take, with the start of the watcher


class Wall:
    """The second wall, which is there as long as this is."""

    def __init__(self) -> None:
        self.ports: set[str] | None = None
        self.is_open = False

    def hold(self, guests: Iterable[Guest]) -> None:
        """Have the wall hold these guests. Raises Refused where this host could, and it failed."""
        ports = {g.nic.port for g in guests if g.nic.bridge == BRIDGES["container"]}
        if ports == self.ports:
            return
        if why := self.why_not:
            write(ONE_WALL, why)
        else:
            ONE_WALL.unlink(missing_ok=True)
            self._run(replacing(held_rules(sorted(ports))))
        self.ports = ports

    @cached_property
    def why_not(self) -> str:
        """Return why this host cannot have it, "" where it can."""
        release = re.match(r"(\d+)\.(\d+)", os.uname().release)
        if release and tuple(map(int, release.groups())) < LINUX:
            return f"Linux {release[0]} has no tables with an owner, which 5.12 has"
        try:
            _ = self._library
        except OSError as error:
            return str(error)
        return ""

    @cached_property
    def _library(self) -> ctypes.CDLL:
        import ctypes  # takes a while, and only the watcher needs it

        made = ctypes.CDLL(LIBRARY)
        made.nft_ctx_new.restype = ctypes.c_void_p
        made.nft_ctx_new.argtypes = [ctypes.c_uint32]
        made.nft_ctx_free.argtypes = [ctypes.c_void_p]
        made.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        made.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        made.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        made.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        return made

    @cached_property
    def _context(self) -> int:
        made: int | None = self._library.nft_ctx_new(0)
        if not made:
            raise Refused("libnftables has no room")
        self._library.nft_ctx_buffer_error(made)
        self.is_open = True
        return made

    def _run(self, text: str) -> None:
        if self._library.nft_run_cmd_from_buffer(self._context, text.encode()):
            said = self._library.nft_ctx_get_error_buffer(self._context).decode().splitlines()
            raise Refused(f"the second wall: {(*said, 'it failed')[0]}")

    def close(self) -> None:
        """Let go of it, so that it ends."""
        if self.is_open:
            self._library.nft_ctx_free(self._context)
            self.is_open = False


class Asks:
    """The watcher's socket, at which hooks ask. `answer`: does what they ask for, or raises."""

    def __init__(self, answer: Callable[[], None]) -> None:
        self.answer_with = answer
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.is_open = False

    def open(self) -> None:
        """Be there to be asked. Raises OSError where there is no room for that."""
        if self.is_open:
            return
        SOCKET.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self.socket.bind(str(SOCKET))
        finally:
            os.umask(before)
        self.socket.listen(128)
        self.is_open = True

    def fileno(self) -> int:
        """Return what poll(2) waits for."""
        return self.socket.fileno()

    def answer(self) -> None:
        """Answer all who have asked."""
        while True:
            try:
                asker, _ = self.socket.accept()
            except BlockingIOError:
                return
            except OSError:  # there is no room: they go on waiting
                return sleep(0.05)
            with asker, suppress(OSError):  # who does not wait any more
                asker.send(self._said().encode())

    def _said(self) -> str:
        try:
            self.answer_with()
        except Exception as error:
            return str(error)
        return HELD

    def serve(self, seconds: float) -> None:
        """Answer whoever asks, for so long."""
        until = monotonic() + seconds
        while (rest := until - monotonic()) > 0:
            if select.select([self] if self.is_open else [], [], [], rest)[0]:
                self.answer()


def ask(seconds: float = SECONDS) -> None:
    """Have the watcher hold the second wall for all guests. Raises Refused if it does not."""
    until = monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            try:
                link.settimeout(max(0.1, until - monotonic()))
                link.connect(str(SOCKET))
                said = link.recv(4096).decode()
            except (FileNotFoundError, ConnectionError):
                said = ""  # there is no watcher, it begins, or it has just ended
            except OSError as error:
                raise Refused(f"what watches the rules does not answer: {error}") from None
        if said == HELD:
            return
        if said:
            raise Refused(said)
        if monotonic() > until:
            raise Refused("nothing watches the rules, or it is of an older version: make setup")
        sleep(0.02)


def problem(guests: Iterable[Guest]) -> str:
    """Return what is wrong with the second wall, "" where it holds these guests, by its rules."""
    if one_wall():
        return ""
    family, name = TABLES[0]
    live = run("nft", "list", "set", family, name, "ports", check=False)
    wanted = (f'"{g.nic.port}"' for g in guests if g.nic.bridge == BRIDGES["container"])
    return "" if live and all(port in live for port in wanted) else GONE


def one_wall() -> str:
    """Return why this host has one wall only, "" where it has two or no guest."""
    return read(ONE_WALL)
