"""System calls of a child process that this process answers: seccomp_unotify(2), by ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL, EIO, ENOENT
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE = os.sysconf("SC_PAGESIZE")
# linux/seccomp.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_RECEIVE, _SEND, _ADD_FD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40182103, 0x40082104
_PART = struct.Struct("PN")  # iovec(3type)
_ASKED, _ANSWER, _FD = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI"), struct.Struct("QIIII")
_CONTINUE, _AT_NUMBER, _AND_ANSWER = 1, 1, 2
_OPENAT2, _NO_SYMLINKS_BENEATH = 437, 0x04 | 0x08
_FOLDER = struct.pack("QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _NO_SYMLINKS_BENEATH)
_PDEATHSIG, _SIGKILL = 1, 9


class Continue(Exception):
    """The call goes on as if nobody had been asked."""


class Fd(int):
    """The answer to open(2): a copy of this open file, under a number of its own or `at`."""

    at: int | None = None


class Call(NamedTuple):
    """A call that waits for its answer: its number, its arguments, and who makes it."""

    pid: int
    number: int
    arguments: tuple[int, ...]


def child(argv: list[str], program: bytes) -> tuple[int, int]:
    """Start `argv` under a filter. Return the descriptors of its calls, and of the process.

    It ends when this process does. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _libc.prctl(_PDEATHSIG, _SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            socket.send_fds(theirs, [b"\0"], [_filter(program)])
            theirs.recv(1)
            os.execvp(argv[0], argv)
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        _, fds, *_ = socket.recv_fds(ours, 1, 1)
        if not fds:
            raise OSError(EINVAL, "no seccomp(2) with user notification")
        probe = ctypes.create_string_buffer(b"readable")  # at the same address in a fork's memory
        if read_memory(pid, ctypes.addressof(probe), 4) == b"":
            raise OSError(EIO, "process_vm_readv(2) is closed: kernel.yama.ptrace_scope above 1")
        ours.send(b"\0")
    return int(fds[0]), os.pidfd_open(pid)


def _filter(program: bytes) -> int:
    """Load a filter for this process; return the descriptor of its listener."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    number = _SECCOMP[os.uname().machine]
    found = _libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, head)
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp(2)")
    return int(found)


def answer_all(listener: int, process: int, answer: Callable[[Call], int]) -> None:
    """Answer calls until the process that `child` started has ended.

    `answer`: what the call returns; Fd opens a file in the caller; OSError is its errno.
    """
    with suppress(OSError):  # Linux 6.6: both run on one processor, one after the other
        fcntl.ioctl(listener, _SET_FLAGS, 1)
    events = select.poll()
    for each in (listener, process):  # on older kernels, `listener` ends only once we waited for it
        events.register(each, select.POLLIN)
    asked, empty = bytearray(_ASKED.size), bytes(_ASKED.size)
    gc.freeze()  # what is there now stays
    while (listener, select.POLLIN) in events.poll():
        asked[:] = empty
        try:
            fcntl.ioctl(listener, _RECEIVE, asked, True)
            identity, pid, _, number, _, _, *arguments = _ASKED.unpack(asked)
            _reply(listener, identity, answer, Call(pid, number, tuple(arguments)))
        except OSError as error:
            if error.errno != ENOENT:  # whoever asked has ended
                raise


def _reply(listener: int, identity: int, answer: Callable[[Call], int], call: Call) -> None:
    value = errno = flags = 0
    try:
        found = answer(call)
        if isinstance(found, Fd):
            try:
                how = _AND_ANSWER if found.at is None else _AT_NUMBER | _AND_ANSWER
                fcntl.ioctl(listener, _ADD_FD, _FD.pack(identity, how, found, found.at or 0, 0))
            finally:
                os.close(found)
            return
        value = found
    except Continue:
        flags = _CONTINUE
    except OSError as error:
        errno = -(error.errno or EIO)
    except Exception:  # nothing that a guest does ends this process
        errno = -EIO
    fcntl.ioctl(listener, _SEND, _ANSWER.pack(identity, value, errno, flags))


class _Reader:
    """Reads so many bytes of another process's memory; less where that ends."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.buffer = ctypes.create_string_buffer(size)
        self.ours = _PART.pack(ctypes.addressof(self.buffer), size)

    def __call__(self, pid: int, start: int) -> bytes:
        """Return what is at an address."""
        done = min(self.size, _PAGE - start % _PAGE)
        theirs, pages = _PART.pack(start, done), 1
        while done < self.size:  # of pages some may be there, of a part of this call all or none
            part = min(_PAGE, self.size - done)
            theirs += _PART.pack(start + done, part)
            done, pages = done + part, pages + 1
        read = _libc.process_vm_readv(pid, self.ours, 1, theirs, pages, 0)
        return self.buffer.raw[: max(read, 0)]


read_short, read_long = _Reader(256), _Reader(4096)  # the second: PATH_MAX


def read_memory(pid: int, start: int, size: int) -> bytes:
    """Return what another process has at an address; less where its memory ends."""
    return _Reader(size)(pid, start)


def write_memory(pid: int, start: int, content: bytes) -> None:
    """Write into the memory of another process. Raises OSError."""
    buffer = ctypes.create_string_buffer(content, len(content))
    ours = _PART.pack(ctypes.addressof(buffer), len(content))
    theirs = _PART.pack(start, len(content))
    if _libc.process_vm_writev(pid, ours, 1, theirs, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_writev(2)")


def open_folder(root: int, path: bytes) -> int:
    """Open a folder below `root` that no symbolic link leads to. Raises OSError."""
    found = _libc.syscall(_OPENAT2, root, path, _FOLDER, len(_FOLDER))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.fsdecode(path))
    return int(found)


def lstat_bytes(folder: int, name: bytes) -> bytes:
    """Return the kernel's `struct stat` of a name in a folder. Raises OSError."""
    buffer = ctypes.create_string_buffer({"x86_64": 144, "aarch64": 128}[os.uname().machine])
    if _libc.fstatat(folder, name, buffer, 0x100) < 0:  # AT_SYMLINK_NOFOLLOW
        raise OSError(ctypes.get_errno(), os.fsdecode(name))
    return buffer.raw
