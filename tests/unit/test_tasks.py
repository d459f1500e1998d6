"""The one place where errors become exit codes."""

from __future__ import annotations

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from vagrantp.core.errors import NameTakenError
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


def test_a_bug_of_ours_is_one_line_too() -> None:
    code, text = _end(KeyError("x"))
    assert code == 1
    assert text.startswith("a bug of vagrantp, at test_tasks.py:")
    assert text.endswith(": KeyError: 'x'")


def _end(error: BaseException) -> tuple[int, str]:
    @chore
    def fails(host: Host) -> None:
        """Fail."""
        raise error

    with pytest.raises(Exit) as caught:
        fails(Context())
    return caught.value.code, str(caught.value.message)
