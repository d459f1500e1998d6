"""Times: what is made of them, and lines that survive other writers, killed ones and rotation."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core import metrics
from vagrantp.core.errors import Interrupted, ProviderError
from vagrantp.core.progress import Progress, Stage
from vagrantp.core.system import Host

WRITERS = """
import os, sys
from pathlib import Path
from invoke.context import Context
from vagrantp.core import system
system.APPEND_TIMEOUT = 60  # no turn is guaranteed, and eight that never pause may starve one
children = []
for writer in range(8):
    if pid := os.fork():
        children.append(pid)
        continue
    for number in range(500):
        line = f"{writer}:{number}:" + 80 * "x"
        system.Host(Context()).append(Path(sys.argv[1]), line, 250_000)
    os._exit(0)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in children]))
"""


@pytest.fixture
def host() -> Host:
    return Host(Context())


@pytest.mark.parametrize(
    ("times", "median", "p95", "last"),
    [
        ([], None, None, None),
        ([2.0], 2.0, 2.0, 2.0),
        ([3.0, 1.0], 2.0, 3.0, 1.0),
        ([9.0, 1.0, 5.0], 5.0, 9.0, 5.0),
        ([float(n) for n in range(20, 0, -1)], 10.5, 19.0, 1.0),
        ([float(n) for n in range(1, 22)], 11.0, 20.0, 21.0),
        ([float(n) for n in range(1, 101)], 50.5, 95.0, 100.0),
    ],
)
def test_quantiles(
    times: list[float], median: float | None, p95: float | None, last: float | None
) -> None:
    found = metrics.summary({"ok": times})
    assert found == {
        "count": len(times),
        "failed": 0,
        "interrupted": 0,
        "median_seconds": median,
        "p95_seconds": p95,
        "last_seconds": last,
    }


def test_what_did_not_go_well_is_counted_and_no_more() -> None:
    found = metrics.summary({"failed": [90.0, 80.0], "ok": [1.0], "interrupted": [70.0]})
    assert (found["count"], found["failed"], found["interrupted"]) == (1, 2, 1)
    assert (found["median_seconds"], found["p95_seconds"], found["last_seconds"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (ProviderError("no"), "failed"),
        (Interrupted("interrupted"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_how_a_stage_ends(error: BaseException | None, outcome: str) -> None:
    progress = Progress()
    try:
        with progress.stage("build base image", "debian-13"):
            if error:
                raise error
    except BaseException as raised:
        assert raised is error
    assert [(s.name, s.outcome) for s in progress.stages] == [("build base image", outcome)]


def test_a_line_after_a_torn_one_is_whole(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    host.append(file, "one", 1000)
    with file.open("a") as torn:
        torn.write('{"time": "2026-01-0')
    host.append(file, "two", 1000)
    host.append(file, "three", 1000)
    assert file.read_text() == 'one\n{"time": "2026-01-0\ntwo\nthree\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_large_file_is_put_aside(host: Host, tmp_path: Path) -> None:
    for line in ("a", "b", "c", "d", "e"):
        host.append(tmp_path / "lines", line, 4)
    assert (tmp_path / "lines.1").read_text() == "c\nd\n"
    assert (tmp_path / "lines").read_text() == "e\n"
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.slow
def test_parallel_writers(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    subprocess.run([sys.executable, "-c", WRITERS, file], check=True)
    aside = (tmp_path / "lines.1").read_text()  # it was full once
    found = sorted((aside + file.read_text()).splitlines())
    assert found == sorted(f"{w}:{n}:{80 * 'x'}" for w in range(8) for n in range(500))


def test_a_file_that_is_held_is_given_up(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagrantp.core.files.APPEND_TIMEOUT", 0.1)
    with (tmp_path / "lines").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="held by another process"):
            host.append(tmp_path / "lines", "a", 1000)
    host.append(tmp_path / "lines", "b", 1000)
    assert (tmp_path / "lines").read_text() == "b\n"


def test_stats_reads_past_what_is_no_operation(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    line = '{{"verb": "stop", "type": "vm", "outcome": "ok", "seconds": {}, "stages": []}}\n'
    odd = ("NaN", "1e999", "-1", '"1"', "null", "[1]", "9" * 400, "9" * 5000, "[" * 100_000)
    lines = "".join(map(line.format, odd)) + line.replace('"stop"', "[]").format(1)
    for seconds in (1.0, 3.0):
        metrics.record(host, "stop", tmp_path, seconds, 0)
        with metrics.path().open("ab") as file:
            file.write(lines.encode())
            file.write(b'null\n[]\n{"verb": "stop"}\n\n\xff\0\n{"time": "20')
    metrics.path().rename(metrics.path().with_name("metrics.jsonl.1"))
    metrics.record(host, "stop", tmp_path, 2.0, 5)
    found, odd_verb = json.loads(metrics.stats(as_json=True))["operations"][::-1]
    assert (found["count"], found["failed"], found["last_seconds"]) == (2, 1, 3.0)
    assert odd_verb["verb"] == "[]"


def test_what_a_stage_usually_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert metrics.usual("up", tmp_path, "vm") == {}
    runs: list[tuple[str, str, str, list[Stage]]] = [
        ("up", "a", "vm", [Stage("create", 4.0, "ok"), Stage("check", 1.0, "ok")]),
        ("up", "a", "vm", [Stage("create", 90.0, "failed")]),
        ("up", "a", "vm", [Stage("create", 6.0, "ok")]),
        ("up", "b", "vm", [Stage("create", 20.0, "ok")]),
        ("up", "a", "container", [Stage("create", 2.0, "ok")]),
        ("rm", "a", "vm", [Stage("remove", 3.0, "ok")]),
    ]
    for verb, project, infra_type, stages in runs:
        progress = Progress(infra_type=infra_type)
        progress.stages = stages
        metrics.record(Host(Context(), progress=progress), verb, Path(project), 99.0, 0)
    assert metrics.usual("up", Path("a"), "vm") == {"create": 5.0, "check": 1.0}
    assert metrics.usual("up", Path("new"), "vm") == {"create": 6.0, "check": 1.0}
    assert metrics.usual("stop", Path("a"), "vm") == {}
    with metrics.path().open("ab") as file:
        file.write(b'{"type": "vm", "verb": "up", \xff')
    assert metrics.usual("up", Path("b"), "vm") == {"create": 20.0}


def test_only_what_is_of_late_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(metrics, "TAIL", 15_000)
    progress = Progress(infra_type="vm")
    host = Host(Context(), progress=progress)
    for seconds in (9.0, 1.0):
        progress.stages = [Stage("create", seconds, "ok")]
        for _ in range(1 + metrics.TAIL // 150):
            metrics.record(host, "up", tmp_path, 99.0, 0)
    assert metrics.usual("up", tmp_path, "vm") == {"create": 1.0}
