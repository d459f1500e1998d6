"""The rules in the lab of street.py: how each probe ends, and that each line has one."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import ceil

import pytest
from vagrantp_guard.contract import Policy

from tests.attacks.mutations import PATIENT, TABLE, failures, mutations
from tests.attacks.pod import POD_SCENES, POLICY, Pod, opened, pod_rules
from tests.attacks.probes import ROUNDS, SCENES, TALKS
from tests.attacks.second import SCENE_BESIDE, SECOND_SCENES, Second
from tests.attacks.street import Street


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    made = Street()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    made = Pod()
    yield made
    made.close()


def test_each_probe_has_a_name_of_its_own() -> None:
    for scene in (*SCENES, SCENE_BESIDE, *SECOND_SCENES, *POD_SCENES):
        names = Counter(probe.name for each in scene.rounds for probe in each.probes)
        assert [name for name, times in names.items() if times > 1] == []


def test_each_probe_ends_as_it_should(street: Street) -> None:
    for scene in (*SCENES, SCENE_BESIDE):
        assert failures(street, scene, street.text(), PATIENT) == []


def test_each_probe_ends_as_it_should_where_there_is_a_second_wall(street: Street) -> None:
    """And where only that is left, nothing that a guest sends arrives."""
    there = Second(street)
    for scene in SECOND_SCENES:
        assert failures(there, scene, there.text(), PATIENT) == []


def test_each_probe_of_a_users_container_ends_as_it_should(pod: Pod) -> None:
    for scene in POD_SCENES:
        assert failures(pod, scene, pod.text(), PATIENT) == []


def test_the_rules_of_a_users_container_with_lan_access() -> None:
    policy = Policy(lan_access=True, lan_allow=POLICY.lan_allow)
    assert opened(pod_rules(POLICY)) == pod_rules(policy)


def test_through_iptables_too(street: Street) -> None:
    """What is dropped behind a bridge is dropped on it, where a bridge calls all other hooks."""
    calls = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    street.host.run(f"echo 1 > {calls} || true")
    try:
        ends = street.ends(street.text(), ROUNDS, PATIENT)
    finally:
        street.host.run(f"echo 0 > {calls} || true")
    for each in ROUNDS:
        for probe in each.probes:
            same = {probe.end, "dropped"} if probe.end == "bridge" else {probe.end}
            assert ends[probe.name] in same, probe.name


def test_the_table_has_every_line_of_the_rules(street: Street, pod: Pod) -> None:
    rows = re.findall(r"^\| (.*?) \| `(.*)` \| (\d+) \|", TABLE.read_text(), re.MULTILINE)
    known = {(where, line.replace("\\|", "|")) for where, line, probes in rows if int(probes)}
    now = [*mutations(street), *mutations(Second(street)), *mutations(pod)]
    assert {(where, line) for where, line, _ in now} == known


UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}


def test_how_long_a_card_remembers(street: Street) -> None:
    """Half a minute what nobody has answered or somebody ended, and what docs/isolation.md says."""
    street.ends(street.text(), TALKS, PATIENT)
    found = defaultdict[str, set[float]](set)
    for name in ("seen", "asked", "pinged"):
        listed = street.host.run(f"nft list set bridge vagrantp {name}")
        for element in re.findall(r"elements = {([^}]*)}", listed)[0].split(","):
            kind = next((word for word in ("tcp", "udp") if f" {word} " in element), "")
            left = re.findall(r"(\d+)(ms|[dhms])", element.partition(" expires ")[2])
            seconds = sum(int(number) * UNITS[unit] for number, unit in left)
            found[f"{name} {kind}".strip()].add(10 * ceil(seconds / 10))
    short, udp, tcp = 30, 3 * 60, 6 * 3600
    assert found == {
        **{"seen tcp": {short, tcp}, "seen udp": {short, udp}, "pinged": {short}},
        **{"asked tcp": {short, tcp}, "asked udp": {short, udp}},
    }
