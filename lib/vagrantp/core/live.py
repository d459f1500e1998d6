"""The running stage, on a live line of the terminal (docs/adr/0015-a-line-of-our-own.md)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from threading import Event, Thread
from time import monotonic
from unicodedata import category, east_asian_width

from vagrantp.core.text import escaped

TICK = 0.2  # seconds
LEAST = 16  # columns of the text that matter more than how long it usually takes
SPINNER = "|/-\\"
ERASE = "\x1b[K"  # from the cursor on


def is_possible() -> bool:
    """Say whether stderr is a terminal on which a line can be rewritten."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Line:
    """Shows what is running, for how long, and how long it usually takes (`usual`, in seconds).

    A thread of its own writes it, between `start` and `stop`.
    """

    def __init__(self, text: str, usual: float | None = None) -> None:
        self._text = text
        self._usually = f" (usually {_clock(usual)})" if usual and usual >= 1 else ""
        self._since = monotonic()
        self._is_over = Event()
        self._thread: Thread | None = None
        self.done: Callable[[], str] = str  # how much of it is done, in words

    def start(self) -> None:
        """Start or resume ticking."""
        self._is_over.clear()
        self._thread = Thread(target=self._tick, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and leave the terminal's line empty."""
        self._is_over.set()
        if self._thread:
            self._thread.join()
        with suppress(OSError):
            _write("\r" + ERASE)

    def _tick(self) -> None:
        with suppress(OSError):  # the terminal has gone
            for sign in cycle(SPINNER):
                # the last column stays free: some terminals go on to the next line from there
                columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
                known = filter(None, [self._done(), _clock(monotonic() - self._since)])
                figures = f": {', '.join(known)}"
                shown = fitted(f"{sign} {self._text}", figures, self._usually, columns)
                # at the start, as a typed ^C moves the cursor; at the end, for what others write
                _write(f"\r{shown}{ERASE}\r")
                if self._is_over.wait(TICK):
                    return

    def _done(self) -> str:
        try:
            return self.done()
        except (OSError, ValueError):  # it reads what another process is writing just now
            return ""


def fitted(text: str, figures: str, more: str, columns: int) -> str:
    """Return all in one line of at most `columns`: the text is cut, down to LEAST columns; then
    `more` is dropped.
    """
    if len(figures + more) + min(len(text), LEAST) <= columns:
        figures += more
    text = escaped(text, keep="")
    room = max(columns - len(figures), 0)
    if sum(map(_width, text)) > room:
        while text and sum(map(_width, text)) >= room:
            text = text[:-1]
        text += "…"[:room]
    return text + figures[:columns]


def _width(sign: str) -> int:
    """Return how many columns a character takes."""
    if category(sign)[0] == "M":
        return 0
    return 2 if east_asian_width(sign) in "WF" else 1


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
