"""A LAN with guests by DHCP, `guard` at work for them, and whoever lies: prints what came of it.

In namespaces of its own, which test_leases.py makes for it. On br0: the host (.5); a router (.1),
with a DHCP server (dnsmasq), and behind it the internet with an accomplice; a machine (.9), which
is a DHCP server, too, where that is told; the cards of a VM and of a container.

What counts is what passes: the sources that a guest may send from, and what it may ask by ARP.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from subprocess import DEVNULL
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

from vagrantp_guard.system import PATH

from tests.attacks import frames
from tests.attacks.lab import Namespace, received
from tests.conftest import MASTER

BRIDGE, NET, INTERNET, BEHIND = "br0", "192.168.78", "198.51.100.9", "198.18.77"
HOST, ROUTER, MACHINE = f"{NET}.5", f"{NET}.1", f"{NET}.9"
OTHERS = (ROUTER, HOST, MACHINE, "10.9.9.9")
ALL, NOBODY = frames.ALL, frames.NOBODY
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)
NUMBERS = {"kind": 53, "mask": 1, "routers": 3, "wanted": 50, "seconds": 51, "server": 54}
NUMBERS |= {"client": 61}
PATIENCE = 10.0  # seconds for what has to happen
GUARD = (sys.executable, "-ISc")
MAIN = f"""
import sys
sys.path.insert(0, {os.environ.get("VAGRANTP_LIB", str(MASTER / "lib"))!r})
from vagrantp_guard.cli import main
sys.exit(main(sys.argv[1:]))
"""
CARDS = {"vm": ("vagrantp0", "10.201.0.5", "01"), "container": ("vagrantp1", "10.201.128.5", "02")}


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def guard(*arguments: str) -> str:
    done = subprocess.run((*GUARD, MAIN, *arguments), capture_output=True, text=True, check=False)
    return done.stdout


def problems() -> list[str]:
    found: list[str] = json.loads(guard("check"))["problems"]
    return found


def until(is_so: Callable[[], bool]) -> bool:
    """Wait until something is so; return False if it is not in time."""
    end = monotonic() + PATIENCE
    while not is_so():
        if monotonic() > end:
            return False
        sleep(0.02)
    return True


def options(**values: bytes) -> bytes:
    """Return options, in this order."""
    return b"".join(bytes((NUMBERS[k], len(v))) + v for k, v in values.items()) + b"\xff"


def message(
    op: int, xid: int, mac: str, said: bytes, own: str = NOBODY, given: str = NOBODY
) -> bytes:
    head = struct.pack(">BBBBIHH", op, 1, 6, 0, xid, 0, 0)
    head += socket.inet_aton(own) + socket.inet_aton(given) + bytes(8) + frames.raw(mac)
    return head.ljust(236, b"\0") + bytes.fromhex("63825363") + said


class Guest:
    """A guest's card, and what root in it may do there."""

    def __init__(self, name: str, lan: Lan) -> None:
        bridge, ip, end = CARDS[name]
        self.lan, self.port, self.mac = lan, f"vgl000000{end}", f"56:54:00:00:00:{end}"
        self.there = Namespace()
        self.xid, self.last = 0, ""
        lan.host_link(self.port, self.there, self.mac)
        self.link = self.there.sniff()
        self.link.settimeout(1)
        card = {"port": self.port, "bridge": BRIDGE, "mac": self.mac, "resolvers": [ROUTER]}
        self.record = {
            **{"name": f"{name}-000000{end}", "bridge": bridge, "ip": ip, "pid": os.getpid()},
            **{"port": f"vgp000000{end}", "mac": f"52:54:00:00:00:{end}"},
            **{"lan_access": False, "lan_allow": []},
            "lan": {**card, "address": None, "gateway": None},
        }
        if name == "vm":
            del self.record["pid"]

    def send(self, packet: bytes, to: str = frames.ALL_MACS, kind: bytes = frames.IP) -> None:
        self.link.send(frames.raw(to) + frames.raw(self.mac) + kind + packet)

    def say(
        self,
        kind: int,
        *,
        own: str = NOBODY,
        to: str = ALL,
        source: str = "",
        said: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Send a message of DHCP, under the next number."""
        self.xid += 1
        body = message(1, self.xid, self.mac, options(kind=bytes((kind,)), **said), own)
        mac = frames.ALL_MACS if to == ALL else self.lan.macs[to]
        self.send(frames.ipv4(source or own, to, frames.UDP, frames.udp(68, 67, body), 1), mac)

    def answer(self, kind: int) -> tuple[str, str] | None:
        """Return what a server answered to the last message: the address, and the server."""
        with suppress(TimeoutError):
            while True:
                frame = self.link.recv(2000)
                body = frame[42:]
                if frame[12:14] == frames.IP and frame[34:38] == b"\0\x43\0\x44" and body[0] == 2:
                    (xid,) = struct.unpack_from(">I", body, 4)
                    if xid == self.xid and body[242] == kind:
                        return socket.inet_ntoa(body[16:20]), socket.inet_ntoa(frame[26:30])
        return None

    def lease(self, client: bytes = b"") -> str:
        """Ask as an honest client does; return the address."""
        who = {"client": b"\0" + client} if client else {}
        self.lan.forget_limits()
        self.say(DISCOVER, said=who)
        offered = self.answer(OFFER)
        assert offered
        address, server = map(socket.inet_aton, offered)
        self.say(REQUEST, said={"wanted": address, "server": server, **who})
        got = self.answer(ACK)
        assert got
        self.last = got[0]
        return self.last

    def uses(self, *sources: str) -> list[str]:
        """Return those of the addresses that it can send something to the internet from."""
        words = [frames.udp(9, 9, frames.word(number)) for number in range(len(sources))]
        for source, word in zip(sources, words, strict=True):
            packet = frames.ipv4(source, INTERNET, frames.UDP, word, 1)
            self.send(packet, self.lan.macs[ROUTER])
        return [sources[number] for number in self.lan.arrived()]

    def asks(self, sender: str, targets: Sequence[str]) -> list[str]:
        """Return the addresses that it can ask for by ARP."""
        for number, target in enumerate(targets):
            self.send(frames.arp(self.mac, sender, number, target), kind=frames.ARP)
        return [targets[number] for number in self.lan.arrived()]

    def waits_for(self, address: str) -> bool:
        return until(lambda: self.uses(address) == [address])


class Server:
    """Who sends answers of DHCP: any, from where it is."""

    def __init__(self, there: Namespace, own: str) -> None:
        self.there, self.own = there, own
        with there.inside():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.socket.bind((own, 67))

    def says(
        self, guest: Guest, given: str, *, kind: int = ACK, seconds: int = 600, to: str = ALL
    ) -> None:
        said = {"kind": bytes((kind,)), "server": socket.inet_aton(self.own)}
        if kind == ACK:
            said |= {"seconds": struct.pack(">I", seconds), "mask": b"\xff\xff\xff\0"}
            said |= {"routers": socket.inet_aton(ROUTER)}
        body = message(2, guest.xid, guest.mac, options(**said), given=given)
        self.socket.sendto(body, (to, 68))


class Lan:
    """The bridge, and all that is on it."""

    def __init__(self) -> None:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        run("ip", "address", "add", f"{HOST}/24", "dev", BRIDGE)
        self.macs = {ROUTER: "52:54:00:00:01:01", MACHINE: "52:54:00:00:01:09"}
        self.router, self.machine, self.internet = Namespace(), Namespace(), Namespace()
        for name, there, address in (
            ("router", self.router, ROUTER),
            ("machine", self.machine, MACHINE),
        ):
            self.host_link(name, there, self.macs[address])
            there.run(f"ip address add {address}/24 dev eth0")
        self.machine.run(f"ip route add default via {ROUTER}")
        self.router.link("out", self.internet, f"{BEHIND}.2/30")
        self.router.run(
            f"ip address add {BEHIND}.1/30 dev out; ip route add 198.51.100.0/24 via {BEHIND}.2"
            "; echo 1 > /proc/sys/net/ipv4/ip_forward"
        )
        self.internet.run(
            f"ip address add {INTERNET}/32 dev lo; ip route add default via {BEHIND}.1"
        )
        for bridge, address in (("vagrantp0", "10.201.0.1"), ("vagrantp1", "10.201.128.1")):
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "link", "set", bridge, "up")
            run("ip", "address", "add", f"{address}/24", "dev", bridge)
        self.seen = self.machine.sniff()  # what goes to all
        self.passed = self.router.sniff()

    def host_link(self, name: str, there: Namespace, mac: str) -> None:
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0")
        netns = f"/proc/{os.getpid()}/fd/{there.file}"
        run("ip", "link", "set", "eth0", "address", mac, "netns", netns)
        run("ip", "link", "set", name, "master", BRIDGE, "up")
        there.run("ip link set eth0 up")

    def arrived(self) -> list[int]:
        """Return the numbers of what has come to the router, or to the machine."""
        found = set()
        for link in (self.seen, self.passed):
            link.settimeout(0.1)
            with suppress(TimeoutError):
                while True:
                    data, origin = link.recvfrom(2000)
                    known = frames.number_of(data)
                    if known and origin[2] != socket.PACKET_OUTGOING:
                        found.add(known[0])
        return sorted(found)

    def forget_limits(self) -> None:
        """Let a guest ask again at once; the limits are probes.py's."""
        with suppress(subprocess.CalledProcessError):
            for name in ("asking", "told"):
                run("nft", "flush", "set", "bridge", "vagrantp", name)


def reader() -> int:
    """Return the number of the process that reads DHCP."""
    found = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"dhcp_reader.py" in path.read_bytes() and b"python" in path.read_bytes().split(b"\0")[0]
    ]
    return found[0] if found else 0


