"""Tripwires: providers that tell when they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def tripwires(tmp_path: Path) -> tuple[str, Path]:
    """Return a PATH whose providers only leave their names in a file; and that file."""
    called, folder = tmp_path / "called", tmp_path / "tripwires"
    folder.mkdir()
    for tool in ("vagrant", "podman", "virsh"):
        script = folder / tool
        script.write_text(f"#!/bin/sh\necho {tool} >> '{called}'\nexit 1\n")
        script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}", called
