"""What `make check` runs beside the tests: mypy keeps one processor busy for as long as a third."""

from __future__ import annotations

import subprocess

from tests.conftest import MASTER


def test_types() -> None:
    mypy = MASTER / ".venv/bin/mypy"
    done = subprocess.run([mypy], cwd=MASTER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
