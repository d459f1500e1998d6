"""Measured times: a line for every verb, however it ended, and what `fab stats` shows of them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONTAINER, FAB, MASTER, VM, MakeProject, Project

pytestmark = pytest.mark.slow

NOTHING = "nothing was measured yet\n"
OPERATION = {"project": "/p", "instance": "p-0", "exit_code": 0, "outcome": "ok", "stages": []}


def file(app: Project) -> Path:
    """Return where the times of a test are."""
    return Path(app.environment["XDG_STATE_HOME"]) / "vagrantp/metrics.jsonl"


def lines(app: Project) -> list[dict[str, Any]]:
    """Return the measured operations, without what differs each time."""
    found = [json.loads(line) for line in file(app).read_text().splitlines()]
    for operation in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", operation.pop("time"))
        assert 0 < operation.pop("seconds") < 60
    return found


def install(app: Project, tmp_path: Path, **scripts: str) -> Project:
    """Return the project with programs on PATH that behave as these shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return app.having(PATH=f"{folder}:{app.environment['PATH']}")


def test_every_verb_leaves_a_line(project: MakeProject) -> None:
    app = project().write(VM)
    assert app.fab("validate").returncode == 0
    name = json.loads(file(app).read_text())["instance"]
    assert re.fullmatch("app-[0-9a-f]{8}", name)
    app.write("MEMORY=-5\nSECRET=hunter2\n")
    assert app.fab("validate").returncode == 2
    assert app.fab("ssh", "--command", "echo hunter3").returncode == 8
    line: dict[str, object] = {
        "project": str(app.folder),
        "instance": None,
        "type": None,
        "stages": [],
    }
    assert lines(app) == [
        {
            **line,
            **{"verb": "validate", "instance": name, "type": "vm"},
            **{"outcome": "ok", "exit_code": 0},
        },
        {**line, "verb": "validate", "outcome": "failed", "exit_code": 2},
        {**line, "verb": "ssh", "outcome": "failed", "exit_code": 8},
    ]
    assert "hunter" not in file(app).read_text()
    assert file(app).stat().st_mode & 0o777 == 0o600


def test_what_leaves_no_line(project: MakeProject) -> None:
    app = project().write(VM)
    for arguments in (
        *(["--dry", "validate"], ["--dry", "ssh"], ["--help", "up"], ["--list"]),
        *(["nonsense"], ["up", "--nonsense"], ["stats"], ["stats", "--json"]),
    ):
        app.fab(*arguments)
    assert not file(app).exists()


def test_verbs_of_one_command_are_measured_apart(project: MakeProject) -> None:
    app = project().write(VM)
    assert app.run(FAB, "-r", MASTER, "validate", "ssh").returncode == 8
    assert [line["verb"] for line in lines(app)] == ["validate", "ssh"]
    first, second = (json.loads(line)["seconds"] for line in file(app).read_text().splitlines())
    assert first > 0.1  # Python and fab have to start
    assert second < 60


def test_ssh_is_measured_until_it_takes_over(project: MakeProject, tmp_path: Path) -> None:
    app = project().write(CONTAINER)
    assert app.fab("validate").returncode == 0
    name = lines(app)[0]["instance"]
    state = file(app).parent / name
    state.mkdir()
    (state / "machine.json").write_text('{"settings": {"infra_type": "container"}, "provider": {}}')
    (state / "ssh_config").touch()
    app = install(app, tmp_path, podman="echo running 1", ssh=f"tail -n 1 '{file(app)}'; exit 42")
    done = app.fab("ssh", "--command", "hunter2")
    assert done.returncode == 42
    found = json.loads(done.stdout)
    assert (found["verb"], found["instance"], found["type"]) == ("ssh", name, "container")
    assert (found["outcome"], found["exit_code"]) == ("ok", 0)
    assert len(lines(app)) == 2
    assert "hunter2" not in file(app).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_verb(project: MakeProject, tmp_path: Path, number: int) -> None:
    script = f"touch '{tmp_path}/called'; exec sleep 60"
    app = install(project().write(VM), tmp_path, virsh=script)
    status = app.start("status")
    deadline = time.monotonic() + 30
    while not (tmp_path / "called").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    status.send_signal(number)
    status.communicate(timeout=30)
    assert status.returncode == 130
    [line] = lines(app)
    assert (line["verb"], line["outcome"], line["exit_code"]) == ("status", "interrupted", 130)