def prepare() -> None:
    run("mount", "-t", "tmpfs", "none", "/run")
    for each in ("own", "work"):
        Path("/run", each).mkdir()
    etc = "lowerdir=/etc,upperdir=/run/own,workdir=/run/work"
    run("mount", "-t", "overlay", "-o", etc, "none", "/etc")
    for hook in ("/etc/libvirt/hooks/qemu.d/vagrantp", "/etc/containers/oci/hooks.d/vagrantp.json"):
        Path(hook).parent.mkdir(parents=True, exist_ok=True)
        Path(hook).touch()
    run("ip", "link", "set", "lo", "up")
    Path("/run/vagrantp/guests").mkdir(parents=True)


@dataclass
class Street:
    """Who is there."""

    lan: Lan
    vm: Guest
    box: Guest
    accomplice: Server
    machine: Server
    vms: str = ""  # the addresses that they have from dnsmasq
    boxs: str = ""

    def settle(self, address: str) -> None:
        """Give the VM an address: then all that was said before has been heard."""
        self.ask()
        self.machine.says(self.vm, address)
        assert self.vm.waits_for(address)

    def ask(self) -> None:
        """Have the VM ask for an address, so that any server may answer."""
        self.lan.forget_limits()
        self.vm.say(REQUEST)


Found = Iterator[tuple[str, Any]]


