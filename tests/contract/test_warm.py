"""A call of the warm process ends as one of a new process does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FAB, MASTER, VM, MakeProject, in_a_new_process
from tests.warm import Warm

SEEN = """
import json, os, resource, signal, sys, threading
from invoke.tasks import task
from pathlib import Path

signals = [signal.Signals(n) for n in (2, 13, 15, 17)]
fds = {name: os.readlink(f"/proc/self/fd/{name}")[:5] for name in os.listdir("/proc/self/fd")}
@task
def look(c):
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "name": Path("/proc/self/comm").read_text(),
        "environment": dict(os.environ), "folder": os.getcwd(), "umask": os.umask(0),
        "group": os.getpgid(0), "session": os.getsid(0), "threads": threading.active_count(),
        "signals": [str(signal.getsignal(each)) for each in signals],
        "blocked": [str(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "streams": [(s.encoding, s.errors, s.isatty(), s.line_buffering) for s in
                    (sys.stdin, sys.stdout, sys.stderr)],
        "fds": sorted(fds), "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "main": sys.modules["__main__"].__file__, "stdin": sys.stdin.read(),
        "ours": sorted(name for name in sys.modules if name.startswith("vagrantp.verbs")),
    }))
    print("told", file=sys.stderr)

@task
def fail(c):
    raise ValueError("nobody foresaw this")

@task
def die(c):
    os.kill(os.getpid(), 9)

@task
def child(c):
    c.run("echo out; echo err >&2; exit 3")
"""


@pytest.fixture
def looking(tmp_path: Path) -> Path:
    (tmp_path / "fabfile.py").write_text(SEEN)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "status"), [("look", 0), ("fail", 1), ("die", -signal.SIGKILL), ("child", 3)]
)
def test_the_same_as_a_new_process(warm: Warm, looking: Path, task: str, status: int) -> None:
    environment = {**os.environ, "MINE": "é"}
    both = [
        call([FAB, task], looking, environment, b"typed\n") for call in (in_a_new_process, warm.run)
    ]
    assert [done.returncode for done in both] == [status] * 2
    seen = [[done.stdout.decode(), done.stderr.decode()] for done in both]
    if task == "look":
        found = [json.loads(stdout) for stdout, _ in seen]
        for each in found:
            del each["ours"]  # these are there before
        seen = [[json.dumps(each), stderr] for each, (_, stderr) in zip(found, seen, strict=True)]
        assert (found[0]["stdin"], found[0]["environment"]["MINE"]) == ("typed\n", "é")
    assert seen[0] == seen[1]


def test_a_verb(project: MakeProject, tripwires: tuple[str, Path]) -> None:
    app = project().write(VM)
    environment = {**app.environment, "PATH": tripwires[0]}
    argv = [FAB, "-r", MASTER, "status"]
    ends = [call(argv, app.folder, environment) for call in (in_a_new_process, app.call)]
    first, second = (
        (done.returncode, done.stdout, re.sub(rb"\d\.\d s", b"", done.stderr)) for done in ends
    )
    assert first == second
    assert first[0] == 5


def test_it_is_given_up(warm: Warm, looking: Path) -> None:
    (looking / "fabfile.py").write_text("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([FAB, "look"], looking, os.environ, timeout=0.5)


def test_what_it_cannot_do(warm: Warm, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PYTHONUTF8 differs"):
        warm.run([FAB, "look"], tmp_path, {**os.environ, "PYTHONUTF8": "1"})
