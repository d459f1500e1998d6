"""Between a flush and the return of the rules, and while a watcher takes over: nothing passes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import MASTER


@pytest.mark.parametrize("rounds", [20, pytest.param(250, marks=pytest.mark.soak)])
def test_nothing_passes_while_rules_are_lost_or_the_watcher_ends(rounds: int) -> None:
    own = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    begin = 'mount -t tmpfs none /run && exec "$@"'
    run = (sys.executable, "-m", "tests.attacks.flushes", str(MASTER / "lib"), str(rounds))
    done = subprocess.run(
        (*own, "timeout", "600", "sh", "-ec", begin, "-", *run),
        cwd=MASTER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("control") > 0
    kills = rounds // 5
    flushes = {"flushes": rounds - kills, "in flushes": 0}
    assert found == {**flushes, "kills": kills, "in kills": 0}
