"""The gate of sandboxes: which addresses it leads to, and what it does with hostile clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import monotonic

import pytest
from vagrantp.core import gate, relay
from vagrantp.core.errors import ProviderError
from vagrantp.core.gate import Proxy

from tests.unit.test_relay import connected, everything, nothing_is_left, server

__all__ = ["nothing_is_left"]  # a fixture, for every test here
NEAR = [ip_network(text) for text in ("8.8.4.0/24", "2a00:1450::/32", "9.9.9.9/32")]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
        ),
        *("172.16.0.1", "192.0.2.1", "192.168.1.1", "192.88.99.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("8.8.4.4", "9.9.9.9"),  # this host's network, and itself
        *("::", "::1", "::8.8.8.8", "::10.0.0.1", "fc00::1", "fd00::1", "fe80::1", "fec0::1"),
        *("ff02::1", "ff0e::1", "2001:db8::1", "2001::1", "100::1", "4000::1"),
        *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.4.4", "::ffff:224.0.0.1"),
        *("2002:a00:1::1", "2002:7f00:1::1", "2002:808:404::1", "2002:808:808::1"),
        *("64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b::808:404", "64:ff9b:1::808:808"),
        "2a00:1450::1",
    ],
)
def test_addresses_that_are_not_on_the_internet(address: str) -> None:
    assert not gate.is_of_internet(ip_address(address), NEAR)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "2606:4700::1", "2a01::1"),
        *("64:ff9b::808:808", "::ffff:8.8.8.8"),
    ],
)
def test_addresses_that_are(address: str) -> None:
    assert gate.is_of_internet(ip_address(address), NEAR)


Ask = Callable[[bytes], bytes]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Send a request to a gate that takes every name for this host; return the answer."""

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1", "::1", "fe80::1%lo", "10.0.0.1"]

    def send(request: bytes) -> bytes:
        with connected(tmp_path / "gate") as end:
            end.sendall(request)
            return everything(end)

    asked: list[str] = []
    with gate.serve(tmp_path / "gate", NEAR, resolve=resolve):
        yield send


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (
            "CONNECT private.example.com:443 HTTP/1.1",
            "403 private.example.com is not on the internet",
        ),
        ("CONNECT 127.0.0.1:443 HTTP/1.0", "403 127.0.0.1 is not on the internet"),
        ("CONNECT example.com:22 HTTP/1.1", "403 only port 443"),
        ("CONNECT example.com:80 HTTP/1.1", "403 only port 443"),
        ("CONNECT [::1]:443 HTTP/1.1", "405 only CONNECT, for https"),
        ("CONNECT example.com HTTP/1.1", "405 only CONNECT, for https"),
        ("CONNECT exam ple.com:443 HTTP/1.1", "405 only CONNECT, for https"),
        ("connect example.com:443 HTTP/1.1", "405 only CONNECT, for https"),
        ("GET http://example.com/ HTTP/1.1", "405 only CONNECT, for https"),
        ("CONNECT example.com:443 HTTP/2", "405 only CONNECT, for https"),
        (f"CONNECT {'a' * 300}:443 HTTP/1.1", "405 only CONNECT, for https"),
        ("\x16\x03\x01", "405 only CONNECT, for https"),
    ],
)
def test_what_is_refused(ask: Ask, request_line: str, status: str) -> None:
    answer = ask(f"{request_line}\r\nHost: example.com\r\n\r\n".encode())
    assert answer == f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


def test_this_host_is_not_reached_though_a_server_listens(tmp_path: Path) -> None:
    """With the resolver of this host, and every way to write an address of the loopback."""
    forms = (
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0",
        "localhost",
        "0.0.0.0",
        "017700000001",
    )
    with gate.serve(tmp_path / "gate", []):
        for form in forms:
            with connected(tmp_path / "gate") as end:
                end.sendall(f"CONNECT {form}:443 HTTP/1.1\r\n\r\n".encode())
                assert everything(end).startswith(b"HTTP/1.1 403 "), form


def test_a_long_head_is_refused(ask: Ask) -> None:
    head = b"CONNECT example.com:443 HTTP/1.1\r\n".ljust(gate.MAX_HEAD, b"a")
    assert ask(head).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_ends_early_is_refused(tmp_path: Path) -> None:
    with gate.serve(tmp_path / "gate", NEAR), connected(tmp_path / "gate") as end:
        end.sendall(b"CONNECT example.com:443 HTTP/1.1\r\n")
        end.shutdown(socket.SHUT_WR)
        assert everything(end).startswith(b"HTTP/1.1 400 ")


