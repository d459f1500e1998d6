"""Where root of a guest runs: in the plain folder, or in a mount as `share` makes it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vagrantp_guard.contract import version
from vagrantp_guard.install import install

from tests.attacks.protect.folder import PERSON, Folder


class Guest(Protocol):
    """Root, in a guest that has the folder."""

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh(1); PROJECT is the folder's path there."""
        ...


def _run(script: str, project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("sh",),
        input=script,
        cwd="/",
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PROJECT": str(project)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@dataclass(frozen=True)
class Plain:
    """Nothing is between root and the folder; what it makes is the person's afterwards."""

    folder: Folder

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh(1)."""
        done = _run(script, self.folder.project)
        owner = ("chown", "--no-dereference", "--recursive", f"{PERSON}:{PERSON}")
        subprocess.run((*owner, str(self.folder.project)), check=True)
        return done


@dataclass(frozen=True)
class Lab:
    """The folder is mounted on this host as it would be in a guest."""

    mounted: Path

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh(1)."""
        return _run(script, self.mounted)


SHARE = """\
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from vagrantp_guard.contract import Mount
from vagrantp_guard.share import share
share(pathlib.Path(sys.argv[2]), Mount.from_json(json.loads(sys.argv[3])), (0, 0))
"""


def mount(folder: Folder, target: Path, lib: Path) -> Lab:
    """Mount a folder as root's projects are, protected, by this version installed at `lib`."""
    target.mkdir()
    lib.mkdir()
    install(lib)
    how = {"mode": "rw", "folder": str(folder.project), "uid": 0, "gid": 0, "protect": True}
    argv = ("python3", "-IS", "-c", SHARE, lib / version(), target, json.dumps(how))
    subprocess.run(argv, check=True)
    return Lab(target)
