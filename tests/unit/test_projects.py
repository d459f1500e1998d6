"""Which folders are projects, whatever `.env` is: what cannot be read may have our key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vagrantp.core.documents import MAX_BYTES
from vagrantp.core.places import defaults_path, id_from, state_root
from vagrantp.instance.projects import is_within


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "projects/app").mkdir(parents=True)
    return tmp_path / "projects/app"


@pytest.mark.parametrize(
    "text",
    [
        "INFRA_TYPE=vm\n",
        "VAGRANTP_INFRA_TYPE=vm\n",
        "A=1\r\rexport 'INFRA_TYPE' = nonsense",
        "\ufeffINFRA_TYPE",
        "INFRA_TYPE=vm\nINFRA_TYPE=vm\n",
        "INFRA_TYPE='vm\n",
        "NAME=caf\N{LATIN SMALL LETTER E WITH ACUTE}\nINFRA_TYPE=vm\n".encode("latin-1"),
        b"\0\xff\nINFRA_TYPE=vm",
        "A=1\n" * (MAX_BYTES // 4) + "INFRA_TYPE=vm\n",
    ],
)
def test_settings(folder: Path, text: str | bytes) -> None:
    (folder / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert is_within(folder)
    assert is_within(folder / "sub/sub")
    assert not is_within(folder.parent)


@pytest.mark.parametrize(
    "text", ["", "# INFRA_TYPE=vm\n", "MY_INFRA_TYPE=vm\n", "A='\nINFRA_TYPE=vm\n'", b"\xff=1\n"]
)
def test_settings_of_others(folder: Path, text: str | bytes) -> None:
    assert not is_within(folder)
    (folder / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert not is_within(folder)


def test_a_virtual_environment(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert not is_within(folder)


@pytest.mark.parametrize("target", ["nothing", ".env", "/dev/zero", "fifo", "settings"])
def test_a_link(folder: Path, target: str) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "settings").write_text("INFRA_TYPE=vm")
    (folder / ".env").symlink_to(target)
    assert is_within(folder)


def test_a_type_for_all_projects(folder: Path) -> None:
    defaults_path().parent.mkdir(parents=True)
    defaults_path().write_text("INFRA_TYPE=vm\n")
    assert not is_within(folder)
    (folder / ".env").write_text("MEMORY=512\n")
    assert is_within(folder)


def test_an_instance_whose_settings_are_gone(folder: Path) -> None:
    (state_root() / f"it-s-my-app-{id_from(folder)}").mkdir(parents=True)
    assert is_within(folder)
    (folder.parent / "link").symlink_to(folder)
    assert is_within(folder.parent / "link")
    assert is_within(folder / "sub/../..") and not is_within(folder.parent)
