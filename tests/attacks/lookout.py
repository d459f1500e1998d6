"""Sends probes through rules, and sees how each ends: what arrives where, what comes back."""

from __future__ import annotations

import select
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import sleep

from tests.attacks import frames

REFUSALS = {"reset", "prohibited", "unreachable"}
SIZE = 1460  # of the segments that frames.tcp allows
Found = defaultdict[int, set[str]]  # by a probe's number: where it was seen, how it was refused


@dataclass(frozen=True)
class Station:
    """Who sends: its MAC and address, and the MAC that its packets go to.

    `link`: the bridge, or other device, of the host that it is behind; `port`: its port there.
    """

    mac: str
    ip: str
    to: str
    link: str = ""
    port: str = ""


Frame = Callable[[Station, int], bytes]


@dataclass(frozen=True)
class Probe:
    """A frame that somebody sends, and how it ends.

    `end`: the places that it arrives at, sorted, with + between them: a namespace, host:PORT,
    "heard" for listener.py, "port" for the host past all hooks of its bridge, "bridge" where it
    came to the host's card on a bridge and no further. Or "reset" (TCP) or "prohibited" (ICMP), at
    once; else "dropped".
    """

    origin: str
    what: str
    frame: Frame
    end: str

    @property
    def name(self) -> str:
        return f"{self.origin}: {self.what}"


@dataclass(frozen=True)
class Round:
    """Probes that are sent together, after `pause` in seconds and `first`, input for nft(8)."""

    probes: Sequence[Probe]
    first: str = ""
    pause: float = 0


@dataclass(frozen=True)
class Scene:
    """Probes, and what is changed in the rules for them."""

    rounds: Sequence[Round]
    text: Callable[[str], str] = str


class Lookout:
    """Whoever sees what the probes become. `links`: sockets that receive each frame, by place."""

    prefix = ""  # to names of chains

    def __init__(self, links: Mapping[str, socket.socket]) -> None:
        self.links = links
        self.poll = select.poll()
        for link in links.values():
            self.poll.register(link, select.POLLIN)
        self.by_file = {link.fileno(): name for name, link in links.items()}

    def text(self) -> str:
        """Return the rules, as input for nft(8)."""
        raise NotImplementedError

    def nft(self, text: str) -> None:
        """Run nft(8) where the rules are."""
        raise NotImplementedError

    def load_text(self, text: str) -> None:
        """Write rules, and forget what was sent before."""
        raise NotImplementedError

    def send(self, probe: Probe, number: int) -> None:
        """Send a probe."""
        raise NotImplementedError

    def received(self, place: str) -> Iterable[bytes]:
        """Return the frames that the next message of a link brings."""
        data, origin = self.links[place].recvfrom(65536)
        return [] if origin[2] == socket.PACKET_OUTGOING else [data]

    def ask(self, found: Found) -> None:
        """Add what no link has seen."""

    def ends(self, text: str, rounds: Sequence[Round], quiet: int) -> dict[str, str]:
        """Send all probes through the rules `text`; return how each ended, by its name.

        `quiet`: milliseconds without a frame after which a round is over.
        """
        self.load_text(text)
        self._collect(Found(set), 0)
        found = Found(set)
        number, names = 0, {}
        for each in rounds:
            sleep(each.pause)
            if each.first:
                self.nft(each.first)
            for probe in each.probes:
                number += 1
                names[number] = probe.name
                self.send(probe, number)
            self._collect(found, quiet)
        self.ask(found)
        return {name: _end(found[number]) for number, name in names.items()}

    def _collect(self, found: Found, quiet: int) -> None:
        while ready := self.poll.poll(quiet):
            for file, _ in ready:
                place = self.by_file[file]
                for data in self.received(place):
                    known = frames.number_of(data)
                    if not known:
                        continue
                    number, refusal = known
                    size = frames.segment_size(data)
                    narrowed = "" if size in (None, SIZE) else f" mss {size}"
                    is_bridge = place.startswith(("vagrantp", "br"))
                    found[number].add(refusal or ("bridge" if is_bridge else place + narrowed))

    def close(self) -> None:
        """Close the links."""
        for link in self.links.values():
            link.close()


def _end(found: set[str]) -> str:
    """Return how a probe ended, by all that was seen of it."""
    arrived = found - REFUSALS - {"bridge"}
    for ends in (arrived, found & REFUSALS, found):
        if ends:
            return "+".join(sorted(ends))
    return "dropped"
