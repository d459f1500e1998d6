# ruff: noqa: E501  (a table of exact texts)
"""`.env` -> Settings, or the exact error text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp import config
from vagrantp.errors import ConfigError

SOUND = "INFRA_TYPE=vm\nMEMORY=2048\nCPUS=2\nDISK=20\nLAN_ACCESS=yes\n"


@pytest.fixture(autouse=True)
def _no_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def folder_with(tmp_path: Path, content: str | bytes, name: str = "app") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    data = content.encode() if isinstance(content, str) else content
    (folder / ".env").write_bytes(data)
    return folder


def test_settings_of_a_sound_file(tmp_path: Path) -> None:
    assert asdict(config.load(folder_with(tmp_path, SOUND))) == {
        "infra_type": "vm",
        "memory": 2048,
        "cpus": 2,
        "disk": 20,
        "name": "app",
        "image": "debian-12",
        "accel": "auto",
        "lan_access": True,
    }


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + SOUND.encode(),
        SOUND.replace("\n", "\r\n").encode(),
        SOUND.replace("=", " = ").encode(),
        b"# a comment\n\n" + SOUND.encode() + b"DATABASE_URL='postgres://x'\nexport FOO=1\n",
        SOUND.replace("MEMORY=2048", "export MEMORY='2048' # MB").encode(),
    ],
)
def test_other_spellings_of_the_same_file(tmp_path: Path, content: bytes) -> None:
    assert config.load(folder_with(tmp_path, content)).memory == 2048


NUMBER_HINT = "\n  hint: MEMORY=2048 gives the guest 2 GB"
LATER = "\n  hint: take PORTS out; this version cannot honour it"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("MEMORY=2048", "MEMORY=-5"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got "-5"{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY=0"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got "0"{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY=2G"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got "2G"{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY=1e3"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got "1e3"{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY=٣"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got "٣"{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY="),
            f'.env:2: MEMORY must be a whole number of MB above 0, got ""{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY"),
            f'.env:2: MEMORY must be a whole number of MB above 0, got ""{NUMBER_HINT}',
        ),
        (
            ("MEMORY=2048", "MEMORY=99999999999999999999999"),
            f'.env:2: MEMORY must be a whole number of MB, 16777216 at most, got "99999999999999999999999"{NUMBER_HINT}',
        ),
        (("CPUS=2\n", ""), ".env: missing required key CPUS (whole number)"),
        (("INFRA_TYPE=vm\n", ""), ".env: missing required key INFRA_TYPE (vm or container)"),
        (
            ("INFRA_TYPE=vm", "INFRA_TYPE=lxc"),
            '.env:1: INFRA_TYPE must be vm or container, got "lxc"\n'
            "  hint: INFRA_TYPE=vm makes a virtual machine, INFRA_TYPE=container a Podman container",
        ),
        (
            ("LAN_ACCESS=yes", "LAN_ACCESS=no"),
            '.env:5: LAN_ACCESS must be yes in this version, which cannot isolate a guest yet, got "no"\n'
            "  hint: LAN_ACCESS=yes says that you know the guest can reach your LAN",
        ),
        (("DISK=20", "DISK=20\nPORTS=8080:80"), f".env:5: PORTS is not supported yet{LATER}"),
        (
            ("DISK=20", "DISK=20\nNAME=-x"),
            '.env:5: NAME must be a host name of 1 to 63 letters, digits and inner dashes, got "-x"\n'
            "  hint: NAME=my-project is one",
        ),
        (("DISK=20", "DISK=20\n\n\nDISK=30"), ".env:7: DISK is already set in line 4"),
        (("DISK=20", "DISK=20\n'unclosed"), ".env:5: cannot be read as KEY=value"),
        (
            ("DISK=20", "DISK=20\nIMAGE=debian-12"),
            ".env:5: IMAGE is for INFRA_TYPE=container\n  hint: take IMAGE out",
        ),
    ],
)
def test_one_mistake(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(folder_with(tmp_path, SOUND.replace(*change)))
    assert str(caught.value) == expected


def test_all_mistakes_at_once_in_file_order(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "DISK=x\nLAN_ACCESS=yes\nMEMORY=-5\nINFRA_TYPE=vm\nMOUNT=rw\n")
    with pytest.raises(ConfigError) as caught:
        config.load(folder)
    assert str(caught.value).splitlines() == [
        '.env:1: DISK must be a whole number of GB above 0, got "x"',
        "  hint: DISK=20 gives the guest a disk of 20 GB",
        '.env:3: MEMORY must be a whole number of MB above 0, got "-5"',
        "  hint: MEMORY=2048 gives the guest 2 GB",
        ".env:5: MOUNT is not supported yet",
        "  hint: take MOUNT out; this version cannot honour it",
        ".env: missing required key CPUS (whole number)",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SOUND.encode("utf-16"), ".env: not UTF-8 text\n  hint: save it as UTF-8"),
        (b"A=\0", ".env: holds NUL bytes, so no text\n  hint: save it as UTF-8"),
        (b"A=1\n" * 300_000, ".env: larger than 1 MB, so no settings file"),
    ],
)
def test_what_is_no_settings_file(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(folder_with(tmp_path, content))
    assert str(caught.value) == expected


def test_a_missing_file_a_folder_and_a_link_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\.env: not found in "):
        config.load(tmp_path)
    (tmp_path / ".env").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"^\.env: is a link to nothing"):
        config.load(tmp_path)
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigError, match=r"^\.env: cannot be read: Is a directory$"):
        config.load(tmp_path)


def test_defaults_of_the_host_lie_beneath_the_projects(tmp_path: Path) -> None:
    path = config.defaults_path()
    path.parent.mkdir(parents=True)
    path.write_text("MEMORY=512\nCPUS=4\nDISK=none\nIMAGE=debian-12\n")
    folder = folder_with(tmp_path, "INFRA_TYPE=vm\nMEMORY=1024\nDISK=5\nLAN_ACCESS=yes\n")
    settings = config.load(folder)
    assert (settings.memory, settings.cpus, settings.disk) == (1024, 4, 5)
    (folder / ".env").write_text("INFRA_TYPE=vm\nMEMORY=1024\nLAN_ACCESS=yes\n")
    with pytest.raises(ConfigError, match=f"^{path}:3: DISK must be "):
        config.load(folder)


def test_what_is_missing_comes_in_the_order_of_the_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(folder_with(tmp_path, ""))
    keys = [line.split()[4] for line in str(caught.value).splitlines()]
    assert keys == ["INFRA_TYPE", "MEMORY", "CPUS", "DISK", "LAN_ACCESS"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("it's my app", "it-s-my-app"),
        ("été", "ete"),
        ("日本", "project"),
        ("-- x --", "x"),
        ("a" * 80, "a" * 63),
        ("My_App.v2", "my-app-v2"),
    ],
)
def test_a_folder_name_becomes_a_host_label(tmp_path: Path, folder: str, name: str) -> None:
    assert config.name_from(tmp_path / folder) == name


def test_the_id_follows_the_resolved_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert config.id_from(tmp_path / "real") == config.id_from(tmp_path / "link")
    assert config.id_from(tmp_path / "real") != config.id_from(tmp_path)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_content_ever_causes_anything_but_a_config_error(content: bytes) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        (Path(name) / ".env").write_bytes(content)
        with pytest.raises(ConfigError):
            config.load(Path(name))
