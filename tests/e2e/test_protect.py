"""MOUNT=rw in a real guest: F4's tries by its root, and an agent's day. tests/attacks/protect/"""

from __future__ import annotations

import gzip
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attacks.protect.conftest import base
from tests.attacks.protect.day import day
from tests.attacks.protect.folder import Folder
from tests.attacks.protect.guests import Guest
from tests.attacks.protect.test_tries import attack
from tests.conftest import CONTAINER, VM, MakeProject, Project

__all__ = ["base"]


@dataclass(frozen=True)
class RealGuest:
    """Root in a guest, by `fab ssh`."""

    app: Project

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh(1)."""
        packed = b64encode(gzip.compress(script.encode())).decode()
        command = f"echo {packed} | base64 -d | gunzip | sudo env PROJECT=/project sh"
        return self.app.fab("ssh", "--command", command)


@pytest.mark.soak  # tests/attacks/protect has both, in namespaces
@pytest.mark.parametrize("what", [day, attack])
@pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])
def test_a_guest_with_the_folder(
    base: Path,
    guests: MakeProject,
    what: Callable[[Folder, Guest], None],
    values: dict[str, object],
) -> None:
    app = guests("app", str(base))
    folder = Folder(base).prepare()
    app.write({**values, "MOUNT": "rw", "PROVISION_SCRIPT": "base"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    what(folder, RealGuest(app))
