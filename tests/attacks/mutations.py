"""What each line of the rules is for: it is removed, and the probes say what gets through then.

`make mutations` writes mutations.md, and fails if no probe misses a line. As root, in a minute.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from vagrantp_guard.contract import PRIVATE

from tests.attacks.lookout import Lookout, Scene
from tests.attacks.pod import POD_SCENES, Pod
from tests.attacks.probes import SCENES
from tests.attacks.second import SCENE_BESIDE, SECOND_SCENES, Second
from tests.attacks.street import Street

TABLE = Path(__file__).with_suffix(".md")
QUIET, PATIENT = 20, 200  # milliseconds until a round is over; on a busy host
SETS = ("private", "on_link", "lan_closed")  # whose elements are removed in turn, too
HEAD = """\
# What each line of the rules is for

Written by `make mutations`: each line of a chain, and each network of a set, is
removed in turn, and probes.py sends. So many probes of the first scene with any end otherwise.

| where | line | probes | for example |
| --- | --- | --- | --- |
"""


def mutations(there: Lookout) -> Iterator[tuple[str, str, str]]:
    """Yield each line of a chain, and each network of SETS: where, what, the text without it."""
    for place, line, text in _mutations(there.text()):
        yield there.prefix + place, line, text


def _mutations(text: str) -> Iterator[tuple[str, str, str]]:
    family = place = ""
    for found in re.finditer(r"(?:[^\n\\]|\\\n?)*\n", text):
        line = " ".join(found[0].replace("\\\n", " ").split())
        if start := re.match(r"(table|chain|set) (\w+)", line):
            family = start[2] if start[1] == "table" else family
            place = f"{family} {start[2]}"
        if place.split()[-1] in SETS and (listed := re.search(r"elements = {([^}]*)}", found[0])):
            for element in (items := listed[1].split(",")):
                if _is_covered(element.strip(), place):
                    continue
                rest = ",".join(item for item in items if item is not element)
                line = found[0].replace(listed[0], f"elements = {{{rest}}}" if rest else "")
                yield place, element.strip(), _without(text, found, line)
        elif not start and line != "}" and f"chain {place.split()[-1]} " in text:
            yield place, line, _without(text, found, "")


def _is_covered(element: str, place: str) -> bool:
    """Say whether another element, or rule, has the network as well."""
    inside = any(IPv4Network(element).subnet_of(IPv4Network(each)) for each in PRIVATE)
    is_local = element == "127.0.0.0/8" and place == "inet private"  # to_host refuses it before
    return is_local or (inside and (element not in PRIVATE or place == "inet on_link"))


def _without(text: str, found: re.Match[str], line: str) -> str:
    return text[: found.start()] + line + text[found.end() :]


def failures(there: Lookout, scene: Scene, text: str, quiet: int = QUIET) -> list[str]:
    """Return the probes of a scene that end otherwise than they should."""
    ends = there.ends(scene.text(text), scene.rounds, quiet)
    wanted = {probe.name: probe.end for each in scene.rounds for probe in each.probes}
    return [
        f"{name}: {end}, not {wanted[name]}" for name, end in ends.items() if end != wanted[name]
    ]


def listed(found: dict[tuple[str, str], list[str]]) -> str:
    """Return the table."""
    rows = (
        f"| {where} | `{line.replace('|', chr(92) + '|')}` | {len(which)} | {(*which, '-')[0]} |"
        for (where, line), which in found.items()
    )
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write the table, and print the lines that no probe misses."""
    street = Street()
    subjects: list[tuple[Lookout, Sequence[Scene]]] = [
        *((street, (*SCENES, SCENE_BESIDE)), (Second(street), SECOND_SCENES)),
        (Pod(), POD_SCENES),
    ]
    broken = [
        each
        for there, scenes in subjects
        for scene in scenes
        for each in failures(there, scene, there.text(), PATIENT)
    ]
    if broken:
        print("The rules are not what the probes want:", *broken, sep="\n")
        return 1
    found = {
        (where, line): next(filter(None, (failures(there, s, mutated) for s in scenes)), [])
        for there, scenes in subjects
        for where, line, mutated in mutations(there)
    }
    TABLE.write_text(listed(found), encoding="utf-8")
    missed = [f"{where}: {line}" for (where, line), which in found.items() if not which]
    print(f"{len(found)} lines, {len(missed)} without a probe", *missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
