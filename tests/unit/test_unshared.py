"""Which folders are no projects that MOUNT may share."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.core.places import MASTER
from vagrantp.settings import env
from vagrantp.settings.unshared import SECRETS, why_no_project

PLAIN = "INFRA_TYPE=container\nMEMORY=256\nCPUS=1\nDISK=3\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder, with vagrantp's places where they usually are."""
    for kind in ("STATE", "CONFIG", "CACHE", "DATA"):
        monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
    (tmp_path / "homes/me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "homes/me"))
    return tmp_path / "homes/me"


@pytest.mark.parametrize("name", ["app", "src/github.com/me/app", ".config/app", ".cache/x"])
def test_a_folder_in_a_home_is_a_project(home: Path, name: str) -> None:
    (home / name).mkdir(parents=True)
    (home / ".ssh").mkdir()
    for entry in (".git", ".env", ".npmrc", ".config", ".docker", ".vscode"):
        (home / name / entry).mkdir()
    assert why_no_project(home / name) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/", "this is the whole file system"),
        ("HOME", "this is the home folder of the user who runs this"),
        ("HOME/..", "the home folder of the user who runs this is in it"),
        ("HOME/link", "this is the home folder of the user who runs this"),
        ("HOME/.ssh/app", "it is in a folder called .ssh, where programs keep secrets"),
        ("HOME/.local", "HOME/.local/state/vagrantp is in it, which vagrantp itself needs"),
        ("HOME/.local/state/vagrantp", "HOME/.local/state/vagrantp is in it, which …"),
        ("HOME/.local/state/vagrantp/x", "it is in HOME/.local/state/vagrantp, which …"),
        ("HOME/.config/vagrantp", "HOME/.config/vagrantp is in it, which …"),
        ("HOME/.cache/vagrantp/x", "it is in HOME/.cache/vagrantp, which …"),
        ("HOME/.local/share/vagrantp/x", "it is in HOME/.local/share/vagrantp, which …"),
        ("/usr/local", "/usr/local/lib/vagrantp is in it, which …"),
        ("/usr/local/lib/vagrantp", "/usr/local/lib/vagrantp is in it, which …"),
        ("/run/vagrantp/guests", "it is in /run/vagrantp, which …"),
        ("/etc/containers", "/etc/containers/oci/hooks.d/vagrantp.json is in it, which …"),
        (f"{MASTER}/lib/vagrantp", f"it is in {MASTER}/lib, which …"),
        (f"{MASTER}", f"{MASTER}/.venv is in it, which …"),
    ],
)
def test_what_is_no_project(home: Path, name: str, why: str) -> None:
    (home / "link").symlink_to("../me")
    folder = Path(name.replace("HOME", str(home)))
    why = why.replace("HOME", str(home)).replace("which …", "which vagrantp itself needs")
    assert why_no_project(folder) == why


def test_nobodys_home_is_a_project(home: Path) -> None:
    for user in pwd.getpwall():
        theirs = Path(user.pw_dir)
        if theirs.is_dir() and not theirs.is_symlink():
            assert why_no_project(theirs), user
    assert why_no_project(Path("/root")) == "this is the home folder of root"
    assert why_no_project(Path("/var"))


@pytest.mark.parametrize("name", SECRETS)
def test_what_a_home_folder_has_makes_it_none(home: Path, name: str) -> None:
    (home / "app/sub" / name).mkdir(parents=True)
    assert why_no_project(home / "app/sub") == f"there is {name} in it, as in a home folder"
    assert why_no_project(home / "app") == ""  # only what stands directly there


@pytest.mark.parametrize("mount", ["ro", "rw"])
def test_it_is_an_error_of_mount(home: Path, mount: str) -> None:
    (home / ".env").write_text(f"{PLAIN}MOUNT={mount}\n")
    with pytest.raises(ConfigError) as refused:
        env.load(home)
    assert str(refused.value) == (
        ".env:5: MOUNT must be none here, as this is the home folder of the user who runs this, "
        f'got "{mount}"\n'
        "  hint: put the project into a folder of its own, or write MOUNT=none"
    )
    assert refused.value.exit_code == 2
    (home / ".env").write_text(f"{PLAIN}MOUNT=none\n")
    env.load(home)


def test_defaults_env_mounts_no_home_either(home: Path) -> None:
    (home / ".config/vagrantp").mkdir(parents=True)
    (home / ".config/vagrantp/defaults.env").write_text("MOUNT=ro\n")
    (home / ".env").write_text(PLAIN)
    with pytest.raises(ConfigError, match=r"defaults\.env:1: MOUNT must be none here"):
        env.load(home)
    (home / ".env").write_text(f"{PLAIN}MOUNT=none\n")
    env.load(home)
