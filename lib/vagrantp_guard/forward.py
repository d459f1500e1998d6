#!/usr/bin/env python3
"""Forwards ports of this host to a guest, for as long as the guest runs.

`forward.py SPEC` returns once it has bound every port that the JSON file SPEC names. A process in
the background serves them until SIGTERM, or until the guest's process `pid` ends, however that
happens: whoever gets the guest's address next is never reached. SPEC, here with all its keys:

    {"target": "10.201.0.5", "pid": 1234, "netns": null, "ssh": ["ssh", "guest"],
     "forwards": [{"address": "127.0.0.1", "host": 8080, "guest": 80, "protocol": "tcp"}]}

What `target` refuses by tcp goes to the guest's loopback. With `netns`, the path of the network
namespace of `pid`, both are in there, while the ports are those of the namespace that it was
started in. Without, `ssh -W` leads to the loopback: `ssh` is its argv, run in SPEC's folder, with
`pid` for `{pid}`; null or absent: nothing leads there.

`forwards.lock` beside SPEC has the process id, and is locked (fcntl(2), open file description
locks) while that process lives.

Exit status: 0, it serves; 1, it does not, stderr says why; 3, another one serves this SPEC.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))
from vagrantp_guard import carry

WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock
CLONE_NEWNET = 0x40000000  # linux/sched.h
STACK = 256 * 1024  # bytes of a thread's
LOOPBACKS = ("127.0.0.1", "::1")


class Busy(Exception):
    """Another process serves this SPEC."""


def main() -> int:
    """Start to serve, or say why not; return the exit status."""
    _close_inherited()
    for number in (signal.SIGTERM, signal.SIGINT):  # they end it at once, without a traceback
        signal.signal(number, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("spec", type=Path, metavar="SPEC")
    parser.add_argument("--pid", type=int, help="in place of the one in SPEC")
    parser.add_argument("--netns", help="in place of the one in SPEC")
    parser.add_argument("--target", help="in place of the one in SPEC")
    options = vars(parser.parse_args())
    try:
        start(options.pop("spec"), {k: v for k, v in options.items() if v is not None})
    except Busy as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError, TypeError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def start(path: Path, options: dict[str, Any]) -> None:
    """Serve what the file `path` says, but for `options`, in a process in the background.

    Raises Busy when another process serves it; OSError, ValueError, TypeError or KeyError when a
    forward cannot be served or SPEC is wrong.
    """
    folder = path.resolve().parent
    facts = folder.stat()
    if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} must belong to who forwards, and others must not write it")
    spec = json.loads(path.read_bytes()) | options
    if not spec["forwards"]:
        return
    lock = _locked(path.with_name("forwards.lock"))
    services = [_service(forward, folder, spec) for forward in spec["forwards"]]
    guest = os.pidfd_open(spec["pid"])
    if spec["netns"]:
        _enter(spec["netns"], spec["pid"])
    if _has_ended(guest, timeout=0):  # then the namespace, too, may be that of another process
        raise ProcessLookupError(f"process {spec['pid']} has ended")
    if _detach(lock):
        return
    threading.stack_size(STACK)
    for service in services:
        threading.Thread(target=service, daemon=True).start()
    _has_ended(guest)
    os._exit(0)


def _service(forward: dict[str, Any], folder: Path, spec: dict[str, Any]) -> Callable[[], None]:
    """Bind a forward of `spec`, whose file is in `folder`; return the function that serves it."""
    address, port, protocol = forward["address"], forward["host"], forward["protocol"]
    try:
        bound = carry.listener(address, port, protocol)
    except OSError as error:
        shown = f"[{address}]" if ":" in address else address
        raise OSError(f"{shown}:{port}/{protocol}: {error.strerror}") from None
    target, guest = spec["target"], forward["guest"]
    if protocol == "udp":
        return partial(
            carry.serve_udp, bound, partial(carry.dial, socket.SOCK_DGRAM, [target], guest)
        )
    targets, by_ssh = [target], None
    if spec["netns"]:
        targets += LOOPBACKS
    elif argv := spec.get("ssh"):
        argv = [part.replace("{pid}", str(spec["pid"])) for part in argv]
        by_ssh = partial(carry.by_ssh, [*argv, "-W", f"localhost:{guest}"], folder)
    dial = partial(carry.dial, socket.SOCK_STREAM, targets, guest)
    return partial(carry.serve_tcp, bound, dial, by_ssh)


def _close_inherited() -> None:
    """Close what the caller left open: it may wait for the end of a hook's pipes."""
    for path in Path("/proc/self/fd").iterdir():
        if int(path.name) > 2:
            with suppress(OSError):  # the listing of the folder has ended, and closed it
                os.close(int(path.name))


def _locked(path: Path) -> int:
    """Return a descriptor of a file that is locked while it is open. Raises Busy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, WHOLE_FILE)
    except (BlockingIOError, PermissionError):
        raise Busy(f"process {os.pread(descriptor, 20, 0).decode().strip()} serves it") from None
    os.ftruncate(descriptor, 0)
    return descriptor


def _enter(netns: str, process: int) -> None:
    """Make every socket from now on in another network namespace: that of a process.

    Raises OSError, also where that is not the one at the path `netns`, or is this process's own.
    """
    from ctypes import CDLL, get_errno  # os.setns is there from Python 3.12 on

    descriptor = os.open(netns, os.O_RDONLY)
    own, its = (Path(f"/proc/{pid}/ns/net").stat() for pid in ("self", process))
    if not os.path.samestat(os.fstat(descriptor), its) or os.path.samestat(own, its):
        raise OSError(f"process {process} is not in {netns}")
    if CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(get_errno(), os.strerror(get_errno()), netns)
    os.close(descriptor)


def _has_ended(process: int, timeout: int | None = None) -> bool:
    """Wait for the end of a process, by its pidfd, at most `timeout` milliseconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout))


def _detach(lock: int) -> bool:
    """Fork: return True in this process, and False in a new one in the background."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection takes six
    child = os.fork()
    # both write it, so it is there when the one returns and while the other runs
    os.pwrite(lock, f"{child or os.getpid()}\n".encode(), 0)
    if child:
        return True
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    return False


if __name__ == "__main__":
    sys.exit(main())
