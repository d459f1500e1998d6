"""The second wall in the lab of street.py, with all of the first beside it, parts of it, or none.

How each probe ends there is not by the rules: with the first wall as without the second, and where
the first is gone, nothing that a guest sends arrives anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from vagrantp_guard.held_ruleset import OWNED, held_rules
from vagrantp_guard.lan_ruleset import DECIDED

from tests.attacks.lab import CONTAINER
from tests.attacks.lookout import Found, Lookout, Probe, Round, Scene
from tests.attacks.probes import (
    DROPPED,
    GATEWAY,
    INTERNET,
    LLDP,
    PEER,
    ROUNDS,
    arp,
    ip,
)
from tests.attacks.street import STATIONS, Street

GUESTS = ("vm", "container", "open", "tap", "card", "leased", "lantap")
# Somebody who drops what has the mark that our own rules set for one another.
OF_OTHERS = f"""
table ip marked {{
  chain out {{
    type filter hook postrouting priority 150; policy accept;
    meta mark & {DECIDED} != 0 drop
  }}
}}
"""
ALL, NOTHING = "all", "nothing"


def held_text() -> str:
    """Return the second wall, of no owner: it stays when nft(8) ends."""
    return held_rules([CONTAINER["port"]]).replace(f"  {OWNED}\n", "")


def beside(text: str) -> str:
    """Return the first wall with the second beside it."""
    return text + held_text()


class Second(Lookout):
    """The second wall in a street, to be mutated. The first line of a text says what is gone."""

    prefix = "second wall: "

    def __init__(self, street: Street) -> None:
        Lookout.__init__(self, street.links)
        self.street = street

    def text(self) -> str:
        """Return the second wall."""
        return held_text()

    def load_text(self, text: str) -> None:
        """Write it, and the first wall but for what is gone."""
        gone, _, second = text.partition("\n")
        self.street.load_text(without(self.street.text(), gone) + second + OF_OTHERS)

    def nft(self, text: str) -> None:
        """Run nft(8) on the host."""
        self.street.nft(text)

    def received(self, place: str) -> Iterable[bytes]:
        """Return the frames that the next message of a link brings."""
        return self.street.received(place)

    def send(self, probe: Probe, number: int) -> None:
        """Send a probe."""
        self.street.send(probe, number)

    def ask(self, found: Found) -> None:
        """Add what the host itself has received."""
        self.street.ask(found)


def without(text: str, gone: str) -> str:
    """Return the first wall without something: "all", a table's family, or family and chain."""
    if gone == ALL:
        return ""
    if gone == NOTHING:
        return text
    family, _, chain = gone.partition(" ")
    if not chain:
        return re.sub(rf"table {family} vagrantp {{\n.*?\n}}\n", "", text, flags=re.S)
    found = re.search(rf"table {family} vagrantp .*?(  chain {chain} {{\n.*?\n  }}\n)", text, re.S)
    assert found, gone
    return text[: found.start(1)] + text[found.end(1) :]


def _where(gone: str) -> Callable[[str], str]:
    return partial("{}\n{}".format, gone)


def _of_guests() -> Iterator[Round]:
    """All that guests send elsewhere in these tests, and none of it arrives."""
    for each in ROUNDS:
        probes = [p for p in each.probes if p.origin in GUESTS]
        yield Round([replace(probe, end=DROPPED) for probe in probes])


def passing() -> Iterator[Probe]:
    """What each part of the first wall lets through."""
    yield Probe("vm", "ARP", arp(), "bridge")
    yield Probe("vm", "to the internet", ip(INTERNET), "internet")
    yield Probe("vm", "asks its resolver", ip(GATEWAY, 53), "host:53+resolver")
    yield Probe("card", "to the internet", ip(INTERNET), "peer")


def _to_others() -> Iterator[Probe]:
    """What goes from port to port, past the host. Somebody else's port sees what goes to all."""
    for origin, to in (("vm", "open"), ("container", "foreign"), ("foreign", "container")):
        there, end = STATIONS[to], "port" if origin == "vm" else DROPPED
        yield Probe(origin, f"to {to} on its bridge", ip(there.ip, to=there.mac), end)


def _by_the_host() -> Iterator[Probe]:
    """What the host would take, or pass on."""
    yield Probe("vm", "to the host", ip(GATEWAY), "bridge")
    yield Probe("vm", "to the internet", ip(INTERNET), "bridge")
    yield Probe("lan", "to a guest", ip(STATIONS["vm"].ip), DROPPED)
    yield Probe("card", "to the internet, past the host", ip(INTERNET), "peer")
    for guest in ("vm", "card"):
        yield Probe(guest, "LLDP", ip(PEER, to=LLDP), DROPPED)


SECOND_SCENES = (
    Scene(ROUNDS, _where(NOTHING)),
    Scene((*_of_guests(),), _where(ALL)),
    Scene((Round([*_by_the_host()]),), _where("inet")),
    Scene((Round([Probe("vm", "ARP", arp(), DROPPED)]),), _where("bridge input")),
    Scene((Round([*_to_others()]),), _where("bridge forward")),
)
SCENE_BESIDE = Scene((Round([*passing()]),), beside)
