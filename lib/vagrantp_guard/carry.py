"""Carries connections and datagrams from a port of this host to a guest."""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen

IP_PKTINFO = 8  # linux/in.h; Python has no name for it
RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) sends a reset
BACKLOG = 1024  # connections that wait until they are accepted
CHUNK = 1024 * 1024  # bytes of a pipe
DATAGRAM = 65535  # bytes, at most
DIAL_TIMEOUT = 10.0  # seconds
SSH_END = 2.0  # seconds that ssh(1) has for its end once it has closed its output
SSH_REST = 60.0  # seconds that it has for what it still has to send then
SSH_ROOM = threading.BoundedSemaphore(64)  # connections through ssh at a time; more wait …
SSH_WAIT = 10.0  # … for so many seconds
# A client that is gone without a word holds its place for two minutes: tcp(7), in seconds.
PROBES = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}
IDLE = 120.0  # seconds without a datagram until a client is forgotten
PAUSE = 0.1  # seconds until another try, when descriptors, memory or threads have run out

Dial = Callable[[], socket.socket]
Carry = Callable[[socket.socket], None]


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


def serve_tcp(bound: socket.socket, dial: Dial, by_ssh: Carry | None) -> None:
    """Accept connections of a port for ever, and carry each of them to the guest.

    `by_ssh`: carries one that `dial` is refused for.
    """
    while True:
        try:
            client, _ = bound.accept()
            threading.Thread(target=_connect, args=(client, dial, by_ssh), daemon=True).start()
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


def dial(kind: socket.SocketKind, targets: Sequence[str], port: int) -> socket.socket:
    """Return a socket that is connected to the guest, at the first target that does not refuse.

    Raises OSError.
    """
    for target in targets:
        guest = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind)
        try:
            guest.settimeout(DIAL_TIMEOUT)
            guest.connect((target, port))
            # TCP connects a port to itself where nothing listens and the kernel chose that port
            if kind == socket.SOCK_STREAM and guest.getsockname() == guest.getpeername():
                raise ConnectionRefusedError
            guest.settimeout(None)
            return guest
        except ConnectionRefusedError:
            guest.close()
        except OSError:
            guest.close()
            raise
    raise ConnectionRefusedError


def _connect(client: socket.socket, dial: Dial, by_ssh: Carry | None) -> None:
    """Carry one connection, both ways, until both ends have closed it or one is broken."""
    with client:
        _set_options(client)
        try:
            guest = dial()
        except ConnectionRefusedError:
            return by_ssh(client) if by_ssh else _break(client)
        except OSError:
            return _break(client)
        with guest:
            _set_options(guest)
            back = threading.Thread(target=_carry, args=(guest, client), daemon=True)
            try:
                back.start()
            except RuntimeError:
                return _break(client, guest)
            _carry(client, guest)
            back.join()


def _set_options(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in PROBES.items():
        end.setsockopt(socket.IPPROTO_TCP, option, value)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def by_ssh(argv: list[str], folder: Path, client: socket.socket) -> None:
    """Carry one connection as _connect does, through the `ssh -W` that `argv` runs in `folder`.

    ssh(1) passes on the end of a stream by closing its descriptor, so it gets one for each way.
    """
    from subprocess import DEVNULL, Popen, TimeoutExpired  # takes 15 ms

    with ExitStack() as open_ends:
        if not SSH_ROOM.acquire(timeout=SSH_WAIT):
            return _break(client)
        open_ends.callback(SSH_ROOM.release)
        try:
            there, stdin = map(open_ends.enter_context, socket.socketpair())
            back, stdout = map(open_ends.enter_context, socket.socketpair())
            ssh = Popen(
                argv, cwd=folder, stdin=stdin.fileno(), stdout=stdout.fileno(), stderr=DEVNULL
            )
            open_ends.callback(ssh.wait)
            open_ends.callback(ssh.kill)
            stdin.close()
            stdout.close()
            sender = threading.Thread(target=_carry_by, args=(ssh, client, there), daemon=True)
            sender.start()
        except (OSError, RuntimeError):
            return _break(client)
        if back.recv(1, socket.MSG_PEEK) or not _has_failed(ssh):
            _carry_by(ssh, back, client)
        else:
            _break(client)
        sender.join()
        with suppress(TimeoutExpired):
            ssh.wait(SSH_REST)


def _has_failed(ssh: Popen[bytes]) -> bool:
    """Say whether ssh(1), which has closed its output, has failed: it may still be sending."""
    from subprocess import TimeoutExpired

    with suppress(TimeoutExpired):
        return ssh.wait(SSH_END) != 0
    return False


def _carry_by(ssh: Popen[bytes], source: socket.socket, sink: socket.socket) -> None:
    if not _carry(source, sink):
        ssh.kill()


def _carry(source: socket.socket, sink: socket.socket) -> bool:
    """Carry bytes one way, within the kernel, until they end; then pass that on.

    Return False where the connection broke: then it is broken at both ends.
    """
    try:
        reader, writer = os.pipe()
    except OSError:
        _break(source, sink)
        return False
    try:
        with suppress(OSError):  # an ordinary user's pipes stay small when there are many
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CHUNK)
        while count := os.splice(source.fileno(), writer, CHUNK):
            while count:
                count -= os.splice(reader, sink.fileno(), count)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _break(source, sink)
        return False
    finally:
        os.close(reader)
        os.close(writer)
    return True


def _break(*ends: socket.socket) -> None:
    """Make both ends of a connection send a reset when they are closed, and wake their readers."""
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.shutdown(socket.SHUT_RD)
