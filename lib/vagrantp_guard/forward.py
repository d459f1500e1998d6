#!/usr/bin/env python3
"""Forwards ports of this host to a guest, for as long as the guest runs.

`forward.py SPEC` returns once it has bound every port that the JSON file SPEC names. A process in
the background serves them until SIGTERM, or until the guest's process `pid` ends, however that
happens: whoever gets the guest's address next is never reached. SPEC, here with all its keys:

    {"target": "10.201.0.5", "pid": 1234, "netns": null,
     "forwards": [{"address": "127.0.0.1", "host": 8080, "guest": 80, "protocol": "tcp"}]}

With `netns`, the path of a network namespace, `target` is dialled in there, while the ports are
those of the namespace that it was started in. `forwards.lock` beside SPEC has the process id, and
is locked (fcntl(2), open file description locks) while that process lives.

Exit status: 0, it serves; 1, it does not, stderr says why; 3, another one serves this SPEC.

It needs Python 3.10 or newer, and no other module of vagrantp: it may be installed alone.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock
CLONE_NEWNET = 0x40000000  # linux/sched.h
IP_PKTINFO = 8  # linux/in.h; Python has no name for it
RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) sends a reset
BACKLOG = 1024  # connections that wait until they are accepted
CHUNK = 1024 * 1024  # bytes of a pipe
DATAGRAM = 65535  # bytes, at most
STACK = 256 * 1024  # bytes of a thread's
DIAL_TIMEOUT = 10.0  # seconds
IDLE = 120.0  # seconds without a datagram until a client is forgotten
PAUSE = 0.1  # seconds until another try, when descriptors, memory or threads have run out

Dial = Callable[[], socket.socket]


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
    spec = json.loads(path.read_bytes()) | options
    if not spec["forwards"]:
        return
    lock = _locked(path.with_name("forwards.lock"))
    services = [_service(forward, spec["target"]) for forward in spec["forwards"]]
    guest = os.pidfd_open(spec["pid"])
    if spec["netns"]:
        _enter(spec["netns"])
    if _has_ended(guest, timeout=0):  # then the namespace, too, may be that of another process
        raise ProcessLookupError(f"process {spec['pid']} has ended")
    if _detach(lock):
        return
    threading.stack_size(STACK)
    for service in services:
        threading.Thread(target=service, daemon=True).start()
    _has_ended(guest)
    os._exit(0)


def listener(address: str, port: int, protocol: str) -> socket.socket:
    """Return a socket that is bound to a port of this host, and listens. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    is_tcp = protocol == "tcp"
    bound = socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_tcp:  # what was connected a moment ago keeps nobody from a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        bound.bind((address, port))
        if is_tcp:
            bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def serve_tcp(bound: socket.socket, dial: Dial) -> None:
    """Accept connections of a port for ever, and carry each of them to the guest."""
    while True:
        try:
            client, _ = bound.accept()
            threading.Thread(target=_connect, args=(client, dial), daemon=True).start()
        except (OSError, RuntimeError):  # those who connect wait
            time.sleep(PAUSE)


def serve_udp(bound: socket.socket, dial: Dial) -> None:
    """Carry datagrams of a port for ever: to the guest, and from there back.

    Each client has its own socket towards the guest, which tells its answers from those for others.
    A client is known by its address and by the address of this host that it talks to.
    """
    clients: dict[Any, tuple[socket.socket, float]] = {}  # the longest idle one comes first
    with selectors.DefaultSelector() as selector:
        selector.register(bound, selectors.EVENT_READ)
        while True:
            timeout = None
            while clients:
                client, (guest, last) = next(iter(clients.items()))
                if (timeout := last + IDLE - time.monotonic()) > 0:
                    break
                del clients[client]
                selector.unregister(guest)
                guest.close()
                timeout = None
            for key, _ in selector.select(timeout):
                with suppress(OSError):  # a datagram may be lost
                    if client := key.data:
                        guest, _ = clients.pop(client)
                        clients[client] = guest, time.monotonic()
                        address, *local = client
                        answer = guest.recv(DATAGRAM, socket.MSG_DONTWAIT)
                        bound.sendmsg([answer], local, 0, address)
                        continue
                    data, local, _, address = bound.recvmsg(DATAGRAM, 64, socket.MSG_DONTWAIT)
                    client = (address, *local)
                    if client in clients:
                        guest, _ = clients.pop(client)
                    else:
                        guest = dial()
                        selector.register(guest, selectors.EVENT_READ, client)
                    clients[client] = guest, time.monotonic()
                    guest.send(data)


def _service(forward: dict[str, Any], target: str) -> Callable[[], None]:
    """Bind a forward; return the function that serves it."""
    address, port, protocol = forward["address"], forward["host"], forward["protocol"]
    try:
        bound = listener(address, port, protocol)
    except OSError as error:
        shown = f"[{address}]" if ":" in address else address
        raise OSError(f"{shown}:{port}/{protocol}: {error.strerror}") from None
    is_tcp = protocol == "tcp"
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    return partial(
        serve_tcp if is_tcp else serve_udp, bound, partial(_dial, kind, target, forward["guest"])
    )


def _dial(kind: socket.SocketKind, target: str, port: int) -> socket.socket:
    """Return a socket that is connected to the guest. Raises OSError."""
    guest = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind)
    try:
        guest.settimeout(DIAL_TIMEOUT)
        guest.connect((target, port))
        guest.settimeout(None)
    except OSError:
        guest.close()
        raise
    return guest


def _connect(client: socket.socket, dial: Dial) -> None:
    """Carry one connection, both ways, until both ends have closed it or one is broken."""
    with client:
        try:
            guest = dial()
        except OSError:
            return _break(client)
        with guest:
            for end in (client, guest):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_carry, args=(guest, client), daemon=True)
            try:
                back.start()
            except RuntimeError:
                return _break(client, guest)
            _carry(client, guest)
            back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes one way, within the kernel, until they end; then pass that on."""
    try:
        reader, writer = os.pipe()
    except OSError:
        return _break(source, sink)
    try:
        with suppress(OSError):  # an ordinary user's pipes stay small when there are many
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CHUNK)
        while count := os.splice(source.fileno(), writer, CHUNK):
            while count:
                count -= os.splice(reader, sink.fileno(), count)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _break(source, sink)
    finally:
        os.close(reader)
        os.close(writer)


def _break(*ends: socket.socket) -> None:
    """Make both ends of a connection send a reset when they are closed, and wake their readers."""
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.shutdown(socket.SHUT_RD)


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


def _enter(netns: str) -> None:
    """Make every socket from now on in another network namespace. Raises OSError."""
    from ctypes import CDLL, get_errno  # os.setns is there from Python 3.12 on

    descriptor = os.open(netns, os.O_RDONLY)
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