def test_a_bug_of_ours(project: MakeProject) -> None:
    app = project()
    (app.folder / "fabfile.py").write_text(
        f"import sys; sys.path.insert(0, {str(MASTER / 'lib')!r})\n"
        "from vagrantp.verbs.tasks import verb\n"
        "@verb\n"
        "def oops(host): 1 / 0\n"
    )
    assert app.call([FAB, "oops"], app.folder, app.environment).returncode == 1
    (line,) = lines(app)
    assert (line["verb"], line["outcome"], line["exit_code"]) == ("oops", "failed", 1)


def test_a_full_disk_changes_nothing_else(project: MakeProject) -> None:
    app = project().write(VM)
    well = app.fab("validate").stdout
    file(app).unlink()
    file(app).symlink_to("/dev/full")
    done = app.fab("validate")
    assert (done.returncode, done.stdout) == (0, well)
    assert done.stderr == f"  {file(app)}: {os.strerror(28)}; this time is not kept\n"


def test_stats_of_nothing(project: MakeProject) -> None:
    app = project()
    done = app.fab("stats")
    assert (done.returncode, done.stdout, done.stderr) == (0, NOTHING, "")
    done = app.fab("stats", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"schema": 1, "operations": []}


@pytest.fixture
def measured(project: MakeProject) -> Project:
    """Return a project with times of two ups, one of them failed, and of a stop."""
    app = project()
    operations: list[dict[str, Any]] = [
        {
            **{"verb": "up", "type": "vm", "seconds": 75.5},
            "stages": [
                {"name": "create", "seconds": 9.25, "outcome": "ok"},
                {"name": "wait for ssh", "seconds": 60, "outcome": "ok"},
            ],
        },
        {
            **{"verb": "up", "type": "vm", "seconds": 8.0, "outcome": "failed", "exit_code": 5},
            "stages": [{"name": "create", "seconds": 7.5, "outcome": "failed"}],
        },
        {"verb": "stop", "type": "container", "seconds": 0.25},
        {"verb": "stop", "type": "container", "seconds": 0.35},
        {"verb": "ssh", "type": None, "seconds": 0.1, "outcome": "interrupted", "exit_code": 130},
    ]
    file(app).parent.mkdir(parents=True)
    file(app).write_text("".join(f"{json.dumps(OPERATION | each)}\n" for each in operations))
    return app


def test_stats(measured: Project) -> None:
    done = measured.fab("stats")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "verb            type       ok  failed  interrupted  median                   "
        "p95                      last\n"
        "ssh             -          0   0       1            -                        "
        "-                        -\n"
        "stop            container  2   0       0            0.30 seconds             "
        "0.35 seconds             0.35 seconds\n"
        "up              vm         1   1       0            1 minute and 16 seconds  "
        "1 minute and 16 seconds  1 minute and 16 seconds\n"
        "  create                   1   1       0            9.25 seconds             "
        "9.25 seconds             9.25 seconds\n"
        "  wait for ssh             1   0       0            1 minute                 "
        "1 minute                 1 minute\n"
    )


def test_stats_as_json(measured: Project) -> None:
    def times(count: int, failed: int, interrupted: int, *seconds: float | None) -> dict[str, Any]:
        names = ("median_seconds", "p95_seconds", "last_seconds")
        counts = {"count": count, "failed": failed, "interrupted": interrupted}
        return counts | dict(zip(names, seconds, strict=True))

    done = measured.fab("stats", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "schema": 1,
        "operations": [
            {"verb": "ssh", "type": None, **times(0, 0, 1, None, None, None), "stages": []},
            {"verb": "stop", "type": "container", **times(2, 0, 0, 0.3, 0.35, 0.35), "stages": []},
            {
                **{"verb": "up", "type": "vm"},
                **times(1, 1, 0, 75.5, 75.5, 75.5),
                "stages": [
                    {"name": "create", **times(1, 1, 0, 9.25, 9.25, 9.25)},
                    {"name": "wait for ssh", **times(1, 0, 0, 60, 60, 60)},
                ],
            },
        ],
    }
