"""Whether a guest gets anything through while something flushes nftables, or kills the watcher.

`flushes.py LIB ROUNDS`, in namespaces of its own for mounts, network and processes: guards of the
package in LIB keep three guests of lab.py, which send to LAN and host all the time. Prints JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from tests.attacks.lab import CONTAINER, LAN_BRIDGE, LAN_CARD, PLAIN, VM, Lab, Namespace

RUN = Path("/run/vagrantp")
PORT = 9999
GUARD = """
import sys
sys.path.insert(0, {!r})
from vagrantp_guard.cli import main
sys.exit(main(sys.argv[1:]))
"""
# Each datagram has a number. From four ports to all of the addresses, a thousand times a second.
FLOOD = """
import socket, sys, time
name, port, *targets = sys.argv[1:]
links = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
n = 0
while True:
    for target in targets:
        n += 1
        try:
            links[n % 4].sendto(f"{name} {n}".encode(), (target, int(port)))
        except OSError:
            pass
    time.sleep(0.001)
"""
WITHIN = 30.0  # seconds that the walls have to stand again, on a busy host


class Flood:
    """The lab, its guests that send, and what has arrived."""

    def __init__(self, lib: str) -> None:
        self.lab, self.lib = Lab(), lib
        host, card, peer = self.lab.host, self.lab.new(), self.lab.new()
        host.run(
            f"ip link add {LAN_BRIDGE} type bridge; ip link set {LAN_BRIDGE} up"
            f"; ip address add 192.168.78.5/24 dev {LAN_BRIDGE}"
        )
        host.link(LAN_CARD["port"], card, LAN_CARD["address"], LAN_CARD["mac"])
        host.link("peer", peer, "192.168.78.9/24")
        for port in (LAN_CARD["port"], "peer"):
            host.run(f"ip link set {port} master {LAN_BRIDGE}")
        places = (self.lab.lan, self.lab.docker, host, peer)
        self.servers = [place.listen(PORT, socket.SOCK_DGRAM) for place in places]
        near = ("192.168.77.9", "192.168.77.1", "172.17.0.2")
        self.floods = [
            self._flood(self.lab.vm, "vm", "10.201.0.1", *near),
            self._flood(self.lab.container, "container", "10.201.128.1", *near),
            self._flood(card, "card", "192.168.78.9", "192.168.78.5"),
        ]

    def _flood(self, there: Namespace, name: str, *targets: str) -> subprocess.Popen[bytes]:
        with there.inside():
            argv = (sys.executable, "-ISc", FLOOD, name, str(PORT), *targets)
            return subprocess.Popen(argv)

    def record(self) -> None:
        """Admit the guests, and load their rules."""
        (RUN / "guests").mkdir(parents=True)
        lan = {**LAN_CARD, "resolvers": []}
        for one in ({**PLAIN, **VM, "lan": lan}, {**PLAIN, **CONTAINER, "pid": os.getpid()}):
            (RUN / f"guests/{one['name']}.json").write_text(json.dumps(one))
        with self.lab.host.inside():
            argv = (sys.executable, "-ISc", GUARD.format(self.lib), "load")
            subprocess.run(argv, check=True)

    def arrived(self) -> Counter[str]:
        """Return how many datagrams have arrived, by whose they are, and forget them."""
        found = Counter[str]()
        for server in self.servers:
            server.setblocking(False)
            with suppress(BlockingIOError):
                while said := server.recv(100):
                    found[said.split()[0].decode()] += 1
        return found

    def wait_for(self, *chains: str) -> None:
        """Wait until there are such chains of nftables, with rules: the tables come before."""
        until = monotonic() + WITHIN
        for chain in chains:
            query = f"nft list chain inet {chain} forward 2> /dev/null || true"
            while "goto" not in self.lab.host.run(query):
                assert monotonic() < until, chain
                sleep(0.02)


def watcher() -> int:
    """Return the number of the process that watches."""
    with suppress(ValueError):
        return int((RUN / "watch.lock").read_text())
    return 0


def main(lib: str, rounds: int) -> dict[str, object]:
    """Flush so often at random moments; in every fifth round kill the watcher instead."""
    flood = Flood(lib)
    until = monotonic() + WITHIN
    control = Counter[str]()
    while len(control) < len(flood.floods):
        control += flood.arrived()
        assert monotonic() < until, "nothing arrives without rules, either"
        sleep(0.1)
    flood.record()
    sleep(0.1)
    flood.arrived()  # what came before
    came, flushes, kills = flood.arrived(), 0, 0
    first, second = "vagrantp", "vagrantp_held"
    has_second = second in flood.lab.host.run("nft list tables")
    for n in range(rounds):
        if has_second and n % 5 == 4:
            flood.wait_for(first, second)
            sleep(random.uniform(0, 0.2))
            killed = watcher()
            os.kill(killed, signal.SIGKILL)
            while watcher() == killed:
                sleep(0.01)
            flood.wait_for(first, second)
            kills += 1
            came += flood.arrived()
            continue
        sleep(random.uniform(0, 0.2))
        flood.lab.host.run("nft flush ruleset")
        flushes += 1
        came += flood.arrived()
    flood.wait_for(first)
    came += flood.arrived()
    for each in flood.floods:
        assert each.poll() is None
        each.kill()
    return {"control": control, "flushes": flushes, "kills": kills, "came": came}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
