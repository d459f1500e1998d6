"""Whether an older version lets more through: guests' packets, and PORTS.

`python -m tests.bench.throughput REVISION [RUNS]`, as root: the rules and the forwarder of both
versions by turns, in the namespaces of tests/attacks/lab.py. Prints the medians, in MB/s, and those
of the ratios of two runs, one right after the other; ends with 1 where one is below 0.95. On a busy
machine only the ratio counts, and that of many runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from tests.attacks.lab import (
    BRIDGE_MAC,
    CONTAINER,
    HOST_ADDRESSES,
    LAN_BRIDGE,
    LAN_CARD,
    ON_LAN,
    PLAIN,
    VM,
    Lab,
    Namespace,
)
from tests.conftest import MASTER

SECONDS, ENOUGH = 0.2, 0.95
CHUNK = bytes(1 << 20)
INTERNET, PORT = "198.51.100.9", 8099
# Prints the rules of the version in the folder that is given, for guests on standard input.
WRITER = """
import json, sys
from ipaddress import IPv4Interface
sys.path.insert(0, sys.argv[1])
try:
    from vagrantp_guard.contract import Guest
    from vagrantp_guard.ruleset import rules
    admitted = Guest.from_json
except ImportError:
    from vagrantp.programs.guard import checked as admitted, rules
print(rules(list(map(admitted, json.load(sys.stdin))), list(map(IPv4Interface, sys.argv[2:]))))
"""
TABLES = ("table bridge vagrantp", "table inet vagrantp")


def rules_of(lib: Path) -> str:
    """Return the rules that a version writes."""
    card: dict[str, object] = {**LAN_CARD, "resolvers": [], "dns": None}
    guests = [{**PLAIN, **VM, "lan": card}, {**PLAIN, **CONTAINER}]
    argv = (sys.executable, "-ISc", WRITER, str(lib), *HOST_ADDRESSES, f"{ON_LAN}.5/24")
    done = subprocess.run(
        argv, input=json.dumps(guests), check=True, capture_output=True, text=True
    )
    return "".join(f"{table}\ndelete {table}\n" for table in TABLES) + done.stdout


def rate(
    caller: Namespace, called: Namespace, address: str, own: str, port: int = 0, down: bool = False
) -> float:
    """Return the megabytes that one connection carries in a second.

    `own`: the address that the caller has; `port`: where it calls, if that is somebody between;
    `down`: who is called sends.
    """
    with called.listen(PORT) as service, caller.inside(), socket.socket() as out:
        service.settimeout(5)
        out.settimeout(5)
        out.bind((own, 0))
        child = os.fork()
        if not child:
            try:
                link = service.accept()[0] if down else out
                if not down:
                    out.connect((address, port or PORT))
                while True:
                    link.sendall(CHUNK)
            finally:
                os._exit(0)
        if down:
            out.connect((address, PORT))
        with out if down else service.accept()[0] as link:
            room, total = bytearray(1 << 20), 0
            link.recv_into(room)
            began = monotonic()
            while monotonic() < began + SECONDS:
                total += link.recv_into(room)
            seconds = monotonic() - began
        out.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return total / seconds / 1e6


class Bench(Lab):
    """The lab, with a guest's card on a bridge behind which the internet is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.host.run(f"ip link add {LAN_BRIDGE} type bridge; ip link set {LAN_BRIDGE} up")
        self.card, self.router = self.new(), self.new()
        self.host.link(LAN_CARD["port"], self.card, LAN_CARD["address"], LAN_CARD["mac"])
        self.host.link("peer", self.router, f"{ON_LAN}.1/24", BRIDGE_MAC)
        self.host.run(
            f"ip address add {ON_LAN}.5/24 dev {LAN_BRIDGE}"
            f"; for port in {LAN_CARD['port']} peer; do ip link set $port master {LAN_BRIDGE}; done"
            "; for bridge in vagrantp0 vagrantp1; do ip rule add priority 77 iif $bridge"
            " lookup main suppress_prefixlength 1 realms 77; done"
        )
        self.router.run(f"ip address add {INTERNET}/32 dev lo")
        self.card.run(f"ip route add default via {ON_LAN}.1")

    def through_ports(self, lib: Path) -> float:
        """Return what PORTS carry: from the LAN to the VM."""
        places = (lib / "vagrantp_guard/forward.py", lib / "vagrantp/programs/forward.py")
        program = next(place for place in places if place.exists())
        with tempfile.TemporaryDirectory() as folder:
            guest = subprocess.Popen(("sleep", "60"))
            port = {"address": "0.0.0.0", "host": 8090, "guest": PORT, "protocol": "tcp"}
            spec = Path(folder, "forwards.json")
            facts = {"target": VM["ip"], "pid": guest.pid, "netns": None, "forwards": [port]}
            spec.write_text(json.dumps(facts), encoding="utf-8")
            self.host.run(f"{sys.executable} -IS {program} {spec}")
            try:
                return rate(self.lan, self.vm, "192.168.77.1", "192.168.77.9", 8090)
            finally:
                guest.kill()
                guest.wait()
                while Path(folder, "forwards.lock").read_text().strip() and _serves(self.host):
                    sleep(0.02)

    def ways(self, lib: Path) -> dict[str, Callable[[], float]]:
        """Return what is measured, by name."""
        return {
            "a VM to the internet": lambda: rate(self.vm, self.internet, INTERNET, VM["ip"]),
            "the internet to a VM": lambda: rate(
                self.vm, self.internet, INTERNET, VM["ip"], down=True
            ),
            "a container to the internet": lambda: rate(
                self.container, self.internet, INTERNET, CONTAINER["ip"]
            ),
            "a card on a bridge to the internet": lambda: rate(
                self.card, self.router, INTERNET, f"{ON_LAN}.50"
            ),
            "the LAN to a card on a bridge": lambda: rate(
                self.router, self.card, f"{ON_LAN}.50", f"{ON_LAN}.1"
            ),
            "PORTS": lambda: self.through_ports(lib),
        }


def _serves(host: Namespace) -> bool:
    return ":8090 " in host.run("ss -Htln")


def main(revision: str, runs: int) -> int:
    """Measure, print, and return the exit status."""
    with tempfile.TemporaryDirectory() as older:
        archive = subprocess.run(
            ("git", "-C", str(MASTER), "archive", revision, "lib"), check=True, capture_output=True
        )
        subprocess.run(("tar", "-x", "-C", older), input=archive.stdout, check=True)
        versions = {"then": Path(older, "lib"), "now": MASTER / "lib"}
        texts = {which: rules_of(lib) for which, lib in versions.items()}
        bench = Bench()
        ways = {which: bench.ways(lib) for which, lib in versions.items()}
        print(f"| MB/s, medians of {runs} | {revision} | now | ratio |\n| --- | --- | --- | --- |")
        ratios = []
        for way in ways["now"]:
            found: dict[str, list[float]] = {"then": [], "now": []}
            for turn in range(runs):  # one right after the other, as the machine is busy at times
                for which in ("then", "now") if turn % 2 else ("now", "then"):
                    bench.host.run("nft -f -", texts[which])
                    found[which].append(ways[which][way]())
            pairs = zip(found["now"], found["then"], strict=True)
            ratios.append(median(now / then for now, then in pairs))
            then, now = median(found["then"]), median(found["now"])
            print(f"| {way} | {then:.0f} | {now:.0f} | {ratios[-1]:.2f} |", flush=True)
        bench.close()
    return 0 if min(ratios) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int((*sys.argv[2:], "31")[0])))
