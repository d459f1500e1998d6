"""What a guest's processes may ask of the kernel: tries it, prints a JSON object of the answers.

Runs in the guest, on its own, by python3: root's and an ordinary user's.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import sys
from collections.abc import Callable
from functools import partial

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # man7.org, syscalls(2); from 424 on all processors have the same
    "x86_64": {
        **{"socket": 41, "socketpair": 53, "clone": 56, "ptrace": 101, "unshare": 272},
        **{"add_key": 248, "request_key": 249, "keyctl": 250, "setns": 308, "bpf": 321},
        **{"perf_event_open": 298, "userfaultfd": 323, "kcmp": 312},
    },
    "aarch64": {
        **{"socket": 198, "socketpair": 199, "clone": 220, "ptrace": 117, "unshare": 97},
        **{"add_key": 217, "request_key": 218, "keyctl": 219, "setns": 268, "bpf": 280},
        **{"perf_event_open": 241, "userfaultfd": 282, "kcmp": 272},
    },
}[platform.machine()] | {"io_uring_setup": 425, "clone3": 435}
SIGCHLD, STREAM, DGRAM, RAW = 17, 1, 2, 3
FLAGS = {
    **{"newtime": 0x80, "newns": 0x20000, "newcgroup": 1 << 25, "newuts": 1 << 26},
    **{"newipc": 1 << 27, "newuser": 1 << 28, "newpid": 1 << 29, "newnet": 1 << 30},
}
HIGH = 1 << 32  # the kernel does not look at the upper half of an int
ROOM = ctypes.create_string_buffer(128)


def clone_args(flags: int) -> bytes:
    return b"".join(n.to_bytes(8, sys.byteorder) for n in (flags, 0, 0, 0, SIGCHLD, 0, 0, 0))


TRIES: dict[str, tuple[str, *tuple[object, ...]]] = {
    **{f"unshare {name}": ("unshare", flag) for name, flag in FLAGS.items()},
    "unshare newuser, upper half set": ("unshare", FLAGS["newuser"] | HIGH << 3),
    "unshare files": ("unshare", 0x400),
    "clone newuser": ("clone", FLAGS["newuser"] | SIGCHLD, 0, 0, 0, 0),
    "clone newuser newnet": ("clone", FLAGS["newuser"] | FLAGS["newnet"] | SIGCHLD, 0, 0, 0, 0),
    "clone newuser, upper half set": ("clone", HIGH | FLAGS["newuser"] | SIGCHLD, 0, 0, 0, 0),
    "clone": ("clone", SIGCHLD, 0, 0, 0, 0),
    "clone3 newuser": ("clone3", clone_args(FLAGS["newuser"]), 64),
    "setns": ("setns", -1, 0),
    "add_key": ("add_key", b"user", b"vagrantp", b"x", 1, -2),
    "keyctl session": ("keyctl", 0, -3, 0),
    "keyctl user keyring": ("keyctl", 0, -4, 0),
    "request_key": ("request_key", b"user", b"vagrantp", 0, 0),
    "io_uring_setup": ("io_uring_setup", 1, ROOM),
    "bpf": ("bpf", 0, ROOM, 48),
    "perf_event_open": ("perf_event_open", ROOM, 0, -1, -1, 0),
    "userfaultfd": ("userfaultfd", 1),
    "kcmp": ("kcmp", 1, 1, 0, 0, 0),
    "unix stream": ("socket", 1, STREAM, 0),
    "inet stream": ("socket", 2, STREAM, 0),
    "inet udp": ("socket", 2, DGRAM, 17),
    "inet ping": ("socket", 2, DGRAM, 1),
    "inet raw": ("socket", 2, RAW, 1),
    "inet sctp": ("socket", 2, STREAM, 132),
    "inet dccp": ("socket", 2, 6, 33),
    "inet mptcp": ("socket", 2, STREAM, 262),
    "inet udplite": ("socket", 2, DGRAM, 136),
    "inet6 stream": ("socket", 10, STREAM, 0),
    "inet6 udplite": ("socket", 10, DGRAM, 136),
    "packet": ("socket", 17, RAW, 0x300),
    "vsock": ("socket", 40, STREAM, 0),
    "alg": ("socket", 38, 5, 0),
    "alg, upper half set": ("socket", HIGH | 38, 5, 0),
    "negative family": ("socket", -1, STREAM, 0),
    "netlink route": ("socket", 16, RAW, 0),
    "netlink sock_diag": ("socket", 16, RAW, 4),
    "netlink xfrm": ("socket", 16, RAW, 6),
    "netlink audit": ("socket", 16, RAW, 9),
    "netlink netfilter": ("socket", 16, RAW, 12),
    "netlink netfilter, upper half set": ("socket", 16, RAW, HIGH | 12),
    "netlink uevent": ("socket", 16, RAW, 15),
    "netlink generic": ("socket", 16, RAW, 16),
    "netlink crypto": ("socket", 16, RAW, 21),
    "bluetooth": ("socket", 31, RAW, 1),
    "tipc": ("socket", 30, STREAM, 0),
    "xdp": ("socket", 44, RAW, 0),
    "rxrpc": ("socket", 33, DGRAM, 2),
    "smc": ("socket", 43, STREAM, 0),
    "appletalk": ("socket", 5, DGRAM, 0),
    "unix pair": ("socketpair", 1, STREAM, 0, ROOM),
    "tipc pair": ("socketpair", 30, STREAM, 0, ROOM),
    "ptrace": ("ptrace", 0, 0, 0, 0),
}
# Code of a process of its own: its system calls are those of other kinds of processors.
INT_80 = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
X32 = b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"  # mov eax, 0x40000000 | 39 (getpid); syscall; ret


def call(name: str, *arguments: object) -> int:
    """Return what a system call returns, or its negative error number."""
    numbers = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    returned = int(LIBC.syscall(ctypes.c_long(NUMBERS[name]), *numbers))
    return -ctypes.get_errno() if returned == -1 else returned


def code(program: bytes) -> int:
    """Run machine code, and return its result."""
    place = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    place.write(program)
    address = ctypes.addressof(ctypes.c_char.from_buffer(place))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


def tried(job: Callable[[], int]) -> str:
    """Return how a job ends in a process of its own: `ok`, an error's name, or the signal."""
    child = os.fork()
    if child == 0:
        parent = os.getpid()
        returned = job()
        if os.getpid() != parent:  # clone(2) has made another
            os._exit(0)
        os._exit(min(-returned, 255) if returned < 0 else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    number = os.WEXITSTATUS(status)
    return errno.errorcode.get(number, str(number)) if number else "ok"


def main() -> None:
    found = {name: tried(partial(call, *asked)) for name, asked in TRIES.items()}
    if platform.machine() == "x86_64":
        found |= {"int 0x80": tried(partial(code, INT_80)), "x32": tried(partial(code, X32))}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
