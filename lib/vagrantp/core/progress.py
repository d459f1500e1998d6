"""What a verb reports while it works: stages with their seconds, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from vagrantp.core.errors import Interrupted
from vagrantp.core.live import Line
from vagrantp.core.text import escaped, show
from vagrantp.core.urls import redacted


@dataclass(frozen=True)
class Stage:
    """A finished stage of a verb."""

    name: str
    seconds: float
    outcome: Literal["ok", "failed", "interrupted"]


@dataclass(frozen=True)
class Check:
    """A promise of `.env` and what was found. `outcome`: ok, FAILED or `not enforced`."""

    name: str
    promised: str
    found: str
    outcome: Literal["ok", "FAILED", "not enforced"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text, in columns; each row is one line."""
    shown = [[escaped(cell, keep="") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def compare(name: str, promised: object, found: object, unit: str = "") -> Check:
    """Return the check that `found`, None for nothing, is exactly what was promised."""
    shown = "nothing" if found is None else f"{found} {unit}".strip()
    return Check(name, f"{promised} {unit}".strip(), shown, "ok" if promised == found else "FAILED")


@dataclass
class Progress:
    """Collects the stages of one verb and reports them as they end.

    `is_live`: also shows the running one on a live line. `usual`: returns how many seconds each
    stage usually takes, for a type of instance.
    """

    is_live: bool = False
    usual: Callable[[str | None], Mapping[str, float]] = lambda _: {}
    stages: list[Stage] = field(default_factory=list)
    instance: str | None = None
    infra_type: str | None = None
    _line: Line | None = None

    def about(self, instance: str, infra_type: str) -> None:
        """Take note of the instance, by its full name, that the verb is about."""
        self.instance, self.infra_type = instance, infra_type or None

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Time and report one stage. `name` is always the same, for `stats`; `detail` is shown."""
        text = escaped(redacted(f"{name} {detail}".rstrip()), keep="")
        start = time.monotonic()
        outcome: Literal["ok", "failed", "interrupted"] = "failed"
        try:
            with self._ticking(name, text):
                yield
            outcome = "ok"
        except (Interrupted, KeyboardInterrupt):
            outcome = "interrupted"
            raise
        finally:
            seconds = time.monotonic() - start
            self.stages.append(Stage(name, seconds, outcome))
            end = "" if outcome == "ok" else f" ({outcome})"
            self.say(f"{text}: {seconds:.1f} s{end}")

    def done(self, describe: Callable[[], str]) -> None:
        """Show on a live line how much of the running stage is done: what `describe` returns."""
        if self._line:
            self._line.done = describe

    def say(self, text: str) -> None:
        """Report something that is not a stage."""
        with self.aside(), suppress(OSError):  # the terminal may have gone, and work goes on
            show(f"  {redacted(text)}", sys.stderr)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to something else for a moment."""
        line = self._line
        if line:
            line.stop()
        try:
            yield
        finally:
            if line:
                line.start()

    @contextmanager
    def _ticking(self, name: str, text: str) -> Iterator[None]:
        if not self.is_live:
            yield
            return
        with self.aside():  # a stage may be within another
            outer, self._line = self._line, Line(text, self._usually.get(name))
            self._line.start()
            try:
                yield
            finally:
                self._line.stop()
                self._line = outer

    @cached_property
    def _usually(self) -> Mapping[str, float]:
        return self.usual(self.infra_type)
