"""Name and address of git in a guest: this host's git on both sides."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest.git_identity import given_before

NAME, EMAIL = "Zoë O'Neil $(id)", "zoe@example.org"
OURS = f"[user]\n\tname = {NAME}\n\temail = {EMAIL}\n"


@pytest.mark.parametrize(
    ("here", "there", "then"),
    [
        (OURS, "", (NAME, EMAIL)),
        (OURS, "[user]\n\tname = guest\n", ("guest", EMAIL)),
        (OURS, "[user]\n\tname = guest\n\temail = g@h\n", ("guest", "g@h")),
        (f"[user]\n\temail = old@b\n\temail = {EMAIL}\n[alias]\n\tx = y\n", "", ("", EMAIL)),
        ('[user]\n\tname = "a\\nb"\n\tsigningkey = x\n', "", ("", "")),
        ("", "", ("", "")),
        ("[user", "", ("", "")),
    ],
)
def test_what_git_has_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, there: str, then: tuple[str, str]
) -> None:
    home, guest = tmp_path / "home", tmp_path / "guest"
    for folder, text in ((home, here), (guest, there)):
        folder.mkdir()
        (folder / ".gitconfig").write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    command, data = given_before(Host(Context()), "echo $0 goes on; cat; exit 7", b"the rest\n")
    assert not [word for word in (NAME, EMAIL, "old@b") if word in command]
    env = {"HOME": str(guest), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
    argv = ["bash", "-c", command]
    done = subprocess.run(argv, env=env, input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"bash goes on\nthe rest\n", b"")

    def said(key: str) -> str:
        argv = ["git", "config", "--global", "--get", f"user.{key}"]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False).stdout

    assert (said("name").strip(), said("email").strip()) == then
    assert "alias" not in (guest / ".gitconfig").read_text()


def test_a_guest_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gitconfig").write_text(OURS)
    monkeypatch.setenv("HOME", str(tmp_path))
    command, data = given_before(Host(Context()), "echo on", b"")
    for tool in ("sh", "base64"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": str(tmp_path)},
        input=data,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"on\n", b"")
