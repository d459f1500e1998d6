"""How long operations took: one JSON object a line in metrics.jsonl, and what `stats` shows."""

from __future__ import annotations

import gc
import json
import os
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

from vagrantp.core.errors import Interrupted
from vagrantp.core.places import state_root
from vagrantp.core.progress import table
from vagrantp.core.system import Host

MAX_BYTES = 8 * 1024**2  # some 30,000 operations; then the file is renamed over an older `.1`
SCHEMA = 1  # of `stats --json`

MAX_SECONDS = 10.0**9  # of an operation; more is none, nor is NaN

TAIL = 1024**2  # bytes that `usual` reads: some thousand operations, in 4 ms

# What a line raises that was written in part, or by something else.
UNREADABLE = (ValueError, LookupError, TypeError, RecursionError)

Times = dict[str, list[float]]  # seconds, oldest first, by outcome


def path() -> Path:
    """Return the file of measured times; older ones are in `.1` beside it."""
    return state_root() / "metrics.jsonl"


def record(host: Host, verb: str, project: Path, seconds: float, exit_code: int) -> None:
    """Append one operation that ends now, after `seconds`.

    A failure to write it is reported on stderr and never raised: the verb's own result stands.
    """
    if host.dry or verb == "stats":
        return
    outcomes = {0: "ok", Interrupted.exit_code: "interrupted"}
    operation = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "project": str(project),
        "instance": host.progress.instance,
        "type": host.progress.infra_type,
        "verb": verb,
        "stages": [
            asdict(stage) | {"seconds": round(stage.seconds, 3)} for stage in host.progress.stages
        ],
        "seconds": round(seconds, 3),
        "outcome": outcomes.get(exit_code, "failed"),
        "exit_code": exit_code,
    }
    with suppress(OSError):  # the terminal may have gone
        try:
            host.make_dir(state_root())
            host.append(path(), json.dumps(operation), MAX_BYTES)
        except OSError as error:
            host.progress.say(f"{path()}: {error.strerror or error}; this time is not kept")


def usual(verb: str, project: Path, infra_type: str | None) -> dict[str, float]:
    """Return how many seconds each stage of a verb usually takes: the median of recent successes.

    In this project, or in all of them if the verb was never run here.
    """
    times: dict[str, list[float]] = defaultdict(list)
    sign = f'"type": {json.dumps(infra_type)}, "verb": {json.dumps(verb)}, '.encode()
    with suppress(OSError, *UNREADABLE), path().open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(start)
        lines = file.read().splitlines()[1 if start else 0 :]  # the first one is a piece of a line
        alike = [line for line in lines if sign in line]
        here = f'"project": {json.dumps(str(project))}, '.encode()
        for line in [line for line in alike if here in line] or alike:
            for stage in json.loads(line)["stages"]:
                if stage["outcome"] == "ok":
                    times[stage["name"]].append(_seconds(stage))
    return {name: summary({"ok": seconds})["median_seconds"] for name, seconds in times.items()}


def stats(as_json: bool) -> str:
    """Return the times of all operations, per verb and type and per stage."""
    operations = _summaries()
    if as_json:
        return json.dumps({"schema": SCHEMA, "operations": operations}, indent=2)
    return _table(operations) if operations else "nothing was measured yet"


def summary(times: Times) -> dict[str, Any]:
    """Return counts, and of the successes the median, the 95th percentile and the last.

    The percentile is the nearest rank: the least of the times that 95 % of them do not exceed.
    """
    ok = times.get("ok", [])
    ranked = sorted(ok)
    middle = ranked[(len(ok) - 1) // 2 : len(ok) // 2 + 1]  # two of them in an even number
    return {
        "count": len(ok),
        "failed": len(times.get("failed", [])),
        "interrupted": len(times.get("interrupted", [])),
        "median_seconds": round(sum(middle) / len(middle), 3) if ok else None,
        "p95_seconds": ranked[ceil(len(ok) * 95 / 100) - 1] if ok else None,
        "last_seconds": ok[-1] if ok else None,
    }


def _summaries() -> list[dict[str, Any]]:
    return [
        {
            "verb": verb,
            "type": infra_type or None,
            **summary(stages.pop("")),
            "stages": [{"name": name, **summary(times)} for name, times in stages.items()],
        }
        for (verb, infra_type), stages in sorted(_read().items())
    ]


def _read() -> dict[tuple[str, str], dict[str, Times]]:
    """Return all times by verb and type, then by stage; the whole operation is stage ""."""
    gc.disable()  # half of the time would go into looking for garbage, and there is none
    decode = json.JSONDecoder().raw_decode  # a third faster than `loads`
    found: dict[tuple[str, str], dict[str, Times]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for file in (path().with_name(f"{path().name}.1"), path()):
        with suppress(FileNotFoundError), file.open(encoding="utf-8", errors="replace") as text:
            for line in text.read(2 * MAX_BYTES).split("\n"):
                try:
                    operation, _ = decode(line)
                    key = str(operation["verb"]), str(operation["type"] or "")
                    times = [("", str(operation["outcome"]), _seconds(operation))]
                    for stage in operation["stages"]:
                        times.append((str(stage["name"]), str(stage["outcome"]), _seconds(stage)))
                except UNREADABLE:
                    continue  # its writer was killed, or the disk was full
                for name, outcome, seconds in times:
                    found[key][name][outcome].append(seconds)
    return found


def _seconds(measured: dict[str, float]) -> float:
    if not 0 <= (seconds := measured["seconds"]) < MAX_SECONDS:
        raise ValueError
    return seconds


def _table(operations: list[dict[str, Any]]) -> str:
    rows = [["verb", "type", "ok", "failed", "interrupted", "median", "p95", "last"]]
    for operation in operations:
        rows.append([operation["verb"], operation["type"] or "-", *_cells(operation)])
        rows += [[f"  {stage['name']}", "", *_cells(stage)] for stage in operation["stages"]]
    return table(rows)


def _cells(found: dict[str, Any]) -> list[str]:
    from humanize import precisedelta

    counts = [str(found[name]) for name in ("count", "failed", "interrupted")]
    times = [found[f"{name}_seconds"] for name in ("median", "p95", "last")]
    return counts + [
        "-" if t is None else precisedelta(t, format="%.0f" if t >= 10 else "%.2f") for t in times
    ]
