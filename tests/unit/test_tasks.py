"""The one place where errors become exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from vagrantp.core.errors import HostLimitError, NameTakenError, cleaned_up_by
from vagrantp.core.system import Host
from vagrantp.verbs.tasks import chore


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NameTakenError("taken", "look"), 3, "taken\n  hint: look"),
        (OSError(28, "No space left on device", "/full"), 4, "/full: No space left on device"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_foreseen(error: BaseException, code: int, text: str) -> None:
    assert _end(error) == (code, text)


def test_the_traceback_of_a_bug_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, text = _end(KeyError("x"))
    log = tmp_path / "vagrantp/logs/vagrantp.log"
    assert code == 1
    assert text.startswith("a bug in vagrantp, at test_tasks.py:")
    assert text.endswith(f": KeyError: 'x'\n  hint: the traceback is in {log}")
    assert "Traceback (most recent call last):" in log.read_text()
    assert log.read_text().endswith("KeyError: 'x'\n\n")


def test_a_failing_clean_up_does_not_hide_the_first_error() -> None:
    def clean_up() -> None:
        raise NameTakenError("gone", "wait")

    first = HostLimitError("full", "make room")
    code, text = _end(first, clean_up)
    assert code == 4
    assert text == "full\n  hint: make room\n  cleaning up failed, too: gone"


def test_an_interrupted_clean_up_does_not_hide_it_either() -> None:
    def clean_up() -> None:
        raise KeyboardInterrupt

    code, text = _end(OSError(28, "No space left on device", "/full"), clean_up)
    assert code == 4
    assert text == ("/full: No space left on device\n  cleaning up failed, too: interrupted")


def _end(error: BaseException, clean_up: Callable[[], None] = lambda: None) -> tuple[int, str]:
    @chore
    def fails(host: Host) -> None:
        """Fail."""
        with cleaned_up_by(clean_up):
            raise error

    with pytest.raises(Exit) as caught:
        fails(Context())
    return caught.value.code, str(caught.value.message)
