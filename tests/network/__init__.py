"""Stand-ins for a LAN and for the internet: network namespaces, each at the end of a veth pair.

The LAN has 192.168.77.0/24 and addresses of every other kind that is not the internet, one of them
public: what this host is directly on is LAN, whatever its address. The internet is
198.51.100.0/24, behind a router. In each a server echoes what it gets, and notes it: what arrived
is counted there, not in a guest.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep

HERE = Path(__file__).parent
HOST_PORT = "7000"
PORTS = (22, 53, 80, 5353, 7000)
LAN_NETWORKS = (
    *("192.168.77", "10.77.0", "172.16.77", "169.254.77", "100.64.77"),
    "203.0.114",  # public, and nobody's here
)
BRIDGE, ON_BRIDGE = "vgtbr", "192.168.78"
ROUTER, SERVER = "198.18.77", "198.51.100.9"


@dataclass(frozen=True)
class StandIn:
    """A namespace with an echo server in it. `received`: a file of what came, one line each."""

    pid: int
    received: Path

    def inside(self, *argv: str) -> str:
        """Run a command there and return what it prints."""
        argv = ("nsenter", f"--target={self.pid}", "--net", *argv)
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def opened(self, probes: Mapping[str, tuple[object, ...]]) -> set[str]:
        """Try ways from there, each under its name, as a guest does; return the open ones."""
        found = subprocess.run(
            ("nsenter", f"--target={self.pid}", "--net", sys.executable, HERE / "probe.py"),
            input=json.dumps([(name, *probe) for name, probe in probes.items()]),
            check=True,
            capture_output=True,
            text=True,
        )
        return {name for name, end in json.loads(found.stdout).items() if end == "open"}

    def packets(self) -> int:
        """Return how many packets of IPv4 and IPv6 came in so far."""
        counters = json.loads(self.inside("nft", "-j", "list", "counters"))["nftables"]
        return sum(item["counter"]["packets"] for item in counters if "counter" in item)


@contextmanager
def standing_in(name: str, folder: Path, but: int = 0) -> Iterator[StandIn]:
    """Run an echo server in a namespace that has the far end of the new link `name`.

    `but`: the one of PORTS that it leaves to others.
    """
    received, ports = folder / name, [str(port) for port in PORTS if port != but]
    with received.open("w") as file:
        server = subprocess.Popen(
            ("unshare", "--net", sys.executable, HERE / "echo.py", *ports),
            stdout=file,
            text=True,
        )
    try:
        own = Path("/proc/self/ns/net").readlink()
        there = Path(f"/proc/{server.pid}/ns/net")
        while there.readlink() == own:
            sleep(0.02)
        found = StandIn(server.pid, received)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(server.pid))
        ip("link", "set", name, "up")
        found.inside("ip", "link", "set", "lo", "up")
        found.inside("ip", "link", "set", "eth0", "up")
        found.inside("nft", COUNTER)
        yield found
    finally:
        server.kill()
        server.wait()
        subprocess.run(("ip", "link", "delete", name), check=False, capture_output=True)


COUNTER = """
table inet seen {
  counter came { }
  chain came {
    type filter hook prerouting priority -400;
    iifname "lo" accept
    meta l4proto { 2, 58 } accept # IGMP and ICMPv6: the hosts' own talk
    ip daddr 255.255.255.255 udp dport { 67, 68 } accept # DHCP, which everyone on a LAN hears
    # the host's own word, to who still answers a guest that has another MAC for the moment
    icmp type destination-unreachable icmp code host-unreachable counter accept
    counter name came
  }
}
"""


@contextmanager
def neighbour(address: str, folder: Path) -> Iterator[StandIn]:
    """Have another guest on the VMs' bridge, as far as that can see."""
    with standing_in("vgtside", folder) as found:
        ip("link", "set", "vgtside", "master", "vagrantp0")
        found.inside("ip", "address", "add", address, "dev", "eth0")
        yield found


