"""MOUNT: what a guest has of the folder, and what git makes of it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vagrantp.guest import mount
from vagrantp.guest.facts import OfFolder
from vagrantp.settings.saved import from_json

SETTINGS = from_json({"infra_type": "vm", "memory": 512, "cpus": 1, "disk": 3, "name": "app",
                      "hostname": "app"})  # fmt: skip


@pytest.mark.parametrize(
    ("values", "shown", "is_unprotected"),
    [
        ({"mount": "none"}, "", False),
        ({"mount": "ro", "protect": True}, "/project, ro", False),
        ({"mount": "rw", "protect": True}, "/project, rw, protected", False),
        ({"mount": "rw", "protect": False}, "/project, rw, unprotected", True),
    ],
)
def test_how_it_is_shown(values: dict[str, Any], shown: str, is_unprotected: bool) -> None:
    settings = replace(SETTINGS, **values)
    assert (mount.shown(settings), mount.is_unprotected(settings)) == (shown, is_unprotected)


@pytest.mark.parametrize(
    ("promised", "has", "refuses", "found", "outcome"),
    [
        (True, True, True, "yes", "ok"),
        (True, True, False, "no", "FAILED"),
        (True, True, None, "unknown: it can write no file", "not enforced"),
        (True, False, None, "no", "FAILED"),  # until its next start
        (False, False, None, "no", "ok"),
        (False, True, True, "yes", "FAILED"),
    ],
)
def test_protect_is_what_was_found(
    promised: bool, has: bool, refuses: bool | None, found: str, outcome: str
) -> None:
    check = mount.check_protect(promised, has, OfFolder(refuses, ()))
    assert (check.promised, check.found, check.outcome) == (
        "yes" if promised else "no",
        found,
        outcome,
    )


def test_what_is_hidden_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    inode = (tmp_path / "secret").stat().st_ino
    for inodes, found in (
        ((inode + 1, 0), "secret, gone"),  # what the guest has written, and what it removed
        ((inode, 0), "gone"),
        ((None, None), ""),
    ):
        check = mount.check_hide(tmp_path, ("secret", "gone"), OfFolder(None, inodes))
        assert (check.promised, check.found) == ("secret, gone", found)
        assert (check.outcome == "ok") == (found == "secret, gone")


@pytest.mark.parametrize(
    ("content", "leads_out"),
    [
        (None, False),
        ("gitdir: .git-dir\n", False),
        ("gitdir: sub/../real\n", False),
        ("gitdir: /project/.git/worktrees/x\n", False),
        ("no gitfile\n", False),
        ("gitdir: ../main/.git/worktrees/x\n", True),
        ("gitdir: link/.git\n", True),
        ("gitdir: /home/me/main/.git/worktrees/x\n", True),
        ("gitdir: FOLDER/real\n", True),  # not there in the guest
        ("gitdir: " + "a" * 5000, False),
    ],
)
def test_git_that_finds_no_repository(tmp_path: Path, content: str | None, leads_out: bool) -> None:
    folder = tmp_path / "app"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("/home/me")
    if content is None:
        (folder / ".git").mkdir()
    else:
        (folder / ".git").write_text(content.replace("FOLDER", str(folder)))
    why = mount.why_no_repository(folder)
    assert why[:26] == (".git leads out of this fol" if leads_out else "")


@pytest.mark.parametrize("before", ["", "[user]\n\tname = me\n", "[user]\n\tname = me"])
def test_git_takes_the_folder_whoever_owns_it(tmp_path: Path, before: str) -> None:
    config = tmp_path / "gitconfig"
    if before:
        config.write_text(before)
    script = mount.GIT.read_text().replace("/etc/gitconfig", str(config))
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True)
        argv = ["git", "config", "--file", str(config), "--get-all", "safe.directory"]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert listed.splitlines() == ["/project", "/project/*"]
        assert config.read_text().startswith(before)
