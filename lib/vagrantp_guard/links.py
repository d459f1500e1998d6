"""Guests' links on this host: down while their rules cannot be loaded."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

from vagrantp_guard.contract import RUN, Guest
from vagrantp_guard.system import read, write

CUT = RUN / "cut"  # the links that are down, and why
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1  # of netdevice(7)
_REQUEST = struct.Struct("16sH22x")


class Links:
    """Takes links down with what is open already: there may be no room for a file or a process."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.known: set[str] = set()
        self.cut_ones: set[str] = {*_recorded().get("ports", [])}

    def know(self, guests: Iterable[Guest]) -> None:
        """Remember whose links there are."""
        self.known = {port for guest in guests for port in ports_of(guest)}

    def cut(self, why: str) -> None:
        """Take all links down, and record why as far as that can be done."""
        for port in self.known:
            if self._set(port, up=False):
                self.cut_ones.add(port)
        with suppress(OSError):
            write(CUT, json.dumps({"why": why, "ports": sorted(self.cut_ones)}))

    def restore(self) -> None:
        """Put up again those that were taken down. Raises OSError where that is not recorded."""
        for port in self.cut_ones:
            self._set(port, up=True)
        self.cut_ones.clear()
        CUT.unlink(missing_ok=True)

    def _set(self, port: str, *, up: bool) -> bool:
        """Put a link up or take it down; return False where it was so, or is not there."""
        with suppress(OSError):  # its guest has just ended
            asked = fcntl.ioctl(self.socket, GET_FLAGS, _REQUEST.pack(port.encode(), 0))
            flags = _REQUEST.unpack(asked)[1]
            wanted = flags | UP if up else flags & ~UP
            fcntl.ioctl(self.socket, SET_FLAGS, _REQUEST.pack(port.encode(), wanted))
            return bool(wanted != flags)
        return False


def ports_of(guest: Guest) -> list[str]:
    """Return the names on this host of a guest's network cards."""
    lan = guest.policy.lan
    return [guest.nic.port, *([lan.port] if lan else [])]


def put_up(guests: Iterable[Guest]) -> None:
    """Put all links of these guests up, whose rules have just been loaded."""
    links = Links()
    links.cut_ones |= {port for guest in guests for port in ports_of(guest)}
    links.restore()


def problem() -> str:
    """Return why guests have no network, "" where they have."""
    found = _recorded()
    return f"guests have no network, as rules cannot be loaded: {found['why']}" if found else ""


def _recorded() -> dict[str, list[str]]:
    with suppress(OSError, ValueError):
        found: dict[str, list[str]] = json.loads(read(CUT) or "{}")
        return found
    return {}
