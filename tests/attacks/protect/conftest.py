"""The person's folder, and one that is mounted as a guest has it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.attacks.protect.folder import Folder
from tests.attacks.protect.guests import Namespaces, mount


@pytest.fixture
def base() -> Iterator[Path]:
    """Return a folder that, unlike pytest's, an ordinary user gets to; and not by a link."""
    if os.geteuid() != 0:
        pytest.skip("only root is another user, and mounts")
    with TemporaryDirectory(prefix="vagrantp-tests-") as made:
        Path(made).chmod(0o755)
        yield Path(made).resolve()


@pytest.fixture
def folder(base: Path) -> Folder:
    """Return a person's folder, with all that git has."""
    return Folder(base).prepare()


@pytest.fixture
def shared_folder(folder: Folder) -> Iterator[Namespaces]:
    """Mount that folder, protected, at a place of its own."""
    target = folder.base / "project"
    yield mount(folder, target, folder.base / "lib")
    subprocess.run(("umount", "--lazy", target), check=True)