@contextmanager
def frames() -> Iterator[Callable[[], list[bytes]]]:
    """Listen on the VMs' bridge, and return what names the tricks that arrived there."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as link:
        link.bind(("vagrantp0", 0))
        link.settimeout(1)
        found: list[bytes] = []
        yield lambda: found
        while True:
            try:
                data, origin = link.recvfrom(2048)
                if origin[2] != socket.PACKET_OUTGOING:  # an error quotes what it is about
                    found += re.findall(rb"trick: [^;]*", data)
            except TimeoutError:
                break


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def ip(*argv: str) -> None:
    """Run ip(8) on this host."""
    subprocess.run(("ip", *argv), check=True, capture_output=True)


@contextmanager
def echo_of_host(folder: Path) -> Iterator[StandIn]:
    """Run an echo server on this host itself."""
    with (folder / "host").open("w") as file:
        server = subprocess.Popen((sys.executable, HERE / "echo.py", HOST_PORT), stdout=file)
    try:
        while not _answers(int(HOST_PORT)):
            sleep(0.02)
        yield StandIn(server.pid, folder / "host")
    finally:
        server.kill()
        server.wait()


@contextmanager
def lan(folder: Path) -> Iterator[StandIn]:
    """Have a LAN beside this host. The host is .1 in each of its networks, the server .9."""
    with standing_in("vgtlan", folder) as found:
        for network in LAN_NETWORKS:
            ip("address", "add", f"{network}.1/24", "dev", "vgtlan")
            found.inside("ip", "address", "add", f"{network}.9/24", "dev", "eth0")
        ip("address", "add", "fd77::1/64", "dev", "vgtlan", "nodad")
        found.inside("ip", "address", "add", "fd77::9/64", "dev", "eth0", "nodad")
        found.inside("ip", "route", "add", "default", "via", "192.168.77.1")
        yield found


@contextmanager
def bridge(folder: Path) -> Iterator[tuple[StandIn, StandIn]]:
    """Have a bridge with a LAN on it: a machine, and a router with DHCP and the internet behind.

    The host is .5 on it, the router .1, the machine .9.
    """
    ip("link", "add", BRIDGE, "type", "bridge", "stp_state", "0")
    with standing_in("vgtpeer", folder) as peer, standing_in("vgtrouter", folder, but=53) as router:
        try:
            ip("link", "set", BRIDGE, "up")
            ip("address", "add", f"{ON_BRIDGE}.5/24", "dev", BRIDGE)
            ip("route", "add", "default", "via", f"{ON_BRIDGE}.1", "dev", BRIDGE, "metric", "9999")
            for name, there, number in (("vgtpeer", peer, 9), ("vgtrouter", router, 1)):
                ip("link", "set", name, "master", BRIDGE)
                there.inside("ip", "address", "add", f"{ON_BRIDGE}.{number}/24", "dev", "eth0")
            peer.inside("ip", "route", "add", "default", "via", f"{ON_BRIDGE}.1")
            router.inside("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
            with dnsmasq(router, folder):
                yield peer, router
        finally:
            ip("link", "delete", BRIDGE)


@contextmanager
def dnsmasq(router: StandIn, folder: Path) -> Iterator[None]:
    """Give addresses from .100 to .150 away on the bridge; every name is the router's."""
    own = ("--no-daemon", "--conf-file=/dev/null", "--user=root", "--interface=eth0", "--no-resolv")
    leases = ("--pid-file", f"--dhcp-leasefile={folder / 'leases'}")
    offered = (f"--dhcp-range={ON_BRIDGE}.100,{ON_BRIDGE}.150,5m", f"--address=/#/{ON_BRIDGE}.1")
    inside = ("nsenter", f"--target={router.pid}", "--net")
    server = subprocess.Popen(
        (*inside, "dnsmasq", *own, *leases, *offered), stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        server.kill()
        server.wait()


@contextmanager
def internet(folder: Path) -> Iterator[StandIn]:
    """Have an internet, 198.51.100.9 in it, behind the router 198.18.77.2."""
    with standing_in("vgtnet", folder) as found:
        ip("address", "add", f"{ROUTER}.1/30", "dev", "vgtnet")
        found.inside("ip", "address", "add", f"{ROUTER}.2/30", "dev", "eth0")
        found.inside("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
        found.inside("ip", "route", "add", "default", "via", f"{ROUTER}.1")
        # guests come by the host's address there, and answers are the server's
        found.inside("ip", "route", "replace", f"{ROUTER}.0/30", "dev", "eth0", "src", SERVER)
        ip("route", "add", "198.51.100.0/24", "via", f"{ROUTER}.2")
        yield found
