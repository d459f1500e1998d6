"""Filters of seccomp(2) for bindfs(1), by the kind of processor. Pure."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from enum import IntEnum
from errno import ENOSYS, EPERM

from vagrantp_guard.system import Refused

# man7.org, syscalls(2); linux/audit.h
PROCESSORS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": {
        **{"lstat": 6, "stat": 4, "newfstatat": 262, "statx": 332, "open": 2, "openat": 257},
        **{"creat": 85, "mkdir": 83, "mkdirat": 258, "mknod": 133, "mknodat": 259, "symlink": 88},
        **{"symlinkat": 266, "link": 86, "linkat": 265, "unlink": 87, "unlinkat": 263, "rmdir": 84},
        **{"rename": 82, "renameat": 264, "renameat2": 316, "chmod": 90, "fchmod": 91},
        **{"fchmodat": 268, "fchmodat2": 452, "truncate": 76, "ftruncate": 77, "pwrite64": 18},
        **{"readlink": 89, "readlinkat": 267, "openat2": 437, "io_uring_setup": 425},
    },
    "aarch64": {
        **{"newfstatat": 79, "statx": 291, "openat": 56, "mkdirat": 34, "mknodat": 33},
        **{"symlinkat": 36, "linkat": 37, "unlinkat": 35, "renameat": 38, "renameat2": 276},
        **{"fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "truncate": 45, "ftruncate": 46},
        **{"pwrite64": 68, "readlinkat": 78, "openat2": 437, "io_uring_setup": 425},
    },
}
SETS_MODE = {"chmod": 1, "fchmod": 1, "mknod": 1, "mknodat": 2, "fchmodat": 2, "fchmodat2": 2}
CHANGES = (
    *("mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "link", "linkat", "unlink"),
    *("unlinkat", "rmdir", "rename", "renameat", "renameat2"),
    *("chmod", "fchmodat", "fchmodat2", "truncate"),
)
READS = ("lstat", "stat", "newfstatat", "readlink", "readlinkat")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)


class Action(IntEnum):
    """What the kernel answers a system call with; seccomp(2)."""

    ALLOW = 0x7FFF0000
    NOTIFY = 0x7FC00000
    REFUSE = 0x00050000 | EPERM
    UNKNOWN = 0x00050000 | ENOSYS
    KILL = 0x80000000


@dataclass(frozen=True)
class Match:
    """A call by name: where its argument has one of `bits`, or is at `least` that number."""

    call: str
    action: Action
    argument: int = 0
    bits: int = 0
    least: int = 0


def no_setuid() -> list[Match]:
    """Return what lets no file become setuid or setgid.

    Like systemd's RestrictSUIDSGID, but without open(2) and mkdir(2): bindfs passes no such bits.
    """
    bits = stat.S_ISUID | stat.S_ISGID
    return [Match(call, Action.REFUSE, at, bits) for call, at in SETS_MODE.items()]


def supervised(vetted: int, hides: bool) -> list[Match]:
    """Return what asks a supervisor for each change of names, and each file opened to be written.

    `vetted`: from this number on, descriptors are written by the supervisor. `hides`: it is asked
    for what is read, too.
    """
    notify = Action.NOTIFY
    opens = [("open", 1), ("openat", 2)]
    return [
        *(Match(call, Action.UNKNOWN) for call in ("openat2", "creat", "io_uring_setup")),
        *(Match(call, notify, at, 0 if hides else WRITES) for call, at in opens),
        *(Match(call, notify) for call in CHANGES),
        *(Match(call, notify, least=vetted) for call in ("pwrite64", "ftruncate")),
        *((Match(call, notify) for call in READS) if hides else ()),
        *([Match("statx", Action.UNKNOWN)] if hides else ()),
    ]


def program(machine: str, matches: list[Match]) -> bytes:
    """Return a filter: the first of `matches` counts, else the call is allowed. Raises Refused.

    Each instruction: code, jumps if true and if false, value; a call is its number at 0, the kind
    of processor at 4, and from 16 on its arguments of 8 bytes.
    """
    if machine not in CALLS:
        raise Refused(f"MOUNT is not known on {machine} processors")
    load, equals, at_least, has_bits, end = 0x20, 0x15, 0x35, 0x45, 0x06
    found = [(load, 0, 0, 4), (equals, 1, 0, PROCESSORS[machine]), (end, 0, 0, Action.KILL)]
    for match in matches:
        number = CALLS[machine].get(match.call)
        if number is None:
            continue
        test: list[tuple[int, int, int, int]] = []
        if match.bits or match.least:
            code, value = (has_bits, match.bits) if match.bits else (at_least, match.least)
            test = [(load, 0, 0, 16 + 8 * match.argument), (code, 0, 1, value)]
        found += [(load, 0, 0, 0), (equals, 0, len(test) + 1, number), *test]
        found += [(end, 0, 0, match.action)]
    return b"".join(struct.pack("HBBI", *each) for each in [*found, (end, 0, 0, Action.ALLOW)])