def test_a_slow_client_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HEAD_TIMEOUT", 0.5)
    with gate.serve(tmp_path / "gate", NEAR), connected(tmp_path / "gate") as end:
        end.settimeout(0.1)
        began, answer = monotonic(), b""
        while not answer and monotonic() < began + 5:
            end.send(b"C")  # a byte now and then
            try:
                answer = end.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert monotonic() - began < 2


def test_silent_clients_hold_nobody_up_at_the_end(tmp_path: Path) -> None:
    ends = []
    with gate.serve(tmp_path / "gate", NEAR):
        ends += [connected(tmp_path / "gate") for _ in range(relay.CONNECTIONS + 20)]
        began = monotonic()
    assert monotonic() - began < 2
    for end in ends:
        end.close()


def proxy_that(answer: bytes, heads: list[bytes]) -> Callable[[socket.socket], None]:
    """Return another proxy, which takes down a head, gives an answer, and echoes the rest."""

    def run(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        heads.append(head)
        client.sendall(answer)
        while data := client.recv(65536):
            client.sendall(data)

    return run


def test_by_another_proxy(tmp_path: Path) -> None:
    heads: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nearly "
    with server(proxy_that(answer, heads)) as (host, port):
        proxy = gate.upstream({"https_proxy": f"http://me:p%40ss@{host}:{port}"})
        with gate.serve(tmp_path / "gate", NEAR, proxy), connected(tmp_path / "gate") as end:
            end.sendall(b"CONNECT galaxy.ansible.com:443 HTTP/1.1\r\nHost: x\r\n\r\nhello")
            end.shutdown(socket.SHUT_WR)
            found = everything(end)
    assert found == b"HTTP/1.1 200 Connection established\r\n\r\nearly hello"
    assert heads == [
        b"CONNECT galaxy.ansible.com:443 HTTP/1.1\r\nHost: galaxy.ansible.com:443\r\n"
        b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("10.0.0.1", "8.8.8.8", "127.1", "0x7f.1", "2130706433", "0x7f000001", "localhost", "nas"),
        *("nas.local", "nas.LAN", "a.internal", "a.home.arpa", "a.localhost", "a..com", "a.com."),
        *("-a.com", "a.123"),
    ],
)
def test_another_proxy_is_asked_for_public_names_only(tmp_path: Path, name: str) -> None:
    heads: list[bytes] = []
    with (
        server(proxy_that(b"HTTP/1.1 200 OK\r\n\r\n", heads)) as (host, port),
        gate.serve(tmp_path / "gate", NEAR, Proxy(host, port)),
        connected(tmp_path / "gate") as end,
    ):
        end.sendall(f"CONNECT {name}:443 HTTP/1.1\r\n\r\n".encode())
        assert everything(end).startswith(b"HTTP/1.1 403 ")
    assert not heads


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 407 Authenticate\r\n\r\n", b"502 the proxy answered 407"),
        (b"SSH-2.0-x\r\n\r\n", b"502 the proxy answered no HTTP"),
        (b"x" * 10_000, b"431 too long"),
    ],
)
def test_another_proxy_that_refuses(tmp_path: Path, answer: bytes, status: bytes) -> None:
    with (
        server(proxy_that(answer, [])) as (host, port),
        gate.serve(tmp_path / "gate", NEAR, Proxy(host, port)),
        connected(tmp_path / "gate") as end,
    ):
        end.sendall(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        assert everything(end).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("host", ["127.0.0.1", "255.255.255.255"])
def test_where_nothing_answers(tmp_path: Path, host: str) -> None:
    """It refuses, and it cannot be dialled at all."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with (
        gate.serve(tmp_path / "gate", NEAR, Proxy(host, port)),
        connected(tmp_path / "gate") as end,
    ):
        end.sendall(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        assert everything(end).startswith(b"HTTP/1.1 504 ")


def test_the_proxy_of_an_environment() -> None:
    assert gate.upstream({}) is None
    assert gate.upstream({"https_proxy": ""}) is None
    assert gate.upstream({"HTTPS_PROXY": "http://p.example:3128/"}) == Proxy("p.example", 3128)
    assert gate.upstream({"https_proxy": "p.example:8080"}) == Proxy("p.example", 8080)
    for wrong in (
        "https://me:secret@p",
        "socks5://me:secret@p:1",
        "http://me:secret@p:x",
        "http://",
    ):
        with pytest.raises(ProviderError) as error:
            gate.upstream({"https_proxy": wrong})
        assert "secret" not in str(error.value)
