"""TERM in a guest: which entry of this host is taken along."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest import terminal

HOST = Host(Context())


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "infocmp"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_terminals_own_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, monkeypatch, 'echo "$*, $TERMINFO:$TERMINFO_DIRS"')
    monkeypatch.setenv("TERMINFO", "/opt/kitty")
    assert terminal._entry(HOST, "xterm-kitty") == "-x xterm-kitty, /opt/kitty:\n"


@pytest.mark.parametrize("script", ["echo no >&2; exit 1", "exec cat /dev/zero", "exec /nowhere"])
def test_a_host_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    _program(tmp_path, monkeypatch, script)
    assert terminal._entry(HOST, "xterm-kitty") == ""


@pytest.mark.parametrize("name", ["foot", "xterm-ghostty", "rxvt-unicode-256color", "a+b.c_d"])
def test_names(name: str) -> None:
    assert terminal.NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-x", "../x", "/etc/x", "a b", "a;b", "ä", "x" * 65, "a\n"])
def test_what_is_no_name(name: str) -> None:
    assert not terminal.NAME.fullmatch(name)
