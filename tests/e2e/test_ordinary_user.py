"""A user who is not root."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, MASTER, env_text

USER = "vagrantp-test"


@pytest.fixture
def home() -> Iterator[Path]:
    """Make a user with a copy of this checkout, and let nothing of them be left."""
    if os.getuid() != 0:
        pytest.fail("only root can make a user for this test")
    subprocess.run(["useradd", "--create-home", USER], check=True)
    entry = pwd.getpwnam(USER)
    home = Path(entry.pw_dir)
    try:
        # root's own folders, and a Python in them, may be closed to others
        shutil.copytree(MASTER / "lib", home / "master/lib")
        shutil.copytree(sysconfig.get_path("purelib"), home / "site")
        for name in ("fabfile.py", "Vagrantfile"):
            shutil.copy(MASTER / name, home / "master")
        (home / "app").mkdir()
        subprocess.run(["chown", "--recursive", f"{USER}:", home], check=True)
        yield home
    finally:
        # rootless Podman leaves a process that holds its namespaces
        subprocess.run(["pkill", "-KILL", "--uid", str(entry.pw_uid)], check=False)
        subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)
        for path in Path("/tmp").glob(f"*-{entry.pw_uid}"):
            shutil.rmtree(path)


def fab_as_user(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as the user in their project, in a session without groups that came later."""
    fab = "from fabric.main import program; program.run()"
    return subprocess.run(
        [
            *("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--reset-env"),
            *("env", f"PYTHONPATH={home}/site", f"USER={USER}"),
            *("/usr/bin/python3", "-c", fab, "-r", f"{home}/master", *arguments),
        ],
        cwd=home / "app",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_limits_that_cannot_be_enforced_are_an_error(home: Path) -> None:
    (home / "app/.env").write_text(env_text(CONTAINER))
    done = fab_as_user(home, "up")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "podman cannot enforce MEMORY and CPUS here: its cgroup v" in done.stderr
    left = sorted(path.name for path in (home / ".local/state/vagrantp").iterdir())
    assert left == ["lock", "metrics.jsonl"]


def test_who_was_added_to_the_group_after_logging_in(home: Path) -> None:
    subprocess.run(["usermod", "--append", "--groups", "libvirt", USER], check=True)
    found = json.loads(fab_as_user(home, "doctor", "--json").stdout)
    outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
    assert (outcomes["libvirt"], outcomes["isolation"]) == ("ok", "ok"), found