def honest(street: Street) -> Found:
    """Leases of a real server, what is open without one, and ARP."""
    vm, box = street.vm, street.box
    yield "without a lease", vm.uses(*OTHERS, f"{NET}.100", f"{NET}.50")
    street.vms, street.boxs = vm.lease(), box.lease()
    yield "a VM's lease", vm.waits_for(street.vms)
    yield "a container's lease", box.waits_for(street.boxs)
    yield "status", json.loads(guard("check"))["leased"].get(vm.port) == [street.vms]
    yield "others' addresses", vm.uses(*OTHERS, street.boxs)
    scan = [f"{NET}.{n}" for n in range(1, 255)]
    yield "ARP scan", len(vm.asks(street.vms, scan)) <= 2  # its router, itself
    yield "ARP probes", vm.asks(NOBODY, scan) == [street.vms]


def liars(street: Street) -> Found:
    """Whoever gives the VM what is another's: from the internet, the LAN, another guest."""
    vm, box = street.vm, street.box
    for kind in (0, ACK):
        street.ask()
        for given in (ROUTER, f"{NET}.66"):
            street.accomplice.says(vm, given, kind=kind, to=street.vms)
    street.settle(f"{NET}.61")
    yield "an accomplice on the internet", vm.uses(ROUTER, f"{NET}.66", f"{NET}.61")
    street.ask()
    for given in (*OTHERS, street.boxs, f"{NET}.0", f"{NET}.255"):
        street.machine.says(vm, given)
    street.settle(f"{NET}.62")
    yield "others' addresses, by a server", vm.uses(*OTHERS, street.boxs, f"{NET}.62")
    vm.xid += 1000
    street.machine.says(vm, f"{NET}.67")
    street.settle(f"{NET}.63")
    yield "unasked", vm.uses(f"{NET}.67", f"{NET}.63")
    street.ask()
    said = options(kind=bytes((ACK,)), seconds=struct.pack(">I", 600))
    datagram = frames.udp(67, 68, message(2, vm.xid, vm.mac, said, given=f"{NET}.68"))
    for source in (street.boxs, ROUTER, MACHINE):
        for to in (vm.mac, frames.ALL_MACS):
            box.send(frames.ipv4(source, ALL, frames.UDP, datagram, 1), to)
    street.settle(f"{NET}.64")
    yield "another guest", vm.uses(f"{NET}.68", f"{NET}.64")


