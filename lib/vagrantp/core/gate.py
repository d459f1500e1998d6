"""The way to the internet for a sandbox without a network: CONNECT of HTTP, on a unix socket.

It leads to port 443 of addresses of the internet: never to this host, its LAN or another private
network, whatever a name resolves to.
"""

from __future__ import annotations

import re
import select
import socket
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINPROGRESS
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from time import monotonic
from urllib.parse import unquote, urlsplit

from vagrantp.core import relay
from vagrantp.core.errors import ProviderError

PORT = 443
MAX_HEAD = 8192  # bytes
HEAD_TIMEOUT = 10.0  # seconds for the whole request, or the other proxy's answer
DIAL_TIMEOUT = 10.0  # seconds for each address
MAX_ADDRESSES = 4  # of a name, that are tried
IDLE = 120.0  # seconds without a byte until a connection is closed
REQUEST = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}):(\d{1,5}) HTTP/1\.[01]\r\n")
# A name of the public DNS. Its last label begins with a letter, unlike that of any form of an
# IPv4 address (127.1, 0x7f.1).
NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*", re.I)
PRIVATE_NAMES = (
    *(".local", ".localhost", ".localdomain", ".lan", ".internal", ".intranet", ".corp"),
    *(".home", ".home.arpa", ".private"),
)
UNICAST = IPv6Network("2000::/3")  # what of IPv6 is the internet
NAT64 = IPv6Network("64:ff9b::/96")
RELAYS_6TO4 = IPv4Network("192.88.99.0/24")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str], Collection[str]]


class Refused(Exception):
    """A request that is not served. The text is the status of the answer, and why."""


@dataclass(frozen=True)
class Proxy:
    """A proxy by which this host reaches the internet. `authorization`: the header, or ""."""

    host: str
    port: int
    authorization: str = ""


def upstream(environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that an environment names for https, if any.

    Raises ProviderError where it is no http:// proxy; the message is without its password.
    """
    url = environment.get("https_proxy") or environment.get("HTTPS_PROXY")
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        raise ProviderError("https_proxy is no URL", "https_proxy=http://HOST:PORT") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ProviderError(
            "https_proxy must name an http:// proxy", "https_proxy=http://HOST:PORT"
        )
    if parts.username is None:
        return Proxy(parts.hostname, port)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, port, f"Basic {b64encode(pair.encode()).decode()}")


def is_of_internet(address: Address, near: Collection[Network]) -> bool:
    """Say whether an address is one of the internet, and not in `near`, this host's networks.

    An IPv6 address that stands for an IPv4 one counts as that; those of 6to4 never do.
    """
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_of_internet(IPv4Address(int(address) & 0xFFFFFFFF), near)
        if address.ipv4_mapped:
            return is_of_internet(address.ipv4_mapped, near)
        is_public = address in UNICAST and address.is_global and not address.sixtofour
    else:
        is_public = address.is_global and address not in RELAYS_6TO4
    return is_public and not address.is_multicast and not any(address in each for each in near)


def resolved(name: str) -> list[str]:
    """Return the addresses of a name. Raises OSError."""
    found = socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@contextmanager
def serve(
    path: Path,
    near: Collection[Network],
    proxy: Proxy | None = None,
    resolve: Resolve = resolved,
) -> Iterator[None]:
    """Serve CONNECT on the unix socket `path` while the block runs. Raises OSError.

    `near`: this host's addresses and the networks that it is directly on. With `proxy` that one
    resolves names, so only public ones are passed on to it; else this host does by `resolve`, and
    the address that was checked is the one that is dialled.
    """

    def answer(client: socket.socket, stop: int) -> None:
        with suppress(OSError):
            client.setblocking(False)
            try:
                head, rest = _read_head(client, stop)
                name = _wanted(head)
                if proxy:
                    server, early = _by_proxy(name, proxy, stop)
                else:
                    server, early = _dial(_allowed(name, near, resolve), PORT, stop), b""
            except Refused as refusal:
                client.send(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            with server:
                client.send(b"HTTP/1.1 200 Connection established\r\n\r\n" + early)
                server.send(rest)
                relay.carry(client, server, stop, IDLE)

    with relay.listen(path, answer):
        yield


def _wanted(head: bytes) -> str:
    """Return the host that a request is for. Raises Refused."""
    request = REQUEST.match(head)
    if not request:
        raise Refused("405 only CONNECT, for https")
    if int(request[2]) != PORT:
        raise Refused(f"403 only port {PORT}")
    return request[1].decode()


def _allowed(name: str, near: Collection[Network], resolve: Resolve) -> list[str]:
    """Return the addresses of a name that may be reached. Raises Refused."""
    try:
        found = resolve(name)
    except (OSError, UnicodeError):
        raise Refused(f"502 {name} does not resolve") from None
    # with a zone (fe80::1%eth0) it is link-local, and refused as such
    allowed = [each for each in found if is_of_internet(ip_address(each), near)]
    if not allowed:
        raise Refused(f"403 {name} is not on the internet")
    return allowed[:MAX_ADDRESSES]


def _by_proxy(name: str, proxy: Proxy, stop: int) -> tuple[socket.socket, bytes]:
    """Return a connection to `name` by another proxy, and what has come from there already."""
    if not NAME.fullmatch(name) or name.lower().endswith(PRIVATE_NAMES):
        raise Refused(f"403 {name} is not on the internet")
    try:
        addresses = [str(each[4][0]) for each in socket.getaddrinfo(proxy.host, proxy.port)]
    except OSError:
        raise Refused(f"502 the proxy {proxy.host} does not resolve") from None
    server = _dial(list(dict.fromkeys(addresses)), proxy.port, stop)
    try:
        lines = [f"CONNECT {name}:{PORT} HTTP/1.1", f"Host: {name}:{PORT}"]
        lines += [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
        server.send("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        head, rest = _read_head(server, stop)
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if not status or status[1] != b"200":
            raise Refused(f"502 the proxy answered {status[1].decode() if status else 'no HTTP'}")
    except BaseException:
        server.close()
        raise
    return server, rest


def _dial(addresses: Collection[str], port: int, stop: int) -> socket.socket:
    """Return a socket, not blocking, that is connected to the first address that answers."""
    for address in addresses:
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        server.setblocking(False)
        if server.connect_ex((address, port)) in (0, EINPROGRESS):
            ready = relay.wait({server.fileno(): select.POLLOUT}, stop, DIAL_TIMEOUT)
            is_up = server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            if ready and stop not in ready and is_up:
                return server
        server.close()
    raise Refused("504 no answer")


def _read_head(end: socket.socket, stop: int) -> tuple[bytes, bytes]:
    """Return the first lines that come, up to an empty one, and what comes right after them."""
    deadline = monotonic() + HEAD_TIMEOUT
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) >= MAX_HEAD:
            raise Refused("431 too long")
        ready = relay.wait({end.fileno(): select.POLLIN}, stop, max(0, deadline - monotonic()))
        if not ready or stop in ready:
            raise Refused("408 too slow")
        piece = end.recv(MAX_HEAD - len(data))
        if not piece:
            raise Refused("400 incomplete")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n", rest
