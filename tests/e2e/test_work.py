"""What people do in a container still works behind its walls. Takes some minutes of installing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import guest

GO = """
package main
import ("fmt"; "os/exec")
func main() {
    results := make(chan int)
    for i := 0; i < 100; i++ { go func() { results <- 1 }() }
    sum := 0
    for i := 0; i < 100; i++ { sum += <-results }
    said, err := exec.Command("echo", "by go").Output()
    fmt.Print(sum, " ", string(said), err == nil)
}
"""
PAGE = "'data:text/html,<script>document.write(6*7)</script>'"
BROWSER = f"chromium --headless --disable-gpu --dump-dom {PAGE} 2>/tmp/chromium.log"
DEBUGGED = "gdb --batch -ex run -ex 'print 6*7' --args true"
# Packages of Debian; a command; what is in its answer.
WORK = {
    "go": ("golang-go", f"cat > m.go <<'END'\n{GO}\nEND\ngo run m.go", "100 by go\ntrue"),
    "cargo": (
        "cargo",
        "cargo new --quiet --vcs none c && cd c && cargo run --quiet",
        "Hello, world!",
    ),
    "chromium": ("chromium", f"{BROWSER} --no-sandbox", ">42<"),
    "strace": ("strace", "strace -f -e trace=execve sh -c true 2>&1", "exited with 0"),
    "gdb": ("gdb", DEBUGGED, "$1 = 42"),
    "git": (
        "git",
        "git init -q g && cd g && git commit -q --allow-empty -m x && git log --oneline",
        "x",
    ),
    "postgres": (
        "postgresql",
        "sudo pg_ctlcluster $(pg_lsclusters -h | cut -d ' ' -f 1,2) start;"
        " sudo -u postgres psql -tc 'select 6*7'",
        "42",
    ),
    "redis": (
        "redis-server",
        "redis-server --daemonize yes --save '' >/dev/null; sleep 1; redis-cli --raw incrby n 42",
        "42",
    ),
    "uv": (
        "python3-venv",
        "python3 -m venv v && v/bin/pip install -q uv && SSL_CERT_FILE=$PIP_CERT v/bin/uv venv -q w"
        " && echo \"import os; print('by uv', os.cpu_count() > 0)\" > u.py && v/bin/uv run -q u.py",
        "by uv True",
    ),
    # not where perf_event_open(2) is closed, but without harm
    "perf": ("linux-perf", "perf stat -e task-clock true 2>&1; true", "No permission"),
}


def _install(app: Project, packages: list[str]) -> None:
    names = " ".join(packages)
    apt = "sudo DEBIAN_FRONTEND=noninteractive apt-get"
    guest(app, f"{apt} update && {apt} install --yes --no-install-recommends {names} gcc libc6-dev")


@pytest.mark.soak
def test_work_goes_on(guests: MakeProject) -> None:
    app = guests("work").write({**CONTAINER, "MEMORY": 2048, "CPUS": 2})
    assert app.fab("up").returncode == 0
    _install(app, [packages for packages, _, _ in WORK.values()])
    authorities = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    kept = app.fab("ssh", "--command", "cat > ca.pem", stdin=authorities.read_bytes())
    assert kept.returncode == 0
    identity = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a"
    given = f"{identity} GIT_COMMITTER_EMAIL=a@b PIP_CERT=$HOME/ca.pem; "
    said: dict[str, Any] = {}
    for name, (_, command, _) in WORK.items():
        done = app.fab("ssh", "--command", given + command)
        said[name] = done.stdout or done.stderr
    assert {name: True for name in WORK} == {
        name: expected in said[name] or said[name] for name, (_, _, expected) in WORK.items()
    }