def many(street: Street, times: int) -> Found:
    """Many clients in one guest, which then gives everything back."""
    vm = street.vm
    ids = [b"client %d" % n for n in range(times)]
    leases = [vm.lease(each) for each in ids]
    assert len({*leases}) == times and vm.waits_for(leases[-1])
    yield "many leases", len(vm.uses(*leases))
    for who, address in zip(ids, leases, strict=True):
        street.lan.forget_limits()
        server = socket.inet_aton(ROUTER)
        said = {"server": server, "client": b"\0" + who}
        vm.say(RELEASE, own=address, source=leases[-1], to=ROUTER, said=said)
    yield "released", len(vm.uses(*leases))


def ends(street: Street) -> Found:
    """The end of a lease, its renewal, a server that moves, a refusal."""
    vm, machine = street.vm, street.machine
    first, second = f"{NET}.70", f"{NET}.71"
    street.ask()
    machine.says(vm, first, seconds=3)
    yield "short", vm.waits_for(first)
    yield "expired", until(lambda: vm.uses(first) == [])
    street.ask()
    machine.says(vm, second, seconds=3)
    assert vm.waits_for(second)
    vm.say(REQUEST, own=second, to=MACHINE)
    machine.says(vm, second, seconds=600)
    sleep(3.5)
    yield "renewed", vm.uses(second) == [second]
    moved = vm.lease()
    yield "rebound", vm.waits_for(moved)
    arrived = street.lan.machine.sniff()
    vm.say(REQUEST, own=moved, to=MACHINE)
    yield "to the old server", sum(data[34:38] == b"\0\x44\0\x43" for data in received(arrived))
    street.ask()
    machine.says(vm, NOBODY, kind=NAK)
    yield "refused by the server", until(lambda: vm.uses(moved) == [])
    again = vm.lease()
    assert vm.waits_for(again)
    vm.say(DECLINE, said={"wanted": socket.inet_aton(again)})
    yield "declined", until(lambda: vm.uses(again) == [])


