"""The ids of this host that belong to a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ConflictError
from vagrantp.core.system import Host
from vagrantp.instance.record import Instance
from vagrantp.providers.podman import ids

FIRST, SECOND, LAST = ids.BLOCKS[0], ids.BLOCKS[1], ids.BLOCKS[-1]


@pytest.mark.parametrize(
    ("identity", "taken", "expected"),
    [
        ("00000000", [], FIRST),
        ("00000001", [], SECOND),
        ("00000000", [range(FIRST, FIRST + ids.SIZE)], SECOND),
        ("00000000", [range(SECOND - 1, SECOND)], SECOND),
        ("00000000", [range(FIRST - 10, FIRST + 1)], SECOND),
        ("00000000", [range(FIRST - 10, FIRST), range(SECOND, SECOND + 9)], FIRST),
        (f"{len(ids.BLOCKS) - 1:08x}", [range(LAST, LAST + 1)], FIRST),
    ],
)
def test_a_container_gets_ids_that_nobody_has(
    identity: str, taken: list[range], expected: int
) -> None:
    assert ids.choose(identity, taken) == expected


@pytest.mark.parametrize(
    ("identity", "taken", "expected"),
    [
        ("00000000", [], FIRST),
        ("00000000", [range(SECOND, SECOND + 1)], SECOND + ids.SIZE),
        (f"{len(ids.BLOCKS) - 3:08x}", [], ids.BLOCKS[-3]),
        (f"{len(ids.BLOCKS) - 2:08x}", [], FIRST),  # they have to be in one piece
    ],
)
def test_ids_of_one_that_makes_containers(identity: str, taken: list[range], expected: int) -> None:
    assert ids.choose(identity, taken, ids.NESTED_SIZE) == expected


def test_nobody_gets_what_one_that_makes_containers_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folders = [tmp_path / f"vagrantp/{name}" for name in ("a-00000000", "b-00000001", "c-00000002")]
    for folder in folders:
        folder.mkdir(parents=True)
    host = Host(Context())
    took = [ids.take(host, folders[0], ids.NESTED_SIZE)]
    took += [ids.take(host, folder, ids.SIZE) for folder in folders[1:]]
    assert took == [FIRST, FIRST + 3 * ids.SIZE, FIRST + 4 * ids.SIZE]


def test_ids_run_out() -> None:
    with pytest.raises(ConflictError):
        ids.choose("00000000", [range(2**32)])


def test_ids_are_nobody_elses_by_default() -> None:
    nspawn = 0x6FFF_FFFF  # the last of systemd's containers, https://systemd.io/UIDS-GIDS/
    foreign = 0x7FFE_0000  # the first of systemd's foreign images
    assert nspawn < FIRST
    assert foreign >= LAST + ids.SIZE


def test_what_subuid_gives_away() -> None:
    text = "av:100000:65536\n1000:1879048192:10\n\n# no line\nav:x:1\nshort:1\n"
    assert ids.subordinate(text) == [range(100000, 165536), range(1879048192, 1879048202)]


def test_root_of_a_process_is_read_live() -> None:
    instance = Instance("app", "0a1b2c3d", Path("/none"), "container")
    [live], [ended] = (ids.check(instance, pid) for pid in (str(os.getpid()), ""))
    assert live.name == ended.name == "user namespace"
    assert live.found.startswith("root is uid ")
    assert ended.found == "nothing"
