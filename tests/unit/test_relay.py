"""Unix sockets that lead elsewhere, as sandboxes use them: real sockets, on the loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
from vagrantp.core import relay

LARGE = os.urandom(8 * 1024**2)


@contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[tuple[str, int]]:
    """A TCP server on the loopback, which calls `answer` in a thread for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def run(client: socket.socket) -> None:
            with client, suppress(ConnectionError):
                answer(client)

        def accept() -> None:
            while True:
                try:
                    client, _ = bound.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=(client,), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield bound.getsockname()
        bound.shutdown(socket.SHUT_RDWR)
        accepting.join()


def everything(end: socket.socket) -> bytes:
    """Read until the end."""
    return b"".join(iter(lambda: end.recv(65536), b""))


def connected(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(path))  # without a time limit, as it may have to wait for its turn
    end.settimeout(20)
    return end


@contextmanager
def way(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[socket.socket]:
    """A connection that leads to a server which answers it."""
    with (
        server(answer) as address,
        relay.serve(path, lambda: socket.create_connection(address, 5)),
        connected(path) as end,
    ):
        yield end


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor or thread is left of what a test has served."""

    def held() -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), threading.active_count()

    before = held()
    yield
    deadline = monotonic() + 5  # a stand-in's own threads end by themselves
    while held() != before and monotonic() < deadline:
        sleep(0.01)
    assert held() == before


def test_bytes_go_both_ways(tmp_path: Path) -> None:
    def echo(client: socket.socket) -> None:
        while data := client.recv(65536):
            client.sendall(data)

    with way(tmp_path / "s", echo) as end, ThreadPoolExecutor() as pool:
        received = pool.submit(everything, end)
        end.sendall(LARGE)
        end.shutdown(socket.SHUT_WR)
        assert received.result() == LARGE
    assert not (tmp_path / "s").exists()


def test_the_end_of_one_direction_leaves_the_other_one_open(tmp_path: Path) -> None:
    def count_then_answer(client: socket.socket) -> None:
        size = len(everything(client))
        sleep(0.1)
        client.sendall(f"{size}".encode())

    def answer_then_count(client: socket.socket) -> None:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        sizes.append(len(everything(client)))

    sizes: list[int] = []
    with way(tmp_path / "s", count_then_answer) as end:
        end.sendall(LARGE)
        end.shutdown(socket.SHUT_WR)
        assert everything(end) == f"{len(LARGE)}".encode()
    with way(tmp_path / "s", answer_then_count) as end:
        assert everything(end) == b"hello"
        end.sendall(LARGE)
        end.shutdown(socket.SHUT_WR)
        while not sizes:
            sleep(0.01)
    assert sizes == [len(LARGE)]


def test_what_a_client_sent_before_it_went_away_arrives(tmp_path: Path) -> None:
    def read(client: socket.socket) -> None:
        sleep(0.2)
        sizes.append(len(everything(client)))

    sizes: list[int] = []
    with way(tmp_path / "s", read) as end:
        end.sendall(LARGE)
        end.close()
        while not sizes:
            sleep(0.01)
    assert sizes == [len(LARGE)]


def test_a_client_that_has_gone_frees_its_place_though_the_other_end_is_silent(
    tmp_path: Path,
) -> None:
    with ExitStack() as kept, socket.create_server(("127.0.0.1", 0), backlog=100) as bound:
        address = bound.getsockname()
        with relay.serve(tmp_path / "s", lambda: socket.create_connection(address, 5)):
            for _ in range(relay.CONNECTIONS + 5):
                with connected(tmp_path / "s"):
                    kept.enter_context(bound.accept()[0])


def test_the_end_of_the_block_ends_connections_that_nobody_closes(tmp_path: Path) -> None:
    with ExitStack() as kept, socket.create_server(("127.0.0.1", 0), backlog=200) as bound:
        address = bound.getsockname()
        with relay.serve(tmp_path / "s", lambda: socket.create_connection(address, 5)):
            # more than are served at a time: the others wait
            for _ in range(relay.CONNECTIONS + 20):
                end = kept.enter_context(connected(tmp_path / "s"))
                end.setblocking(False)
                end.send(LARGE)  # far more than the other end takes
            for _ in range(relay.CONNECTIONS):
                kept.enter_context(bound.accept()[0])
            sleep(0.2)
            bound.setblocking(False)
            with pytest.raises(BlockingIOError):
                bound.accept()
            began = monotonic()
        assert monotonic() - began < 2


def test_where_nothing_listens_the_connection_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = bound.getsockname()
    path = tmp_path / "s"
    with relay.serve(path, lambda: socket.create_connection(address, 5)), connected(path) as end:
        assert everything(end) == b""


def test_a_path_may_be_longer_than_an_address_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = bound.getsockname()
        with relay.serve(folder / "s", lambda: socket.create_connection(address, 5)):
            assert (folder / "s").is_socket()
        assert not (folder / "s").exists()


def test_an_error_in_the_block_ends_it_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), relay.serve(tmp_path / "s", socket.socket):
        raise KeyError
    assert not (tmp_path / "s").exists()