def rights() -> list[str]:
    """Return the user, the capabilities and no_new_privs of the reader."""
    lines = r"^(?:Uid|CapEff|NoNewPrivs):\s+(\S+)"
    return re.findall(lines, status(reader()), re.MULTILINE)


def losses(street: Street) -> Found:
    """The rules, the reader and the watcher end, and this host leaves that network."""
    vm, box, boxs = street.vm, street.box, street.boxs
    run("nft", "flush", "ruleset")
    yield "after a flush", box.waits_for(boxs) and until(lambda: not problems())
    os.kill(reader(), signal.SIGKILL)
    yield "after the reader's end", until(lambda: reader() != 0 and not problems())
    until(lambda: rights()[0] != "0")  # it has begun as root
    yield "the reader's rights", rights()
    forget(box, boxs)
    with box.there.inside():  # as `guard` runs it for a container
        client = ("busybox", "udhcpc", "-f", "-i", "eth0", "-s", "/bin/true")
        process = subprocess.Popen(client, env={"PATH": PATH, "PORT": box.port}, stderr=DEVNULL)
    assert until(lambda: leased(box) != "")
    boxs = leased(box)
    forget(box, boxs)
    os.kill(reader(), signal.SIGKILL)  # what was given meanwhile, nobody knows
    yield "a client is told to ask again", until(lambda: leased(box) == boxs)
    yield "… and has a lease", box.waits_for(boxs)
    process.kill()
    watcher = int(Path("/run/vagrantp/watch.lock").read_text())
    os.kill(watcher, signal.SIGTERM)  # and its standby ends
    assert until(lambda: reader() == 0)
    yield "without a watcher", problems()
    yield "nobody hears", [vm.uses(vm.lease()), box.uses(boxs) == [boxs]]
    guard("load")
    yield "with a new one", [problems(), box.uses(boxs) == [boxs]]
    yield "heard again", vm.waits_for(vm.lease())
    run("ip", "address", "flush", "dev", BRIDGE)
    assert until(lambda: not problems())
    vm.say(REQUEST)
    street.machine.says(vm, NOBODY, kind=NAK)
    street.lan.forget_limits()
    vm.say(RELEASE, own=vm.last, source=vm.last, to=ROUTER)
    yield "on a network that this host is not on", vm.uses(vm.lease())


def leased(guest: Guest) -> str:
    """Return the address that `guard` knows, after a look at the rules."""
    found: dict[str, list[str]] = json.loads(guard("check"))["leased"]
    return next(iter(found.get(guest.port, ())), "")


def forget(guest: Guest, address: str) -> None:
    """Take a lease out of the rules, and so from what `guard` knows."""
    guest.lan.forget_limits()
    element = f'{{ "{guest.port}" . {int(IPv4Address(address)):#x} }}'
    run("nft", "delete", "element", "bridge", "vagrantp", "leased", element)
    assert until(lambda: leased(guest) == "")


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text(encoding="ascii")


def main(times: int) -> None:
    """Print what each try led to. `times`: how many clients a guest invents."""
    prepare()
    lan = Lan()
    vm, box = (Guest(name, lan) for name in CARDS)
    for each in (vm, box):
        record = Path("/run/vagrantp/guests", f"{each.record['name']}.json")
        record.write_text(json.dumps(each.record), encoding="utf-8")
    own = ("--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=eth0")
    pool = (f"--dhcp-range={NET}.100,{NET}.200,2m", "--dhcp-leasefile=/run/leases", "--no-ping")
    with lan.router.inside():
        dnsmasq = subprocess.Popen(("dnsmasq", *own, *pool), stderr=DEVNULL)
    accomplice, machine = Server(lan.internet, INTERNET), Server(lan.machine, MACHINE)
    street = Street(lan, vm, box, accomplice, machine)
    guard("load")
    print(json.dumps(["at first", problems()]))
    for found in (
        honest(street),
        liars(street),
        many(street, times),
        ends(street),
        losses(street),
    ):
        for what in found:
            print(json.dumps(what), flush=True)
    dnsmasq.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]))
