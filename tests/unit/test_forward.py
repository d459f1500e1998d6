"""The carrier of PORTS, as the process it is: real sockets on the loopback, and a namespace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from time import sleep

import pytest
from vagrantp.core.locks import holder_of
from vagrantp_guard import carry as carry_module
from vagrantp_guard import forward

# As `ssh -W localhost:PORT` does; the first argument is where it notes that it was called.
SSH = """
import os, pathlib, socket, sys, threading
pathlib.Path(sys.argv[1]).write_text(" ".join([os.getcwd(), *sys.argv[2:]]))
try:
    guest = socket.create_connection(("127.0.0.1", int(sys.argv[-1].partition(":")[2])))
except OSError:
    sys.exit(255)
def send():
    while data := os.read(0, 65536):
        guest.sendall(data)
    guest.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
while data := guest.recv(65536):
    os.write(1, data)
os.close(1)
sender.join()
"""
NOBODY = "127.0.0.2"  # where nothing listens

Carry = Callable[..., "subprocess.CompletedProcess[str]"]
Port = Callable[[], int]


@pytest.fixture
def free_port() -> Iterator[Port]:
    """Return a giver of ports that stay free for whoever asks for one of them by its number."""
    with ExitStack() as kept:

        def port() -> int:
            holder = kept.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))  # not listening: `carry` still can
            return int(holder.getsockname()[1])

        yield port


@pytest.fixture
def guest() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the guest."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def carry(tmp_path: Path, guest: subprocess.Popen[bytes]) -> Iterator[Carry]:
    """Start the carrier for `forwards`: address, host, guest, protocol."""

    def start(
        *forwards: tuple[str, int, int, str], **more: object
    ) -> subprocess.CompletedProcess[str]:
        keys = ("address", "host", "guest", "protocol")
        listed = [dict(zip(keys, each, strict=True)) for each in forwards]
        spec = {"target": "127.0.0.1", "pid": guest.pid, "netns": None, "forwards": listed, **more}
        (tmp_path / "forwards.json").write_text(json.dumps(spec))
        argv = (sys.executable, "-IS", forward.__file__, tmp_path / "forwards.json")
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)

    yield start
    if pid := holder_of(tmp_path / "forwards.lock"):
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: holder_of(tmp_path / "forwards.lock") is None)


def wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.fixture
def shouting() -> Iterator[int]:
    """A service at one port, tcp and udp: answers in capitals, to tcp once all was said."""
    tcp = socket.create_server(("127.0.0.1", 0), backlog=200)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())

    def answer(client: socket.socket) -> None:
        with client, client.makefile("rb") as file:
            client.sendall(file.read().upper())

    def connections() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(tcp.accept()[0],), daemon=True).start()

    def datagrams() -> None:
        with suppress(OSError):
            while True:
                data, peer = udp.recvfrom(65535)
                if peer is None:  # it was shut down
                    return
                udp.sendto(data.upper(), peer)

    for serve in (connections, datagrams):
        threading.Thread(target=serve, daemon=True).start()
    yield tcp.getsockname()[1]
    for server in (tcp, udp):
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def said(address: str, port: int, data: bytes) -> bytes:
    with socket.create_connection((address, port), timeout=20) as client:

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        sender.join()
        return answer


@pytest.mark.slow
def test_tcp_both_ways_with_the_end_of_each(carry: Carry, shouting: int, free_port: Port) -> None:
    port, other = free_port(), free_port()
    done = carry(("127.0.0.1", port, shouting, "tcp"), ("::1", other, shouting, "tcp"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    big = os.urandom(3_000_000).hex().encode()
    assert said("127.0.0.1", port, big) == big.upper()
    assert said("::1", other, b"six") == b"SIX"
    with ThreadPoolExecutor(50) as pool:
        texts = [f"text {number}".encode() for number in range(100)]
        assert [*pool.map(lambda text: said("127.0.0.1", port, text), texts)] == [
            text.upper() for text in texts
        ]


def test_datagrams_of_several_clients(carry: Carry, shouting: int, free_port: Port) -> None:
    port = free_port()
    assert carry(("0.0.0.0", port, shouting, "udp")).returncode == 0
    clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
    for number, client in enumerate(clients):
        client.settimeout(10)
        client.connect((f"127.0.0.{number + 1}", port))  # answers come from where it was asked
        client.send(f"from {number}".encode())
    for number, client in enumerate(clients):
        assert client.recv(100) == f"FROM {number}".encode()
        client.close()


def test_where_nothing_listens_the_client_is_reset(carry: Carry, free_port: Port) -> None:
    port = free_port()
    assert carry(("127.0.0.1", port, free_port(), "tcp")).returncode == 0
    with (
        pytest.raises(ConnectionResetError),  # of connect(2) where the reset is as fast
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.recv(1)


def test_all_or_nothing(carry: Carry, shouting: int, tmp_path: Path, free_port: Port) -> None:
    port = free_port()
    done = carry(("127.0.0.1", port, 80, "tcp"), ("127.0.0.1", shouting, 80, "tcp"))
    assert done.returncode == 1
    assert done.stderr == f"error: 127.0.0.1:{shouting}/tcp: Address already in use\n"
    assert socket.socket().connect_ex(("127.0.0.1", port))
    assert holder_of(tmp_path / "forwards.lock") is None


def test_one_at_a_time(carry: Carry, tmp_path: Path, free_port: Port) -> None:
    assert carry(("127.0.0.1", free_port(), 80, "tcp")).returncode == 0
    pid = holder_of(tmp_path / "forwards.lock")
    done = carry(("127.0.0.1", free_port(), 80, "tcp"))
    assert (done.returncode, done.stderr) == (3, f"process {pid} serves it\n")


def test_it_ends_with_the_guest(
    carry: Carry, guest: subprocess.Popen[bytes], tmp_path: Path, shouting: int, free_port: Port
) -> None:
    port = free_port()
    assert carry(("127.0.0.1", port, shouting, "tcp")).returncode == 0
    assert said("127.0.0.1", port, b"here") == b"HERE"
    guest.kill()
    wait_for(lambda: holder_of(tmp_path / "forwards.lock") is None)
    assert socket.socket().connect_ex(("127.0.0.1", port))
    guest.wait()
    assert carry(("127.0.0.1", port, shouting, "tcp")).returncode == 1  # nobody to carry to


@pytest.fixture
def ssh(tmp_path: Path) -> list[str]:
    """A stand-in for ssh(1), which notes its call in `called`."""
    argv = ["setpriv", "--pdeathsig=KILL", sys.executable, "-IS", "-c", SSH]
    return [*argv, str(tmp_path / "called"), "{pid}"]


@pytest.mark.slow
def test_what_the_address_refuses_goes_by_ssh(
    carry: Carry,
    ssh: list[str],
    tmp_path: Path,
    guest: subprocess.Popen[bytes],
    shouting: int,
    free_port: Port,
) -> None:
    port = free_port()
    assert carry(("127.0.0.1", port, shouting, "tcp"), target=NOBODY, ssh=ssh).returncode == 0
    assert said("127.0.0.1", port, b"six") == b"SIX"
    called = (tmp_path / "called").read_text()
    assert called == f"{tmp_path} {guest.pid} -W localhost:{shouting}"
    big = os.urandom(3_000_000).hex().encode()
    assert said("127.0.0.1", port, big) == big.upper()
    with ThreadPoolExecutor(5) as pool:
        texts = [f"text {number}".encode() for number in range(10)]
        assert [*pool.map(lambda text: said("127.0.0.1", port, text), texts)] == [
            text.upper() for text in texts
        ]


def test_what_the_address_takes_does_not_go_by_ssh(
    carry: Carry, ssh: list[str], tmp_path: Path, shouting: int, free_port: Port
) -> None:
    port = free_port()
    assert carry(("127.0.0.1", port, shouting, "tcp"), ssh=ssh).returncode == 0
    assert said("127.0.0.1", port, b"six") == b"SIX"
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("program", ["refused", "missing"])
def test_what_ssh_cannot_open_is_reset(
    carry: Carry, ssh: list[str], free_port: Port, program: str
) -> None:
    port = free_port()
    argv = ssh if program == "refused" else ["/none"]
    done = carry(("127.0.0.1", port, free_port(), "tcp"), target=NOBODY, ssh=argv)
    assert done.returncode == 0
    with (
        pytest.raises(ConnectionResetError),  # of connect(2) where the reset is as fast
        socket.create_connection(("127.0.0.1", port), timeout=20) as client,
    ):
        client.recv(1)


def test_a_guest_that_is_done_first_still_gets_the_rest(
    carry: Carry, ssh: list[str], free_port: Port
) -> None:
    port, got = free_port(), []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server.accept()[0] as client:
            client.sendall(b"done")
            client.shutdown(socket.SHUT_WR)
            got.append(b"".join(iter(lambda: client.recv(65536), b"")))

    serving = threading.Thread(target=serve)
    serving.start()
    spec = ("127.0.0.1", port, server.getsockname()[1], "tcp")
    assert carry(spec, target=NOBODY, ssh=ssh).returncode == 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        assert b"".join(iter(lambda: client.recv(65536), b"")) == b"done"
        client.sendall(b"rest")
    serving.join(20)
    assert got == [b"rest"]
    server.close()


def test_a_client_that_breaks_off_ends_its_ssh(
    carry: Carry, ssh: list[str], tmp_path: Path, free_port: Port
) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = ("127.0.0.1", port, server.getsockname()[1], "tcp")
        assert carry(spec, target=NOBODY, ssh=ssh).returncode == 0
        carrier = holder_of(tmp_path / "forwards.lock")

        def children() -> str:
            found = ""
            for path in Path(f"/proc/{carrier}/task").glob("*/children"):
                with suppress(OSError):  # its thread has ended
                    found += path.read_text()
            return found

        with socket.create_connection(("127.0.0.1", port)) as client:
            silent, _ = server.accept()
            assert children()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, carry_module.RESET)
        wait_for(lambda: not children())
        silent.close()


def test_it_enters_no_namespace_but_that_of_the_guest(carry: Carry, free_port: Port) -> None:
    done = carry(("127.0.0.1", free_port(), 80, "tcp"), netns="/proc/self/ns/net")
    assert done.returncode == 1
    assert "is not in /proc/self/ns/net" in done.stderr  # but in this host's own


def test_it_runs_nothing_that_others_may_have_written(
    carry: Carry, tmp_path: Path, free_port: Port
) -> None:
    tmp_path.chmod(0o770)
    done = carry(("127.0.0.1", free_port(), 80, "tcp"))
    assert (done.returncode, "others must not write it" in done.stderr) == (1, True)


# In a network of its own, where the kernel has one port to choose from.
SELF = """
import socket, sys
sys.path.append(sys.argv[1])
from vagrantp_guard import carry
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("41000 41000")
try:
    carry.dial(socket.SOCK_STREAM, ["127.0.0.1"], 41000)
except ConnectionRefusedError:
    print("refused")
"""


def test_no_port_is_connected_to_itself() -> None:
    alone = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"']
    python = [sys.executable, "-IS", "-c", SELF, str(Path(forward.__file__).parents[1])]
    done = subprocess.run([*alone, "sh", *python], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespace for an ordinary user")
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_who_gets_no_place_is_reset_and_an_ssh_without_a_thread_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = socket.socketpair()
    monkeypatch.setattr(carry_module, "SSH_WAIT", 0.1)
    monkeypatch.setattr(carry_module, "SSH_ROOM", threading.BoundedSemaphore(1))
    with theirs, ours, carry_module.SSH_ROOM:
        carry_module.by_ssh(["touch", str(tmp_path / "called")], tmp_path, ours)
    assert not (tmp_path / "called").exists()
    # threads are out
    theirs, ours = socket.socketpair()
    pid = tmp_path / "pid"

    class NoThread(threading.Thread):
        def start(self) -> None:
            wait_for(pid.exists)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", NoThread)
    with theirs, ours:
        argv = ["sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"]
        carry_module.by_ssh(argv, tmp_path, ours)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert carry_module.SSH_ROOM.acquire(blocking=False)  # its place is free again
