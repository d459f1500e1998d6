"""A unix socket whose connections lead elsewhere: bytes are copied, by threads of this process.

So a sandbox without a network reaches one place of the caller's choice, and nothing besides.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CONNECTIONS = 64  # at a time; further ones wait
CHUNK = 64 * 1024  # bytes
PAUSE = 0.05  # seconds until another try, when connections, descriptors or threads have run out


@contextmanager
def serve(path: Path, connect: Callable[[], socket.socket]) -> Iterator[None]:
    """Lead every connection to the unix socket `path` to a socket that `connect` returns.

    `path` may be longer than what bind(2) takes, and its folder decides who gets there. `connect`
    must give up by itself, with an OSError, which closes the connection. At the end of the block
    every connection is closed, and no thread or descriptor is left. Raises OSError.
    """

    def lead(client: socket.socket, stop: int) -> None:
        with suppress(OSError), connect() as other:
            carry(client, other, stop)

    with listen(path, lead):
        yield


@contextmanager
def listen(path: Path, handle: Callable[[socket.socket, int], None]) -> Iterator[None]:
    """Call `handle` in a thread for every connection to the unix socket `path`, which it closes.

    Its second argument is a descriptor that is readable once `handle` has to return; the block
    ends when all have. The rest as of `serve`.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    stop = os.eventfd(0)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{folder}/{path.name}")
            try:
                os.chmod(path.name, 0o666, dir_fd=folder)  # root's sandbox runs as another user
                bound.listen(CONNECTIONS)
                with serving(bound, stop, handle):
                    yield
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)
    finally:
        os.close(stop)
        os.close(folder)


@contextmanager
def serving(
    bound: socket.socket, stop: int, handle: Callable[[socket.socket, int], None]
) -> Iterator[None]:
    """Call `handle` for every connection to a listening socket, as `listen` does.

    `stop`: an eventfd(2), which the end of the block makes readable.
    """
    accepting = threading.Thread(target=_accept, args=(bound, stop, handle), daemon=True)
    accepting.start()
    try:
        yield
    finally:
        os.eventfd_write(stop, 1)
        accepting.join()


def carry(one: socket.socket, other: socket.socket, stop: int, idle: float | None = None) -> None:
    """Copy bytes both ways until both ends have no more, or one is broken.

    The end of one direction is passed on, and the other one goes on. Also returns once `stop` is
    readable, or no byte has moved for `idle` seconds.
    """
    peer = {one: other, other: one}
    waiting = {one: b"", other: b""}  # to be sent to it
    sources = {one, other}  # those that may send more
    for end in peer:
        end.setblocking(False)
    with suppress(OSError):
        while sources or any(waiting.values()):
            reads = {end for end in sources if not waiting[peer[end]]}
            writes = {end for end in peer if waiting[end]}
            gone = {end for end in peer if end not in sources | writes}  # unless it still reads
            masks = {end.fileno(): select.POLLIN * (end in reads) for end in reads | gone}
            for end in writes:
                masks[end.fileno()] = masks.get(end.fileno(), 0) | select.POLLOUT
            ready = wait(masks, stop, idle)
            if stop in ready or not ready or any(end.fileno() in ready for end in gone):
                return
            for end in writes:
                if ready.get(end.fileno(), 0) & ~select.POLLIN:
                    waiting[end] = waiting[end][end.send(waiting[end]) :]
            for end in reads:
                if ready.get(end.fileno(), 0) & ~select.POLLOUT:
                    waiting[peer[end]] = end.recv(CHUNK)
                    if not waiting[peer[end]]:
                        sources.remove(end)
                        peer[end].shutdown(socket.SHUT_WR)


def _accept(bound: socket.socket, stop: int, handle: Callable[[socket.socket, int], None]) -> None:
    def run(client: socket.socket) -> None:
        with client:
            handle(client, stop)

    threads: list[threading.Thread] = []
    is_short = False  # of descriptors, memory or threads
    while True:
        threads = [thread for thread in threads if thread.is_alive()]
        if is_short or len(threads) >= CONNECTIONS:
            ready = wait({}, stop, PAUSE)
        else:
            ready = wait({bound.fileno(): select.POLLIN}, stop, None)
        if stop in ready:
            break
        is_short = False
        if ready:
            try:
                client, _ = bound.accept()
            except OSError:
                is_short = True
                continue
            thread = threading.Thread(target=run, args=(client,), daemon=True)
            try:
                thread.start()
            except RuntimeError:
                client.close()
                is_short = True
            else:
                threads.append(thread)
    for thread in threads:
        thread.join()


def wait(events: dict[int, int], stop: int, timeout: float | None) -> dict[int, int]:
    """Wait for events of descriptors (poll(2)), and for `stop`; return those that came.

    `timeout` in seconds; after it there are none.
    """
    poll = select.poll()
    for descriptor, mask in {**events, stop: select.POLLIN}.items():
        poll.register(descriptor, mask)
    return dict(poll.poll(None if timeout is None else timeout * 1000))
