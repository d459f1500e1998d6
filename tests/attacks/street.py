"""The lab with whoever may send in it, and one pass of probes through the rules.

On vagrantp0: vm (LAN_ACCESS=no), open (LAN_ACCESS=yes), tap (a VM whose hook did not run), port
(somebody else's). On vagrantp1: container, foreign (Podman's --network vagrantp). On br0: card of
vm, by FIXED_IP, leased of open, by DHCP, lantap (no hook), and peer, who is the LAN, its router and
its DHCP server. club is a network with public addresses that the host is directly on.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

from vagrantp_guard import dhcp_reader, listener
from vagrantp_guard.contract import RESOLVERS, Guest
from vagrantp_guard.held_ruleset import TABLES
from vagrantp_guard.lan_ruleset import Lease
from vagrantp_guard.ruleset import REALM, rules
from vagrantp_guard.tables import networks_of_host

from tests.attacks import frames
from tests.attacks.lab import (
    BRIDGE_MAC,
    CONTAINER,
    LAN_BRIDGE,
    LAN_CARD,
    PLAIN,
    VM,
    Lab,
    Namespace,
)
from tests.attacks.lookout import Found, Lookout, Probe, Station

HOST_MAC, BR0_MAC, PEER_MAC = (f"52:54:00:00:00:f{n}" for n in (1, 2, 9))
LEASE = "192.168.78.60"
NETFILTER, FLUSH_CONNTRACK = 12, struct.pack("=IHHIIBBH", 20, 0x102, 5, 1, 0, 0, 0, 0)


def _mac(end: str, start: str = "52:54") -> str:
    return f"{start}:00:00:00:{end}"


STATIONS = {
    "vm": Station(VM["mac"], VM["ip"], BRIDGE_MAC, "vagrantp0"),
    "container": Station(CONTAINER["mac"], CONTAINER["ip"], BRIDGE_MAC, "vagrantp1"),
    "lan": Station(_mac("d1"), "192.168.77.9", HOST_MAC, "lan"),
    "docker": Station(_mac("d2"), "172.17.0.2", HOST_MAC, "docker0"),
    "internet": Station(_mac("d3"), "198.51.100.9", HOST_MAC, "out"),
    "open": Station(_mac("03"), "10.201.0.6", BRIDGE_MAC, "vagrantp0", "vgp00000003"),
    "tap": Station(_mac("a1"), "10.201.0.66", BRIDGE_MAC, "vagrantp0", "vgp0000000a"),
    "port": Station(_mac("a2"), "10.201.0.67", BRIDGE_MAC, "vagrantp0", "port"),
    "foreign": Station(_mac("a3"), "10.201.128.66", BRIDGE_MAC, "vagrantp1", "foreign"),
    "card": Station(LAN_CARD["mac"], "192.168.78.50", PEER_MAC, LAN_BRIDGE, LAN_CARD["port"]),
    "leased": Station(_mac("03", "56:54"), LEASE, PEER_MAC, LAN_BRIDGE, "vgl00000003"),
    "lantap": Station(_mac("0a", "56:54"), "192.168.78.66", PEER_MAC, LAN_BRIDGE, "vgl0000000a"),
    "peer": Station(PEER_MAC, "192.168.78.9", LAN_CARD["mac"], LAN_BRIDGE, "peer"),
    "club": Station(_mac("d4"), "192.0.2.9", HOST_MAC, "club"),
    # the host: at its cards on the bridges, and behind them, by sockets
    "vagrantp0": Station(BRIDGE_MAC, "10.201.0.1", VM["mac"]),
    "vagrantp1": Station(BRIDGE_MAC, "10.201.128.1", CONTAINER["mac"]),
    "host": Station("", "10.201.0.1", ""),
}
# behind club, and how the host knows of it
BY_DEVICE, BY_RULE, BY_ROUTER, NEW = (f"198.18.{n}.9" for n in (97, 96, 95, 94))
BRIDGES = ("vagrantp0", "vagrantp1", LAN_BRIDGE)


def _allowed(network: str | None, port: int | None) -> dict[str, object]:
    return {"network": network, "port": port, "protocol": port and "tcp"}


ALLOWED = [
    *(_allowed(f"192.168.{net}.8/32", None) for net in (77, 78)),
    *(_allowed(f"192.168.{net}.9/32", 80) for net in (77, 78)),
    _allowed(None, 7000),
]
GUESTS = [
    {**PLAIN, **VM, "lan_allow": ALLOWED, "lan": {**LAN_CARD, "resolvers": ["192.168.78.1"]}},
    {**PLAIN, **CONTAINER},
    {
        **{**VM, "name": "open-00000003", "port": "vgp00000003", "mac": _mac("03")},
        **{"ip": "10.201.0.6", "lan_access": True, "lan_allow": []},
        "lan": {**LAN_CARD, "port": "vgl00000003", "mac": _mac("03", "56:54")}
        | {"address": None, "gateway": None, "resolvers": []},
    },
]
SERVER = "192.168.78.1"
LEASES = {"vgl00000003": Lease(IPv4Interface(f"{LEASE}/24"), IPv4Address(SERVER), (), until=3600)}
OTHERS = """
table ip others {
  chain published {
    type nat hook prerouting priority -100;
    fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80
    ip daddr 198.51.100.77 tcp dport 80 dnat to 192.168.77.1:22
  }
  chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
}
table inet seen {
  set came { typeof ip id . meta l4proto . th dport; flags dynamic; size 9999; }
  set came6 { typeof ip6 flowlabel; flags dynamic; size 9999; }
  set resolved { typeof ip id; flags dynamic; size 9999; }
  set at_port { typeof ip id; flags dynamic; size 9999; }
  chain input {
    type filter hook input priority 1000;
    add @came { ip id . meta l4proto . th dport }
    add @came6 { ip6 flowlabel }
    ip daddr $resolvers add @resolved { ip id }
  }
  chain at_port {
    type filter hook prerouting priority -440;
    iifname { $ports } add @at_port { ip id }
  }
}
table arp seen {
  set asked { type ipv4_addr; flags dynamic; size 9999; }
  chain input { type filter hook input priority 0; iifname { $ports } add @asked { arp daddr ip }; }
}
"""
SEEN = {"came": "host", "came6": "host", "resolved": "resolver"}
RESET = "".join(
    f"flush set inet seen {name}\n" for name in ("came", "came6", "resolved", "at_port")
)
RESET += "flush set arp seen asked\n"
MUTE = """
table inet mute {
  chain input { type filter hook input priority -500; policy drop; }
  chain output { type filter hook output priority -500; policy drop; }
}
"""

PORTS = (VM["port"], CONTAINER["port"], *(s.port for s in STATIONS.values() if s.port))


class Street(Lookout, Lab):
    """The lab, its neighbours, and what they see."""

    def __init__(self) -> None:
        Lab.__init__(self)
        self.places: dict[str, Namespace] = {}
        self.host.run(f"ip link add {LAN_BRIDGE} address {BR0_MAC} type bridge")
        self.host.run(
            f"ip link set {LAN_BRIDGE} up; ip address add 192.168.78.5/24 dev {LAN_BRIDGE}"
        )
        for name, station in STATIONS.items():
            if name in (*BRIDGES, "host"):
                continue
            there = self.places[name] = getattr(self, name, None) or self.new()
            if not hasattr(self, name):
                port = station.port or name
                self.host.link(port, there, f"{station.ip}/24", station.mac)
                if station.port:
                    self.host.run(f"ip link set {port} master {station.link}")
            there.run(f"ip link set eth0 address {station.mac}")
            there.run("nft -f -", MUTE)
        self.host.run(
            "; ".join(
                f"ip link set {n} address {HOST_MAC}" for n in ("lan", "docker0", "out", "club")
            )
        )
        self.host.run(
            "ip address add 192.0.2.1/24 dev club; ip link set out mtu 1400"
            "; for kind in iptables ip6tables; do"
            " echo 0 > /proc/sys/net/bridge/bridge-nf-call-$kind || true; done"
            "; echo 0 > /proc/sys/net/ipv4/icmp_ratemask"
            "; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
            "; ip address add fd77::1/64 dev lan nodad"
            "; ip address add fd78::1/64 dev vagrantp1 nodad"
        )
        known = [(s.link, s.ip, s.mac) for n, s in STATIONS.items() if n != "internet" and s.link]
        known += [("out", "198.18.77.2", STATIONS["internet"].mac)]
        known += [
            ("lan", "fd77::9", STATIONS["lan"].mac),
            ("lan", "192.168.77.8", STATIONS["lan"].mac),
        ]
        club = STATIONS["club"].mac
        known += [("club", address, club) for address in (BY_DEVICE, BY_RULE, BY_ROUTER, NEW)]
        for device, address, mac in known:
            self.host.run(f"ip neigh replace {address} lladdr {mac} dev {device} nud permanent")
        for bridge in BRIDGES[:2]:
            self.host.run(
                f"ip rule add priority 77 iif {bridge} lookup main suppress_prefixlength 1"
                f" realms {REALM}"
            )
        self.host.run(
            f"ip route add {BY_DEVICE[:-1]}0/24 dev club"
            f"; ip route add {BY_RULE[:-1]}0/24 dev club table 52; ip rule add pref 5270 lookup 52"
            f"; ip route add {BY_ROUTER[:-1]}0/24 via {STATIONS['club'].ip}"
        )
        ports = ", ".join(f'"{port}"' for port in PORTS)
        self.host.run(
            "nft -f -", OTHERS.replace("$ports", ports).replace("$resolvers", f"{RESOLVERS}")
        )
        with self.host.inside():
            self.conntrack = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self.networks = networks_of_host()
        self.host.run(f"ip address add {NEW[:-1]}1/24 dev club")  # and the rules do not know yet
        links = {name: there.sniff() for name, there in self.places.items()}
        links |= {bridge: self.host.sniff(bridge) for bridge in BRIDGES}
        with self.host.inside():
            links["heard"] = listener.log()
        Lookout.__init__(self, links)

    def text(self) -> str:
        """Return the rules for the guests here."""
        return rules(map(Guest.from_json, GUESTS), *self.networks, LEASES)

    def received(self, place: str) -> Iterable[bytes]:
        """Return the frames that the next message of a link brings."""
        if place != "heard":
            return Lookout.received(self, place)
        logged = dhcp_reader.packets(self.links[place].recv(65536))
        return [bytes(12) + frames.IP + packet for _, _, packet in logged]

    def send(self, probe: Probe, number: int) -> None:
        """Send a probe."""
        data = probe.frame(STATIONS[probe.origin], number)
        if probe.origin == "host":
            self.raw.sendto(data, (socket.inet_ntoa(data[16:20]), 0))
        else:
            self.links[probe.origin].send(data)

    def nft(self, text: str) -> None:
        """Run nft(8) on the host."""
        self.host.run("nft -f -", text)

    def load_text(self, text: str) -> None:
        """Write the rules, and forget connections, routes and who is where."""
        tables = ["table bridge vagrantp", "table inet vagrantp", "table ip marked"]
        tables += [f"table {family} {name}" for family, name in TABLES]
        self.nft(RESET + "".join(f"{t}\ndelete {t}\n" for t in tables) + text)
        flush = "".join(f"link set dev {b} type bridge fdb_flush\n" for b in BRIDGES)
        self.host.run("ip -batch -", flush + "route flush cache\n")
        self.conntrack.send(FLUSH_CONNTRACK)
        self.conntrack.recv(65536)

    def ask(self, found: Found) -> None:
        """Add what the host itself has received."""
        listed = self.host.run("nft list table inet seen; nft list table arp seen")
        for name, body in re.findall(r"set (\w+) {[^}]*?elements = {([^}]*)}", listed):
            for element in body.split(","):
                parts = element.split(" . ")
                if name == "asked":
                    first, second, high, low = parts[0].strip().split(".")
                    if f"{first}.{second}" == frames.ASKED:
                        found[int(high) << 8 | int(low)].add("port")
                else:
                    place = SEEN.get(name, "port")
                    is_service = len(parts) == 3 and parts[1] in ("tcp", "udp")
                    number = int(parts[0], 0)
                    found[number].add(f"{place}:{parts[2].strip()}" if is_service else place)

    def close(self) -> None:
        """Remove the namespaces."""
        self.conntrack.close()
        self.raw.close()
        Lookout.close(self)
        Lab.close(self)
