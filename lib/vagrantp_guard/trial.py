"""Whether other firewalls of this host let through what guests need: tried from where they are."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from time import monotonic, sleep

from vagrantp_guard import resolver
from vagrantp_guard.contract import BRIDGES, RESOLVER_NAME, RUN, Guest, Nic, Policy
from vagrantp_guard.guests import guests, record, record_of
from vagrantp_guard.system import PATH, Refused, locked, read, run, run_inside
from vagrantp_guard.tables import load
from vagrantp_guard.watcher import watch_host

# RFC 5737, for examples; no router after this host's own sees what goes to the one that is used.
NOWHERE = tuple(map(IPv4Address, ("192.0.2.1", "198.51.100.1", "203.0.113.1")))
SECONDS = 2.0  # that a packet has
ROOM = 16 << 20  # bytes for what else this host sends meanwhile
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it
ALL = 3  # ETH_P_ALL of packet(7): the only protocol that shows what is sent
# In the guest: a question to its resolver, with a MAC one to the DHCP server of VMs (a DHCPINFORM,
# RFC 2131), and a datagram for the internet. Prints what is answered.
SENDER = """
import socket, sys
gateway, own, nonce, nowhere, name, mac = sys.argv[1:]

def asks(number, port, message, source=0):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((own, source))
        made.settimeout(1)
        for _ in range(2):
            try:
                made.sendto(message, (gateway, port))
                return made.recv(1500)[number] == message[number]
            except OSError:
                pass

labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
if asks(1, 53, b"vp\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + labels + b"\\0\\0\\1\\0\\1"):
    print("DNS")
head = bytes.fromhex("01010600") + b"vptr" + bytes(4) + socket.inet_aton(own) + bytes(12)
head += bytes.fromhex(mac.replace(":", "")).ljust(16 + 192, b"\\0")
if mac and asks(4, 67, head + bytes.fromhex("63825363 350108 ff"), 68):
    print("DHCP")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
    made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
    made.sendto(nonce.encode(), (nowhere, 9))
"""


def closed() -> dict[str, list[str]]:
    """Return which of DNS, DHCP and internet do not pass this host's firewalls, by bridge.

    Without a bridge that no guest has needed yet. Raises Refused when that cannot be tried.
    """
    found = {}
    for kind, bridge in BRIDGES.items():
        listed = json.loads(
            run("ip", "-4", "-json", "address", "show", "dev", bridge, check=False) or "[]"
        )
        for own in [a for link in listed for a in link["addr_info"]][:1]:
            gateway = IPv4Interface(f"{own['local']}/{own['prefixlen']}")
            has_route = run("ip", "route", "get", str(_nowhere()), check=False)
            wanted = {"DNS", *(["internet"] if has_route else [])}
            wanted |= {"DHCP"} if kind == "vm" else set()
            found[bridge] = sorted(wanted - _passing(bridge, gateway))
    return found


def _passing(bridge: str, gateway: IPv4Interface) -> set[str]:
    identity = secrets.token_hex(4)
    mac = ":".join(("52", "54", *(identity[i : i + 2] for i in range(0, 8, 2))))
    nic = Nic(f"veth{identity}", bridge, mac)
    argv = ("setpriv", "--pdeathsig=KILL", "unshare", "--net", "sleep", "60")
    with subprocess.Popen(argv, env={"PATH": PATH}) as there:
        try:
            _wait_for_namespace(there.pid)
            with locked():
                address = _free_address(gateway)
                guest = Guest(f"trial-{identity}", nic, address, Policy(False, ()), there.pid)
                record(guest)
                load()
            _connect(guest, gateway)
            watch_host()
            if not resolver.wait(guest.name):
                raise Refused("no resolver runs")
            return _try(guest, gateway)
        finally:
            there.kill()
            with locked():
                record_of(f"trial-{identity}").unlink(missing_ok=True)
                load()


def _wait_for_namespace(pid: int) -> None:
    own, until = Path("/proc/self/ns/net").readlink(), monotonic() + SECONDS
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        if monotonic() > until:
            raise Refused("unshare has made no network namespace")
        sleep(0.01)


def _free_address(gateway: IPv4Interface) -> IPv4Address:
    # another one each time: for the last one's DHCP firewalls have an open connection
    return secrets.choice([*{*gateway.network.hosts()} - {gateway.ip, *(g.ip for g in guests())}])


def _connect(guest: Guest, gateway: IPv4Interface) -> None:
    nic, there = guest.nic, str(guest.pid)
    run("ip", "link", "add", nic.port, "type", "veth", "peer", "name", "eth0", "netns", there)
    run("ip", "link", "set", nic.port, "master", nic.bridge, "up")
    for line in (
        f"link set eth0 address {nic.mac} up",
        f"address add {guest.ip}/{gateway.network.prefixlen} dev eth0",
        f"route add default via {gateway.ip}",
    ):
        run_inside(int(there), "ip", *line.split())


def _nowhere() -> IPv4Address:
    """Return an address that is on none of this host's networks: people use these for their own."""
    near = [IPv4Interface(text).network for text in read(RUN / "networks").split()]
    free = (each for each in NOWHERE if not any(each in network for network in near))
    return next(free, NOWHERE[0])


def _try(guest: Guest, gateway: IPv4Interface) -> set[str]:
    nonce = secrets.token_hex(8)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        is_vm = guest.nic.bridge == BRIDGES["vm"]
        facts = (str(gateway.ip), str(guest.ip), nonce, str(_nowhere()), RESOLVER_NAME)
        sender = ("/usr/bin/python3", "-ISc", SENDER, *facts, guest.nic.mac if is_vm else "")
        answered = {*run_inside(guest.pid or 0, *sender).split()}
        link.settimeout(SECONDS)
        with suppress(TimeoutError):
            until = monotonic() + SECONDS
            while monotonic() < until:
                data, (name, _, direction, *_) = link.recvfrom(2048)
                # an ICMP error, back to the guest, has the datagram in it
                is_back = name in (guest.nic.bridge, guest.nic.port)
                is_out = direction == socket.PACKET_OUTGOING and not is_back
                if is_out and nonce.encode() in data:
                    return answered | {"internet"}
    return answered
