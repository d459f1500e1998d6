"""The person's folder, and one that is mounted as a guest has it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.protect.folder import Folder
from tests.attacks.protect.guests import Lab, mount


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a person's folder, with all that git has."""
    if os.geteuid() != 0:
        pytest.skip("only root is another user, and mounts")
    return Folder(tmp_path / "host").prepare()


@pytest.fixture
def shared_folder(folder: Folder, tmp_path: Path) -> Iterator[Lab]:
    """Mount that folder, protected, at a place of its own."""
    target = tmp_path / "project"
    yield mount(folder, target, tmp_path / "lib")
    subprocess.run(("umount", "--lazy", target), check=True)
