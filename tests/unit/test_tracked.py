"""Which closed names a guest may write since HEAD has them."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.instance import tracked
from vagrantp.instance.record import Instance
from vagrantp_guard.contract import Tracked, tracked_path
from vagrantp_guard.released import open_record, released
from vagrantp_guard.system import Refused

HAD, NEW = (".husky", "x"), (".vscode", "tasks\udcff.json")
ME = (os.getuid(), os.getgid())


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """Return an instance whose folder was first given to a guest with HAD in HEAD."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = Instance("app", "01234567", tmp_path / "app", "container")
    found.state_dir.mkdir(parents=True)
    start(found, HAD)
    return found


def start(instance: Instance, *names: tuple[str, ...]) -> set[tuple[str, ...]]:
    record = open_record(instance.state_dir, ME)
    try:
        return {*released(frozenset(names), record)}
    finally:
        os.close(record)


def test_what_came_since_is_not_released(instance: Instance) -> None:
    assert start(instance, HAD, NEW) == {HAD}
    assert start(instance, HAD, NEW) == {HAD}
    assert ".vscode/tasks\\udcff.json" in tracked.waiting(instance)
    assert start(instance, NEW) == set()  # HEAD no longer has the other
    assert start(instance, HAD) == {HAD}
    assert tracked.waiting(instance) == ""


def test_what_a_person_agrees_to_is_released(instance: Instance) -> None:
    start(instance, HAD, NEW)
    host = Host(Context())
    assert "tasks" in tracked.release(host, instance)
    assert tracked.release(host, instance) == tracked.waiting(instance) == ""
    assert start(instance, HAD, NEW, (".idea", "x")) == {HAD, NEW}  # and no more


def test_it_outlives_the_instance(instance: Instance) -> None:
    assert not instance.tracked.is_relative_to(instance.state_dir)
    assert instance.tracked == tracked_path(instance.state_dir)


@pytest.mark.parametrize("text", ["{", "[]", '{"released": 1, "since": []}', "\udcff"])
def test_a_record_that_is_none_releases_nothing(instance: Instance, text: str) -> None:
    instance.tracked.write_text(text, errors="surrogateescape")
    assert start(instance, HAD) == set()
    assert json.loads(instance.tracked.read_text()) == {"released": [], "since": [".husky/x"]}


def test_a_write_that_fails_releases_no_more(instance: Instance) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(OSError):
            start(instance, HAD, NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert start(instance, HAD, NEW) == {HAD}


def test_a_record_that_is_a_link_is_refused(instance: Instance) -> None:
    instance.tracked.unlink()
    instance.tracked.symlink_to("/etc/passwd")
    with pytest.raises(Refused):
        open_record(instance.state_dir, ME)


def test_a_record_is_read_as_it_was_written() -> None:
    known = Tracked(frozenset(["a"]), frozenset(["b/c"]))
    assert Tracked.from_json(json.loads(json.dumps(known.to_json()))) == known
    with pytest.raises(ValueError):
        Tracked.from_json({"released": [1], "since": []})
