"""What a guest may have changed: what is compared, copied, and never followed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import StateError
from vagrantp.core.system import Host
from vagrantp.instance import record, trust
from vagrantp.instance.record import Instance
from vagrantp.settings import env
from vagrantp.settings.env import Settings

ENV = "INFRA_TYPE=container\nMEMORY=256\nCPUS=1\nDISK=3\nMOUNT=rw\n"
ENV += "PROVISION_SCRIPT=sub/site.yml,run\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    folder = tmp_path / "it's mine"
    (folder / "sub/roles/own/tasks").mkdir(parents=True)
    (folder / "sub/roles/own/tasks/main.yml").write_text("[]\n")
    (folder / "sub/site.yml").write_text("- hosts: all\n")
    (folder / "sub/notes.txt").write_text("nobody's\n")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / ".env").write_text(ENV)
    return folder


def accepted(folder: Path, *, says: bool = False) -> tuple[Instance, Settings, list[str]]:
    """Take what is there; return what was asked about."""
    asked: list[str] = []

    def is_sure(text: str) -> bool:
        asked.extend(text.splitlines()[1:])
        return says

    settings = env.load(folder)
    made = record.new(settings, folder)
    trust.accept(Host(Context()), made, settings, is_sure)
    return made, settings, [line.strip() for line in asked]


def test_nothing_is_asked_the_first_time_and_while_nothing_changes(project: Path) -> None:
    made, _, asked = accepted(project)
    assert asked == []
    copies = made.accepted / "files"
    found = sorted(str(path.relative_to(copies)) for path in copies.rglob("*") if path.is_file())
    assert found == ["run", "sub/roles/own/tasks/main.yml", "sub/site.yml"]
    assert os.access(copies / "run", os.X_OK)
    assert made.source(project / "sub/site.yml") == copies / "sub/site.yml"
    assert made.source(project / "sub/../run") == copies / "run"
    assert made.source(Path("/etc/hostname")) == Path("/etc/hostname")
    (project / "sub/notes.txt").write_text("changed")
    assert accepted(project)[2] == []


def test_each_change_is_told_and_needs_a_yes(project: Path) -> None:
    accepted(project)
    (project / ".env").write_text(ENV.replace("MEMORY=256", "MEMORY=300") + "LAN_ACCESS=yes\n")
    (project / "run").chmod(0o700)  # no change: it is the owner who runs it
    (project / "sub/roles/own/tasks/main.yml").write_text("- command: id\n")
    (project / "sub/group_vars").mkdir()
    (project / "sub/group_vars/all").write_text("a: 1\n")
    told = [
        *("MEMORY: 256 → 300", "LAN_ACCESS: no → yes"),
        *("sub/group_vars/all is new", "sub/roles/own/tasks/main.yml is changed"),
    ]
    for _ in range(2):
        with pytest.raises(StateError) as refused:
            accepted(project)
        assert [line.strip() for line in str(refused.value).splitlines()[1:-1]] == told
    made, _, asked = accepted(project, says=True)
    assert asked == told
    copy = made.source(project / "sub/roles/own/tasks/main.yml")
    assert copy.read_text() == "- command: id\n"
    (project / "sub/group_vars/all").unlink()
    with pytest.raises(StateError, match="sub/group_vars/all is gone"):
        accepted(project)


def test_what_is_killed_between_two_copies_still_asks(project: Path) -> None:
    made, _, _ = accepted(project)
    made.accepted.rename(trust._next(made))
    (project / "run").write_text("#!/bin/sh\nmore\n")
    with pytest.raises(StateError, match="run is changed"):
        accepted(project)


def test_a_link_is_never_followed(project: Path, tmp_path: Path) -> None:
    accepted(project)
    secret = tmp_path / "secret"
    secret.write_text("- hosts: all # secret\n")
    (project / "sub/site.yml").unlink()
    (project / "sub/site.yml").symlink_to(secret)
    with pytest.raises(StateError, match=r"sub/site\.yml: site\.yml is a link"):
        accepted(project, says=True)
    (project / "sub").rename(tmp_path / "elsewhere")
    (project / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"sub is a link"):
        accepted(project, says=True)
    assert "secret" not in "".join(
        path.read_text() for path in (tmp_path / "STATE").rglob("*") if path.is_file()
    )


def test_a_fifo_keeps_nobody_waiting(project: Path) -> None:
    os.mkfifo(project / "sub/roles/own/tasks/more.yml")
    with pytest.raises(StateError, match="no regular file"):
        accepted(project)


def test_what_is_forgotten(project: Path) -> None:
    made, settings, _ = accepted(project)
    host = Host(Context())
    (project / "run").write_text("#!/bin/sh\nmore\n")
    trust.forget(host, made)
    assert made.accepted.is_dir()
    accepted(project, says=True)
    trust.forget(host, made)
    assert not made.accepted.parent.exists()
    # and of a guest that may not write nothing is kept
    trust.accept(host, made, replace(settings, mount="ro"), lambda _: False)
    assert not made.accepted.exists()
