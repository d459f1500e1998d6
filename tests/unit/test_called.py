"""How messages call a verb."""

from __future__ import annotations

from pathlib import Path

import pytest
from vagrantp.core import called

from tests.conftest import VERBS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("fab up", "fab"),
        ("vagrantp up", "vagrantp"),
        ("vagrantp-fab ssh", "fab"),
        ("fab -r /m --dry up", "fab -r /m"),
        ("fab --search-root=/m up -r", "fab --search-root=/m"),
        ("fab -r/m -c fabfile ls", "fab -r/m -c fabfile"),
        ("pytest -r a", "fab"),
        ("", "fab"),
    ],
)
def test_as_the_person_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, expected: str
) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    for name in called.PROGRAMS:
        (tmp_path / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    argv = arguments.split()
    if argv:
        argv[0] = str(tmp_path / argv[0])
    assert called.command(argv) == expected


def test_what_path_does_not_find_is_called_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    assert called.command(["/a b/fab", "-r", "/m", "up"]) == "'/a b/fab' -r /m"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hint: fab rm, then fab up", "hint: X rm, then X up"),
        ("fab --dry up --accept shows it; fab --list", "X --dry up --accept shows it; X --list"),
        ("/srv/fab up.txt, fab upper, a fab up=1", "/srv/fab up.txt, fab upper, a fab up=1"),
        ("fab rm.", "X rm."),
    ],
)
def test_which_words_are_meant(text: str, expected: str) -> None:
    assert called.as_called(text, "X") == expected


def test_all_verbs_are_known() -> None:
    assert sorted(called.VERBS) == VERBS
