"""Work in a guest's git repositories: the script on this host's git, and what a guest may print."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from vagrantp.guest import repositories

BOTH = "changes that are not committed, commits that are not pushed"


def git(folder: Path, *arguments: str) -> None:
    argv = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    subprocess.run(argv, check=True, capture_output=True)


def listed(home: Path, path: str = "/usr/bin:/bin") -> tuple[list[str], bool]:
    """Return what the script prints about a home folder, as it is read."""
    argv = ["/bin/sh", "-c", repositories.SCRIPT]
    done = subprocess.run(
        argv, env={"HOME": str(home), "PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines, is_whole = repositories.work(done.stdout)
    return sorted(line.removeprefix(f"{home}/") for line in lines), is_whole


@pytest.mark.slow
def test_what_is_nowhere_else(tmp_path: Path) -> None:
    home, origin = tmp_path / "home", tmp_path / "origin"
    home.mkdir()
    assert listed(home) == ([], True)
    git(tmp_path, "init", "-q", str(origin))
    git(origin, "commit", "-q", "--allow-empty", "-m", "one")
    git(origin, "tag", "v1")
    depth = ("--depth=1", "--branch=v1", f"file://{origin}")
    git(home, "clone", "-q", *depth, "shallow")
    git(home, "clone", "-q", *depth, "shallow and new")
    git(home, "clone", "-q", "--branch=v1", str(origin), "of a tag")
    deep = "a/b/c/d/e/f/deep"
    for name in (
        "pushed",
        "detached",
        "it's changed",
        "new",
        "stash",
        "src/node_modules/one",
        deep,
    ):
        git(home, "clone", "-q", str(origin), name)
    assert listed(home) == ([], True)
    git(home / "detached", "checkout", "-q", "--detach")
    git(home / "detached", "commit", "-q", "--allow-empty", "-m", "two")
    git(home / "shallow and new", "commit", "-q", "--allow-empty", "-m", "two")
    (home / deep / "file").touch()
    (home / "it's changed/file").touch()
    git(home / "new", "commit", "-q", "--allow-empty", "-m", "two")
    git(home / "new", "checkout", "-q", "HEAD^")
    (home / "new/file").touch()
    (home / "stash/file").touch()
    git(home / "stash", "stash", "--include-untracked")
    (home / "src/node_modules/one/file").touch()
    git(home, "init", "-q", "empty")
    (home / "spoiled/.git").mkdir(parents=True)
    commits = "commits that are not pushed"
    assert listed(home) == (
        [
            f"{deep}: changes that are not committed",
            f"detached: {commits}",
            "it's changed: changes that are not committed",
            f"new: {BOTH}",
            f"shallow and new: {commits}",
            "spoiled: git cannot read it",
            f"stash: {commits}",
        ],
        True,
    )


def test_many_of_them(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}/.git").mkdir(parents=True)
    lines, is_whole = listed(tmp_path)
    assert (len(lines), is_whole) == (20, False)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("both /home/\x1b]0;me\x07", [f"/home/\\x1b]0;me\\x07: {BOTH}"]),
        (f"both /{'x' * 5000}", [f"/{'x' * 198}…: {BOTH}"]),
        ("none /home", []),
        ("both ", []),
        ("both", []),
        ("", []),
    ],
)
def test_lies(said: str, shown: list[str]) -> None:
    printed = f"repository_0 {said}\nrepository_20 both /over\nrepositories whole\n"
    assert repositories.work(printed) == (shown, True)
    assert repositories.work(f"repository_0 {said}\nrepositories half\n") == (shown, False)
