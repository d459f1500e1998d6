"""A host with guests in network namespaces: veths stand in for taps, sockets for services.

guests, 10.201.0.5 and 10.201.128.5 -- vagrantp0, vagrantp1 -- host -- LAN, 192.168.77.9
                                                                    -- Docker, 172.17.0.2
                                                                    -- internet, 198.51.100.9
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from ipaddress import IPv4Interface

try:
    from vagrantp_guard.contract import Guest
    from vagrantp_guard.ruleset import rules

    admitted = Guest.from_json
except ImportError:  # `make attacks-old`
    _older = import_module("vagrantp.programs.guard")
    admitted, rules = _older.checked, _older.rules

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NETWORK = 0x40000000  # CLONE_NEWNET of unshare(2)
OWN = "/proc/thread-self/ns/net"
SECONDS = 0.4  # that something which is to arrive has for it

VM = {"name": "vm-00000001", "bridge": "vagrantp0", "port": "vgp00000001", "ip": "10.201.0.5"}
VM |= {"mac": "52:54:00:00:00:01"}
CONTAINER = {"name": "box-00000002", "bridge": "vagrantp1", "port": "2veth", "ip": "10.201.128.5"}
CONTAINER |= {"mac": "52:54:00:00:00:02"}
PLAIN = {"lan_access": False, "lan_allow": [], "lan": None}
BRIDGE_MAC = "52:54:00:00:00:f0"
LAN_BRIDGE, ON_LAN = "br0", "192.168.78"
LAN_CARD = {"port": "vgl00000001", "bridge": LAN_BRIDGE, "mac": "56:54:00:00:00:01"}
LAN_CARD |= {"address": f"{ON_LAN}.50/24", "gateway": f"{ON_LAN}.1"}
HOST_ADDRESSES = ("10.201.0.1/24", "10.201.128.1/24", "192.168.77.1/24", "172.17.0.1/16")


class Namespace:
    """A network namespace, which is there as long as this is."""

    def __init__(self) -> None:
        own = os.open(OWN, os.O_RDONLY)
        _check(LIBC.unshare(NEW_NETWORK))
        self.file = os.open(OWN, os.O_RDONLY)
        _check(LIBC.setns(own, NEW_NETWORK))
        os.close(own)
        self.run("ip link set lo up")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be in it: sockets made there stay there."""
        own = os.open(OWN, os.O_RDONLY)
        _check(LIBC.setns(self.file, NEW_NETWORK))
        try:
            yield
        finally:
            _check(LIBC.setns(own, NEW_NETWORK))
            os.close(own)

    def run(self, script: str, stdin: str = "") -> str:
        """Run a script of sh(1) there and return what it prints."""
        with self.inside():
            done = subprocess.run(
                ("sh", "-ec", script), input=stdin, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def link(self, name: str, other: Namespace, address: str, mac: str = "") -> None:
        """Make a link: `name` here, eth0 with an address there."""
        there = f"/proc/{os.getpid()}/fd/{other.file}"
        self.run(f"ip link add {name} type veth peer name eth0 netns {there}")
        self.run(f"ip link set {name} up")
        if mac:
            other.run(f"ip link set eth0 address {mac}")
        other.run(f"ip address add {address} dev eth0; ip link set eth0 up")

    def listen(self, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Accept connections, or datagrams, at a port."""
        with self.inside():
            made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        made.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    def sniff(self, card: str = "eth0") -> socket.socket:
        """Receive each frame that comes to a card."""
        with self.inside():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind((card, 0))
        return made

    def call(self, address: str, port: int, mss: int = 0) -> str:
        """Open a connection; return "open", or how it failed."""
        with self.inside(), socket.socket() as made:
            made.settimeout(SECONDS)
            if mss:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
            try:
                made.connect((address, port))
            except OSError as error:
                return type(error).__name__
            return "open"


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "namespaces")


def received(server: socket.socket) -> Iterator[bytes]:
    """Yield what came to a socket, until nothing does."""
    server.settimeout(SECONDS)
    with suppress(TimeoutError):
        while True:
            data, origin = server.recvfrom(65536)
            if origin[2:3] != (socket.PACKET_OUTGOING,):
                yield data


class Lab:
    """The host, its guests, and what is around it."""

    def __init__(self) -> None:
        self.made: list[Namespace] = []
        self.host, self.vm, self.container = self.new(), self.new(), self.new()
        self.lan, self.docker, self.internet = self.new(), self.new(), self.new()
        for guest, there in ((VM, self.vm), (CONTAINER, self.container)):
            bridge, gateway = guest["bridge"], guest["ip"].rpartition(".")[0] + ".1"
            self.host.run(
                f"ip link add {bridge} address {BRIDGE_MAC} type bridge; ip link set {bridge} up"
                f"; ip address add {gateway}/24 dev {bridge}"
            )
            self.host.link(guest["port"], there, f"{guest['ip']}/24", guest["mac"])
            self.host.run(f"ip link set {guest['port']} master {bridge}")
            there.run(f"ip route add default via {gateway}")
            if resolver := getattr(admitted({**PLAIN, **guest}), "resolver", None):
                self.host.run(f"ip address add {resolver}/32 dev lo scope host")
        self.host.link("lan", self.lan, "192.168.77.9/24")
        self.host.link("docker0", self.docker, "172.17.0.2/16")
        self.host.link("out", self.internet, "198.18.77.2/30")
        self.host.run(
            "ip address add 192.168.77.1/24 dev lan; ip address add 172.17.0.1/16 dev docker0"
            "; ip address add 198.18.77.1/30 dev out; ip route add default via 198.18.77.2"
            "; echo 1 > /proc/sys/net/ipv4/ip_forward"
        )
        for there, gateway in ((self.lan, "192.168.77.1"), (self.docker, "172.17.0.1")):
            there.run(f"ip route add default via {gateway}")
        self.internet.run(
            "ip address add 198.51.100.9/32 dev lo; ip route add default via 198.18.77.1"
        )

    def new(self) -> Namespace:
        self.made.append(Namespace())
        return self.made[-1]

    def load(self, **wishes: object) -> None:
        """Write the rules of the host, with both guests as `wishes` have them."""
        own = [admitted({**PLAIN, **guest, **wishes}) for guest in (VM, CONTAINER)]
        tables = ("table bridge vagrantp", "table inet vagrantp")
        text = "".join(f"{table}\ndelete {table}\n" for table in tables)
        self.host.run(
            "nft -f -", text + rules(own, [IPv4Interface(each) for each in HOST_ADDRESSES])
        )

    def close(self) -> None:
        for each in self.made:
            os.close(each.file)
