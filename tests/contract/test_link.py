"""`make link` and `make link-global`: plain `fab` and `vagrantp`, and nothing replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import FAB, MASTER, VM, Call, as_text, env_text
from tests.warm import Warm

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class User:
    """A user with a home of their own, and projects in it."""

    home: Path
    call: Call

    @property
    def root(self) -> Path:
        return self.home / 'my "repos" $x'

    @property
    def bin(self) -> Path:
        return self.home / ".local/bin"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MAKE"))}
        return {**kept, "HOME": str(self.home), "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def run(self, *argv: str | Path, cwd: Path = MASTER) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False
        )

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "vagrantp.make", *arguments]
        return as_text(self.call(argv, MASTER, {**self.environment, **environment}))

    def project(self, where: Path) -> Path:
        folder = where / "it's an app"
        folder.mkdir(parents=True)
        (folder / ".env").write_text(env_text(VM))
        return folder

    def tree(self) -> dict[str, str]:
        """Return all that is in the home: links with their targets, files with their text."""
        return {
            str(path): str(path.readlink()) if path.is_symlink() else path.read_text()
            for path in self.home.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def user(tmp_path: Path, warm: Warm) -> User:
    user = User(tmp_path / "it's home", warm.run)
    user.root.mkdir(parents=True)
    return user


def test_link(user: User) -> None:
    app = user.project(user.root / "deep")
    # as it is typed; the installation is up to date, as far as this test goes
    done = user.run("make", "--old-file=.venv/installed", "link", f"ROOT={user.root}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{user.root}/fabfile.py -> {MASTER}/fabfile.py\n"
        f"{user.bin}/fab -> {MASTER}/.venv/bin/vagrantp-fab\n"
        f"{user.bin}/vagrantp -> {MASTER}/.venv/bin/vagrantp\n"
    )
    for program in ("fab", "vagrantp"):
        there = user.call([user.bin / program, "validate"], app, user.environment)
        assert there.stdout.startswith(b".env is valid")
    once = user.tree()
    again = user.make("link", f"--root={user.root}")
    assert (again.returncode, again.stdout, user.tree()) == (0, done.stdout, once)


def test_a_path_that_begins_with_a_tilde(user: User) -> None:
    (user.home / "repos").mkdir()
    assert user.make("link", "--root=~/repos").returncode == 0
    assert (user.home / "repos/fabfile.py").resolve() == MASTER / "fabfile.py"


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("", "ROOT is missing\n  hint: make link ROOT=~/repos, where your projects are\n"),
        ("/nonexistent", "/nonexistent: no such folder\n"),
        ("/etc/passwd", "/etc/passwd: not a folder\n"),
        ("/~nobody-here/x", "/~nobody-here/x: no such folder\n"),
    ],
)
def test_no_root(user: User, root: str, why: str) -> None:
    done = user.make("link", f"--root={root}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", why)
    assert not user.tree()


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ('my "repos" $x/fabfile.py', None),
        (".local/bin/fab", "/usr/bin/env"),
        (".local/bin/vagrantp", "/nonexistent"),
    ],
)
def test_nothing_is_replaced(user: User, place: str, target: str | None) -> None:
    path = user.home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target) if target else path.write_text("mine")
    before = user.tree()
    done = user.make("link", f"--root={user.root}")
    assert (done.returncode, done.stdout) == (1, "")
    what = f"a link to {target}" if target else "there already"
    assert done.stderr == (
        f"nothing was changed, as something is in the way:\n  {path} is {what}\n"
        f"  hint: move it away; without links, {MASTER}/.venv/bin/vagrantp works everywhere\n"
    )
    assert user.tree() == before


def test_what_keeps_the_commands_from_being_found(user: User) -> None:
    link = ("link", f"--root={user.root}")
    done = user.make(*link, PATH=f"{MASTER}/.venv/bin:/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (0, f"  {user.bin} is not on your PATH: add it\n")
    other = user.home / "other/fab"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    done = user.make(*link, PATH=f"{other.parent}:{user.bin}:/usr/bin:/bin")
    assert done.stderr == f"  {other} comes before {user.bin}/fab on your PATH\n"


def test_link_global(user: User) -> None:
    app, settings = user.project(user.home / "anywhere"), user.home / ".fabric.yaml"
    settings.write_text("# mine\nrun:\n  echo: false\n")
    settings.chmod(0o640)
    done = user.make("link-global")
    assert (done.returncode, done.stderr) == (0, "")
    assert settings.read_text() == (
        f'# mine\nrun:\n  echo: false\ntasks:\n  search_root: "{MASTER}"\n'
    )
    assert settings.stat().st_mode & 0o777 == 0o640
    assert user.run("fab", "validate", cwd=app).stdout.startswith(".env is valid")
    once = user.tree()
    again = user.make("link-global")
    assert (again.returncode, again.stdout, user.tree()) == (0, done.stdout, once)


def test_settings_that_are_a_link_stay_one(user: User) -> None:
    settings, real = user.home / ".fabric.yaml", user.home / "dotfiles.yaml"
    real.write_text("user: me\n")
    settings.symlink_to(real)
    assert user.make("link-global").returncode == 0
    assert settings.is_symlink()
    assert real.read_text().startswith("user: me\ntasks:\n")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (".fabric.yaml", "tasks:\n  search_root: /x\n", "search_root is /x there"),
        (".fabric.yaml", "tasks: [\n", "it cannot be read as YAML"),
        (".fabric.yml", "tasks: {dedupe: false}\n", "no line can be put in"),
        (".fabric.json", "{}\n", "it is not YAML"),
        (".fabric.py", "user = 'me'\n", "it is not YAML"),
    ],
)
def test_settings_that_are_left_as_they_are(user: User, name: str, text: str, why: str) -> None:
    (user.home / name).write_text(text)
    before = user.tree()
    done = user.make("link-global")
    assert (done.returncode, done.stdout, user.tree()) == (1, "", before)
    assert done.stderr == (
        f"{user.home / name} is left as it is: {why}\n"
        f'  hint: do it by hand; under tasks it is: search_root: "{MASTER}"\n'
    )


def test_a_command_in_the_way_of_link_global(user: User) -> None:
    user.bin.mkdir(parents=True)
    (user.bin / "vagrantp").write_text("mine")
    before = user.tree()
    assert user.make("link-global").returncode == 1
    assert user.tree() == before


def test_a_link_of_an_older_version(user: User) -> None:
    user.bin.mkdir(parents=True)
    (user.bin / "fab").symlink_to(FAB)
    before = user.tree()
    done = user.make("--dry", "link-global")
    assert (done.returncode, user.tree()) == (0, before)
    assert f"would remove {user.bin}/fab\nwould link {user.bin}/fab to " in done.stdout
    assert user.make("link-global").returncode == 0
    assert (user.bin / "fab").readlink() == MASTER / ".venv/bin/vagrantp-fab"


@pytest.mark.parametrize("task", ["link", "link-global"])
def test_dry(user: User, task: str) -> None:
    done = user.make("--dry", task, *([f"--root={user.root}"] if task == "link" else []))
    assert done.returncode == 0
    assert f"would link {user.bin}/fab to {MASTER}/.venv/bin/vagrantp-fab\n" in done.stdout
    assert not user.tree()
