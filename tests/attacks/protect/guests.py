"""Where root of a guest runs: in the plain folder, or in a mount as `share` makes it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


@dataclass(frozen=True)
class Namespaces:
    """Root in namespaces of this host, with all its rights, where `shared` is /project.

    `enter`: the start of a command that runs where `shared` is mounted.
    """

    shared: Path
    enter: tuple[str, ...] = ()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of sh(1). Nothing that it starts outlives it."""
        argv = (
            *self.enter,
            *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--die-with-parent"),
            *("--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--tmpfs", "/tmp"),
            *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
            *("--symlink", "usr/lib64", "/lib64", "--dev", "/dev", "--proc", "/proc"),
            *("--bind", str(self.shared), "/project", "--cap-add", "ALL", "sh"),
        )
        return subprocess.run(
            argv,
            input=script,
            env={"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C.UTF-8", "PROJECT": "/project"},
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
        done = Namespaces(self.folder.project).run(script)
        owner = ("chown", "--no-dereference", "--recursive", f"{PERSON}:{PERSON}")
        subprocess.run((*owner, str(self.folder.project)), check=True)
        return done


SHARE = """\
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from vagrantp_guard.contract import Mount
from vagrantp_guard.share import share
mount, state = Mount.from_json(json.loads(sys.argv[3])), pathlib.Path(sys.argv[4])
share(pathlib.Path(sys.argv[2]), mount, state, (0, 0))
"""


def state_of(folder: Folder) -> Path:
    """Return an instance's own folder, where no guest gets to."""
    return folder.base / "state/app-01234567"


def mount(folder: Folder, target: Path, lib: Path) -> Namespaces:
    """Mount a folder as root's projects are, protected, by this version installed at `lib`."""
    subprocess.run(_share(folder, target, lib), check=True)
    return Namespaces(target)


def _share(folder: Folder, target: Path, lib: Path) -> tuple[str, ...]:
    """Return a command that mounts a folder."""
    target.mkdir()
    lib.mkdir(exist_ok=True)
    state_of(folder).mkdir(parents=True, exist_ok=True)
    if not any(lib.iterdir()):
        install(lib)
    how = {"mode": "rw", "folder": str(folder.project), "uid": 0, "gid": 0, "protect": True}
    places = (str(lib / version()), str(target), json.dumps(how), str(state_of(folder)))
    return ("python3", "-IS", "-c", SHARE, *places)


@contextmanager
def mount_by_user(folder: Folder, target: Path, lib: Path) -> Iterator[Namespaces]:
    """Mount a folder as a user's containers have it: by that user, in a namespace of theirs."""
    share = _share(folder, target, lib)
    for path in (target, state_of(folder).parent, state_of(folder)):
        os.chown(path, PERSON, PERSON)
    person = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups")
    alone = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
    waits = ("sh", "-c", '"$@" && echo "shared" && read -r _', "sh")
    holder = subprocess.Popen(
        (*person, *alone, *waits, *share),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == "shared\n"
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield Namespaces(target, ("nsenter", f"--target={children[0]}", "--user", "--mount"))
        holder.stdin.close()
