"""A call of the warm process ends as one of a new process does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FAB, MASTER, VM, MakeProject, in_a_new_process
from tests.warm import Warm

pytestmark = pytest.mark.slow

SEEN = """
import json, os, resource, signal, sys, threading
from invoke.tasks import task
from pathlib import Path

signals = [signal.Signals(n) for n in (2, 13, 15, 17)]

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
        "open": [fd for fd in range(99) if Path(f"/proc/self/fd/{fd}").is_symlink()],
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "main": sys.modules["__main__"].__file__, "stdin": sys.stdin.read(),
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
    both: list[subprocess.CompletedProcess[bytes]] = [
        call([FAB, task], looking, environment, b"typed\n") for call in (in_a_new_process, warm.run)
    ]
    assert [done.returncode for done in both] == [status] * 2
    assert both[0].stdout.decode() == both[1].stdout.decode()
    assert both[0].stderr.decode() == both[1].stderr.decode()
    if task == "look":
        found = json.loads(both[1].stdout)
        assert (found["stdin"], found["environment"]["MINE"]) == ("typed\n", "é")


@pytest.mark.parametrize(
    ("verb", "status"), [(["validate"], 0), (["ssh", "--command", "true"], 8), (["--list"], 0)]
)
def test_a_verb(project: MakeProject, verb: list[str], status: int) -> None:
    app = project().write(VM)
    argv: list[str | Path] = [FAB, "-r", MASTER, *verb]
    by_new, by_warm = (
        call(argv, app.folder, app.environment) for call in (in_a_new_process, app.call)
    )
    assert (by_new.returncode, by_new.stdout, by_new.stderr) == (
        *(by_warm.returncode, by_warm.stdout, by_warm.stderr),
    )
    assert by_new.returncode == status


def test_it_is_given_up(warm: Warm, looking: Path) -> None:
    (looking / "fabfile.py").write_text("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([FAB, "look"], looking, os.environ, timeout=0.5)


def test_what_it_cannot_do(warm: Warm, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PYTHONUTF8 differs"):
        warm.run([FAB, "look"], tmp_path, {**os.environ, "PYTHONUTF8": "1"})
