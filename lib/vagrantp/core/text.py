"""What others wrote or printed, fit to be shown: on a terminal, in a table, in a log."""

from __future__ import annotations

from functools import cache
from typing import TextIO

from vagrantp.core.called import as_called

MAX_REASON = 1000  # characters of a line in a message


def escaped(text: str, keep: str = "\n") -> str:
    """Return text with an escape (`\\x1b`) for each character that is not printable, `keep` apart.

    So nothing that a guest or a folder brings can control the terminal, turn the direction of
    writing round, hide, or fail to be encoded. Escaping it again changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def plain(text: str, most: int = 300) -> str:
    """Return what another program printed as one line of at most `most` characters, escaped."""
    shown = escaped(text.strip()[: most + 1], keep="")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def last_line(text: str) -> str:
    """Return the last line of what a failed program printed, as its reason; see `plain`."""
    return plain((text.strip().splitlines() or ["no reason given"])[-1], MAX_REASON)


def show(text: object = "", to: TextIO | None = None, end: str = "\n") -> None:
    """Print text, escaped, on stdout or on another stream: the only way to print.

    The verbs in it are called as the person called this one, but in JSON.
    """
    shown = escaped(str(text))
    print(shown if shown.startswith("{") else as_called(shown), file=to, end=end, flush=True)


@cache
def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
