"""What a verb tells while it works: stages with their seconds, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from vagrantp.errors import Interrupted


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
    """Return rows of cells as text, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def compare(name: str, promised: object, found: object, unit: str = "") -> Check:
    """Return the check that `found`, None for nothing, is exactly what was promised."""
    shown = "nothing" if found is None else f"{found} {unit}".strip()
    return Check(name, f"{promised} {unit}".strip(), shown, "ok" if promised == found else "FAILED")


@dataclass
class Progress:
    """Collects the stages of one verb and tells them as they pass."""

    stages: list[Stage] = field(default_factory=list)
    instance: str | None = None
    infra_type: str | None = None

    def about(self, instance: str, infra_type: str) -> None:
        """Take note of the instance, by its full name, that the verb is about."""
        self.instance, self.infra_type = instance, infra_type or None

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Time and tell one stage. `name` is the same whenever it is timed; `detail` is told."""
        text = f"{name} {detail}".rstrip()
        is_live = sys.stderr.isatty()
        if is_live:
            print(f"  {text} …", end="\r", file=sys.stderr, flush=True)
        start = time.monotonic()
        outcome: Literal["ok", "failed", "interrupted"] = "failed"
        try:
            yield
            outcome = "ok"
        except (Interrupted, KeyboardInterrupt):
            outcome = "interrupted"
            raise
        finally:
            seconds = time.monotonic() - start
            self.stages.append(Stage(name, seconds, outcome))
            end = "" if outcome == "ok" else f" ({outcome})"
            clear = "\x1b[K" if is_live else ""
            print(f"  {text}: {seconds:.1f} s{end}{clear}", file=sys.stderr, flush=True)

    def percent(self, done: str) -> None:
        """Show on a terminal how much of the stage at work is done."""
        if sys.stderr.isatty() and done.isdigit():
            print(f"\x1b[K  {done} %", end="\r", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Tell something that is no stage."""
        clear = "\x1b[K" if sys.stderr.isatty() else ""
        print(f"  {text}{clear}", file=sys.stderr, flush=True)
