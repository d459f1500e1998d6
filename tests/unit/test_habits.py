"""What a guest changed in the project folder, of what people run there out of habit."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.instance import habits
from vagrantp.instance.found import Found, State
from vagrantp.instance.habits import Changed, Last, Seen
from vagrantp.instance.record import Instance
from vagrantp.verbs.steps import report

FILES = ("Makefile", "sub/package.json", ".github/workflows/ci.yml", ".vscode/tasks.json")
NO_FILES = ("main.c", "docs/index.md", "node_modules/x/package.json", ".git/hooks/pre-commit")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with files of both kinds."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in (*FILES, *NO_FILES):
        put(tmp_path / "app" / name, "one\n")
    return tmp_path / "app"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_looked_at(folder: Path) -> None:
    seen = habits.look(folder)
    assert (sorted(seen.found), seen.is_whole) == (sorted(FILES), True)
    assert {kind for kind, _ in seen.found.values()} == {""}


def test_what_changed(folder: Path) -> None:
    before = habits.look(folder)
    assert habits.changes(before, habits.look(folder)) == []
    put(folder / "main.c", "two\n")
    put(folder / "Makefile", "two\n")
    put(folder / "new/justfile", "")
    (folder / "sub/package.json").unlink()
    assert habits.changes(before, habits.look(folder)) == [
        Changed("Makefile", "changed"),
        Changed("new/justfile", "new"),
        Changed("sub/package.json", "gone"),
    ]


def test_what_is_no_file_is_named_and_never_opened(folder: Path) -> None:
    before = habits.look(folder)
    os.mkfifo(folder / "pipe")
    (folder / "Makefile").unlink()
    os.mkfifo(folder / "Makefile")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "sub/s"))
    (folder / "inside").symlink_to("sub")
    (folder / "out").symlink_to("sub/../..")
    (folder / "there").symlink_to("/project/Makefile")
    (folder / "loop").symlink_to("loop")
    (folder / "justfile").symlink_to("main.c")
    (folder / "by").symlink_to("inside/link")
    (folder / "sub/link").symlink_to("/etc/passwd")
    assert [str(one) for one in habits.changes(before, habits.look(folder))] == [
        "changed  Makefile (FIFO)",
        "new      by (link out of the folder)",
        "new      justfile (link)",
        "new      out (link out of the folder)",
        "new      pipe (FIFO)",
        "new      sub/link (link out of the folder)",
        "new      sub/s (socket)",
        "new      there (link out of the folder)",
    ]
    before = habits.look(folder)
    (folder / "out").unlink()
    (folder / "out").symlink_to("/etc")
    assert habits.changes(before, habits.look(folder)) == [
        Changed("out", "changed", "link out of the folder")
    ]


def test_a_link_in_place_of_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/Makefile", "")
    (folder / "to").symlink_to(tmp_path / "elsewhere")
    assert [path for path in habits.look(folder).found if "/" not in path] == ["Makefile", "to"]


def test_a_large_file_is_not_read(folder: Path) -> None:
    with (folder / "Makefile").open("wb") as file:
        file.truncate(1024**4)
    before = habits.look(folder)
    os.utime(folder / "Makefile", (1, 1))
    assert habits.changes(before, habits.look(folder)) == [Changed("Makefile", "changed")]


@pytest.mark.parametrize(
    ("todo", "is_named"),
    [
        ("pick 1234567 one\n", False),
        ("# exec is explained here\npick 1234567 exec\n", False),
        ("pick 1234567 one\nexec make\n", True),
        ("pick 1234567 one\n  x make\n", True),
    ],
)
@pytest.mark.parametrize("repository", ["", "sub/"])
def test_a_rebase_that_runs_commands(
    folder: Path, repository: str, todo: str, is_named: bool
) -> None:
    before = habits.look(folder)
    path = f"{repository}.git/rebase-merge/git-rebase-todo"
    put(folder / path, todo)
    found = habits.changes(before, habits.look(folder))
    assert found == (
        [Changed(path, "new", "git rebase --continue runs commands")] if is_named else []
    )


def test_a_flood_hides_nothing_above_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = habits.look(folder)
    monkeypatch.setattr(habits, "MAX_ENTRIES", 100)
    for number in range(200):
        put(folder / f"aaa/{number}/Makefile", "")
    put(folder / "Makefile", "two\n")
    (folder / "sub/package.json").unlink()
    now = habits.look(folder)
    assert not now.is_whole
    found = habits.changes(before, now)
    assert Changed("Makefile", "changed") in found
    assert not [one for one in found if one.change == "gone"]
    assert "the folder is too large to look at all of it" in habits.text(found, now.is_whole)
    again = habits.changes(now, before)
    assert not [one for one in again if one.change == "new"]


def test_what_a_person_is_shown() -> None:
    many = [Changed(f"{number:02}\x1b/Makefile", "new") for number in range(13)]
    lines = habits.text(many).splitlines()
    assert lines[0] == "changed in the folder, of what programs on this host run or obey:"
    assert lines[1] == r"  new      00\x1b/Makefile"
    assert (len(lines), lines[-1]) == (12, "  and 3 more")
    assert habits.text([]) == ""


# What is remembered, and who hears of what.

HOST = Host(Context())


def found_in(state: State, folder: Path) -> Found:
    """Return a complete instance with MOUNT=rw in a state."""
    instance = Instance("app", "0a1b2c3d", folder, "container")
    put(instance.ssh_config, "")
    return Found(instance, state, os.getuid(), live=state)


def test_what_is_remembered(folder: Path) -> None:
    instance = found_in("running", folder).instance
    assert habits.last(instance) is None
    seen = Seen({"Makefile": ("", "abc"), "odd\udcff": ("FIFO", "")}, is_whole=False)
    habits.remember(HOST, instance, seen, is_stopped=True)
    assert habits.last(instance) == Last(seen, is_stopped=True)
    assert instance.habits.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"found": []}', '{"found": {"a": "b"}}', '{"found": {"a": 1}}']
)
def test_a_record_that_is_none_counts_as_none(folder: Path, text: str) -> None:
    instance = found_in("running", folder).instance
    instance.habits.write_text(text)
    assert habits.last(instance) is None


def test_only_what_a_guest_may_have_done_is_reported(folder: Path) -> None:
    def said() -> bool:
        return bool(report.changed(found, habits.look(folder)))

    found = found_in("absent", folder)
    report.started(HOST, found, found.instance, habits.look(folder))
    found = found_in("running", folder)
    assert not said()
    put(folder / "Makefile", "two\n")
    assert said()
    report.started(HOST, found, found.instance, habits.look(folder))  # a second `up`
    assert said()
    found = found_in("stopped", folder)  # of itself
    assert said()
    habits.remember(HOST, found.instance, habits.look(folder), is_stopped=True)
    put(folder / "Makefile", "by a person\n")
    assert not said()
    found = found_in("running", folder)  # by AUTOSTART, say
    assert said()
    found = found_in("stopped", folder)
    report.started(HOST, found, found.instance, habits.look(folder))
    found = found_in("running", folder)
    assert not said()
    assert report.changed(found, None) == []
