"""Mirrors of a guest's packages: which ones it may not reach."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest import mirrors
from vagrantp.settings import env

from tests.conftest import CONTAINER, env_text

SOURCES = """\
# deb http://10.9.9.9/old trixie main
deb [signed-by=/usr/share/keyrings/a.gpg] http://192.168.7.9:3142/debian trixie main
deb http://deb.example/debian trixie main
"""
DEB822 = "Types: deb\nURIs: https://10.4.4.4/debian\nSuites: trixie\n"


def said(tmp_path: Path, printed: str, **values: object) -> list[str]:
    (tmp_path / ".env").write_text(env_text({**CONTAINER, **values}))
    return mirrors.out_of_reach(Host(Context()), env.load(tmp_path), printed)


def test_both_forms_of_sources_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(SOURCES)
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    script = mirrors.SCRIPT.replace("/etc/apt", str(tmp_path))
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
    found = [("192.168.7.9", 3142), ("deb.example", 80), ("10.4.4.4", 443)]
    assert sorted(mirrors.places(printed)) == sorted(found)


def test_what_allows_it_is_said(tmp_path: Path) -> None:
    assert said(tmp_path, "http://192.168.7.9:3142/debian\n") == [
        "the guest's apt asks 192.168.7.9, which it may not reach: "
        "LAN_ALLOW=192.168.7.9:3142 allows it"
    ]


@pytest.mark.parametrize(
    ("printed", "values"),
    [
        ("http://192.168.7.9:3142/debian\n", {"LAN_ALLOW": "192.168.7.9:3142"}),
        ("http://192.168.7.9/debian\n", {"LAN_ALLOW": "192.168.7.0/24"}),
        ("http://192.168.7.9/debian\n", {"LAN_ACCESS": "yes"}),
        ("http://198.51.100.7/debian\n", {}),
        ("http://:/\nhttp://[::1]/\nhttp://10.0.0.1:99999/\nhttp://$(id)/\nx\n", {}),
        ("", {}),
    ],
)
def test_what_is_in_reach_is_no_matter(
    tmp_path: Path, printed: str, values: dict[str, object]
) -> None:
    assert said(tmp_path, printed, **values) == []


def test_another_port_is_not_enough(tmp_path: Path) -> None:
    assert said(tmp_path, "http://192.168.7.9/debian\n", LAN_ALLOW="192.168.7.9:3142") != []
