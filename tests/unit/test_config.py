# ruff: noqa: E501  (a table of exact texts)
"""`.env` -> Settings, or the exact error text."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.settings import cloud_config, env

from tests.conftest import nobody
from tests.unit import samples

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
    assert asdict(env.load(folder_with(tmp_path, SOUND))) == samples.UNWRITTEN | {
        "infra_type": "vm",
        "memory": 2048,
        "cpus": 2,
        "disk": 20,
        "name": "app",
        "lan_access": True,
        "hostname": "app",
        "written": ("cpus", "disk", "infra_type", "lan_access", "memory"),
        "in_env": ("cpus", "disk", "infra_type", "lan_access", "memory"),
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
    assert env.load(folder_with(tmp_path, content)).memory == 2048


READABLE = "\n  hint: a comment starts with #, and every quote needs its other one"
LEFT = "warning: cannot be read as KEY=value, and is left to the application"
TWICE = "\n  hint: take one of the two lines out"


GB = 'DISK must be a whole number of GB above 0, got "x"\n  hint: DISK=20 gives the guest a disk of 20 GB'
MAC = 'MAC must be a MAC address: six pairs of hexadecimal digits, joined by colons, got "x"\n  hint: MAC=52:54:00:12:34:56 is one'


LABEL = 'NAME must be a host name of 1 to 63 letters, digits and inner dashes, got "My App"\n  hint: NAME=my-project is one'


def error_of(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        env.load(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SOUND.replace("CPUS=2\n", ""), ".env: missing required key CPUS (whole number)"),
        (SOUND.replace("DISK=20", "DISK=20\n\n\nDISK=30"), f".env:7: DISK is already set in line 4{TWICE}"),
        (SOUND + "'PORTS=1:1\n", f".env:6: cannot be read as KEY=value{READABLE}"),
        (SOUND + "MEMRY 2048\n", f".env:6: cannot be read as KEY=value{READABLE}"),
        (SOUND + 'MOUNT="ro\nB=1\n', f".env:6: cannot be read as KEY=value{READABLE}"),
        (SOUND + "A=1\nA=2\nexport NAME 'B\n", f".env:8: cannot be read as KEY=value{READABLE}"),
        ("two words\r\n\r\n" + SOUND.replace("\n", "\r\n").replace("DISK=20", "DISK=x"), f".env:1: {LEFT}\n.env:6: {GB}"),
        ("NAME=My App\nSECRET=1\n" + SOUND, f".env:1: {LABEL}\n  hint: {env.SHARED}"),
        ("A=1\n" + SOUND + "DISK=s3\n", f".env:7: DISK is already set in line 5{TWICE}\n  hint: {env.SHARED}"),
        (SOUND.replace("\n", "\r").replace("DISK=20", "DISK=x"), f".env:4: {GB}"),
        (SOUND + "PORT=hunter2\nMAC=x\nmemory=hunter2\n", f".env:6: warning: PORT is no key of vagrantp; did you mean PORTS?\n.env:7: {MAC}\n.env:8: warning: memory is no key of vagrantp; did you mean MEMORY?"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, content: str, expected: str) -> None:
    assert error_of(folder_with(tmp_path, content)) == expected


BESIDE = """\
NAME=My App
PORTS=8000
DISK=s3
MEMORY=redis
DATABASE_URL="postgres://me:it's@db/x"
-----BEGIN KEY-----
{"json": true}
VAGRANTP_INFRA_TYPE=container
VAGRANTP_MEMORY=512
VAGRANTP_CPUS=1
VAGRANTP_DISK=5
VAGRANTP_NAME=mine
"""


def test_an_application_has_the_same_file(tmp_path: Path) -> None:
    """CONTRACT: with VAGRANTP_INFRA_TYPE, our keys have the prefix, and every bare one is theirs."""
    told: list[str] = []
    folder = folder_with(tmp_path, BESIDE)
    settings = env.load(folder, told.append)
    assert (settings.name, settings.memory, settings.disk, settings.ports) == ("mine", 512, 5, ())
    assert told == [f".env:{line}: {LEFT}" for line in (6, 7)]
    bad = BESIDE.replace("_MEMORY=512", "_MEMORY=x").replace("_CPUS=1", "_MEMRY=1")
    (folder / ".env").write_text(f"{bad}VAGRANTP_DISK=6\n")
    assert error_of(folder).splitlines() == [
        *(f".env:{line}: {LEFT}" for line in (6, 7)),
        '.env:9: VAGRANTP_MEMORY must be a whole number of MB above 0, got "x"',
        "  hint: MEMORY=2048 gives the guest 2 GB",
        ".env:10: warning: VAGRANTP_MEMRY is no key of vagrantp; did you mean VAGRANTP_MEMORY?",
        ".env:13: VAGRANTP_DISK is already set in line 11",
        "  hint: take one of the two lines out",
        ".env: missing required key VAGRANTP_CPUS (whole number)",
    ]


def test_defaults_have_bare_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/vagrantp").mkdir(parents=True)
    defaults = tmp_path / "config/vagrantp/defaults.env"
    folder = folder_with(tmp_path, BESIDE)
    defaults.write_text("SSH_USER=av\n")
    assert env.load(folder).ssh_user == "av"
    defaults.write_text("VAGRANTP_SSH_USER=av\ntwo words\n")
    assert error_of(folder).splitlines()[:4] == [
        f"{defaults}:1: VAGRANTP_SSH_USER counts only beside VAGRANTP_INFRA_TYPE",
        "  hint: the keys of this file have no prefix",
        f"{defaults}:2: cannot be read as KEY=value",
        READABLE.strip("\n"),
    ]


@pytest.mark.parametrize("name", ["VAGRANTP_MOUNT", "VAGRANTP_HIDE"])
def test_one_prefixed_key_is_a_mistake(tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, f"{SOUND}{name}=ro\n")
    text = f".env:6: {name} counts only beside VAGRANTP_INFRA_TYPE"
    assert error_of(folder) == f"{text}\n  hint: write VAGRANTP_ before all keys of vagrantp"


def test_all_mistakes_at_once_in_file_order(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "DISK=x\nLAN_ACCESS=yes\nMEMORY=-5\nINFRA_TYPE=vm\nMOUNT=w\n")
    assert error_of(folder).splitlines() == [
        '.env:1: DISK must be a whole number of GB above 0, got "x"',
        "  hint: DISK=20 gives the guest a disk of 20 GB",
        '.env:3: MEMORY must be a whole number of MB above 0, got "-5"',
        "  hint: MEMORY=2048 gives the guest 2 GB",
        '.env:5: MOUNT must be none, ro or rw, got "w"',
        "  hint: MOUNT=ro lets the guest read the project folder, MOUNT=rw write it, too",
        ".env: missing required key CPUS (whole number)",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SOUND.encode("utf-16"), ".env: not UTF-8 text\n  hint: save it as UTF-8"),
        (SOUND.encode("utf-16-le"), ".env: holds NUL bytes, so no text\n  hint: save it as UTF-8"),
        (b"A=\0", ".env: holds NUL bytes, so no text\n  hint: save it as UTF-8"),
        (b"A=1\n" * 300_000, ".env: larger than 1 MB, so no settings file"),
    ],
)
def test_what_is_no_settings_file(tmp_path: Path, content: bytes, expected: str) -> None:
    assert error_of(folder_with(tmp_path, content)) == expected


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, SOUND)
    os.truncate(folder / ".env", 100 * 1024**2)
    assert error_of(folder) == ".env: larger than 1 MB, so no settings file"


def test_a_megabyte_of_blanks_takes_no_time(tmp_path: Path) -> None:
    start = monotonic()
    env.load(folder_with(tmp_path, f"{SOUND}A=1{' ' * 1_000_000}x\n"))
    assert monotonic() - start < 5  # minutes, by the square


def test_what_is_no_file(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    assert error_of(tmp_path) == f".env: not found in {tmp_path}\n  hint: fab init writes one"
    env.symlink_to("nowhere")
    assert error_of(tmp_path) == ".env: is a link to nothing\n  hint: it leads to nowhere"
    env.unlink()
    env.symlink_to(".env")
    assert error_of(tmp_path) == ".env: cannot be read: Too many levels of symbolic links"
    env.unlink()
    env.symlink_to("/dev/zero")
    assert error_of(tmp_path) == ".env: is no regular file"
    env.unlink()
    os.mkfifo(env)
    assert error_of(tmp_path) == ".env: is no regular file"
    env.unlink()
    env.mkdir()
    assert error_of(tmp_path) == ".env: is a folder, not a file"


def test_a_file_that_others_may_not_read() -> None:
    with TemporaryDirectory() as name:
        folder = folder_with(Path(name), SOUND)
        (folder / ".env").chmod(0)
        Path(name).chmod(0o755)
        with nobody():
            me = os.geteuid()
        os.chown(folder / ".env", me, -1)
        with nobody():
            assert error_of(folder) == (
                ".env: cannot be read: Permission denied\n  hint: chmod u+r .env"
            )
        folder.chmod(0)
        with nobody():
            assert error_of(folder) == ".env: cannot be read: Permission denied"
        folder.chmod(0o755)


def test_a_link_to_a_file_is_as_good_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "shared.env").write_text(SOUND)
    folder = folder_with(tmp_path, "")
    (folder / ".env").unlink()
    (folder / ".env").symlink_to("../shared.env")
    assert env.load(folder).memory == 2048


def test_what_may_be_a_mistake_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    env.load(folder_with(tmp_path, f"PORT=hunter2\nAPI_KEY=x\n{SOUND}RAM=y\n"), told.append)
    assert told == [
        ".env:1: warning: PORT is no key of vagrantp; did you mean PORTS?",
        ".env:8: warning: RAM is no key of vagrantp; did you mean MEMORY?",
    ]


def test_errors_in_the_defaults_name_their_file_and_come_first(tmp_path: Path) -> None:
    path = env.defaults_path()
    path.parent.mkdir(parents=True)
    path.write_text("CPUS=none\nRAM=1\n'\nCPUS=3\nSSH_KEY=mine.pub\n")
    folder = folder_with(tmp_path, SOUND.replace("CPUS=2", "CPUS=two"))
    assert error_of(folder).splitlines() == [
        f"{path}:2: warning: RAM is no key of vagrantp; did you mean MEMORY?",
        f"{path}:3: cannot be read as KEY=value",
        "  hint: a comment starts with #, and every quote needs its other one",
        f"{path}:4: CPUS is already set in line 1",
        "  hint: take one of the two lines out",
        f'{path}:5: SSH_KEY must name a file that is there, got "mine.pub"',
        "  hint: a public key's name ends in .pub; a path starts from the folder of this file",
        '.env:3: CPUS must be a whole number above 0, got "two"',
        "  hint: CPUS=2 gives the guest two",
    ]


def test_paths_in_the_defaults_start_from_their_folder(tmp_path: Path) -> None:
    path = env.defaults_path()
    path.parent.mkdir(parents=True)
    path.write_text("SSH_KEY=mine.pub\n")
    path.with_name("mine.pub").write_text("ssh-ed25519 AAAAC3Nz me\n")
    assert env.load(folder_with(tmp_path, SOUND)).ssh_key == (path.with_name("mine.pub"),)


def test_what_only_other_projects_need_is_no_mistake_in_the_defaults(tmp_path: Path) -> None:
    path = env.defaults_path()
    path.parent.mkdir(parents=True)
    text = "IMAGE=debian-12\nBOX=debian-12\nACCEL=tcg\nGATEWAY=10.0.0.1\nBRIDGE=br0\n"
    path.write_text(f"{text}CLOUD_INIT=user-data\n")
    (path.parent / "user-data").write_text("#cloud-config\nhostname: theirs\n")
    for infra_type in ("vm", "container"):
        text = SOUND.replace("=vm", f"={infra_type}")
        found = env.load(folder_with(tmp_path, text, infra_type))
        assert (found.bridge, found.gateway) == (None, None)
        assert found.hostname == ("theirs" if infra_type == "vm" else "container")


def test_defaults_that_cannot_be_read_hide_what_is_missing(tmp_path: Path) -> None:
    path = env.defaults_path()
    path.mkdir(parents=True)
    folder = folder_with(tmp_path, "INFRA_TYPE=vm\nMEMORY=x\n")
    assert error_of(folder).splitlines() == [
        f"{path}: is a folder, not a file",
        '.env:2: MEMORY must be a whole number of MB above 0, got "x"',
        "  hint: MEMORY=2048 gives the guest 2 GB",
    ]


def test_defaults_of_the_host_lie_beneath_the_projects(tmp_path: Path) -> None:
    path = env.defaults_path()
    path.parent.mkdir(parents=True)
    path.write_text("MEMORY=512\nCPUS=4\nDISK=none\nIMAGE=debian-12\n")
    folder = folder_with(tmp_path, "INFRA_TYPE=vm\nMEMORY=1024\nDISK=5\nLAN_ACCESS=yes\n")
    settings = env.load(folder)
    assert (settings.memory, settings.cpus, settings.disk) == (1024, 4, 5)
    (folder / ".env").write_text("INFRA_TYPE=vm\nMEMORY=1024\nLAN_ACCESS=yes\n")
    with pytest.raises(ConfigError, match=f"^{path}:3: DISK must be "):
        env.load(folder)


def test_what_is_missing_comes_in_the_order_of_the_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        env.load(folder_with(tmp_path, ""))
    keys = [line.split()[4] for line in str(caught.value).splitlines()]
    assert keys == ["INFRA_TYPE", "MEMORY", "CPUS", "DISK"]


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
    assert env.name_from(tmp_path / folder) == name


def test_the_id_follows_the_resolved_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert env.id_from(tmp_path / "real") == env.id_from(tmp_path / "link")
    assert env.id_from(tmp_path / "real") != env.id_from(tmp_path)


def test_what_sets_a_guest_up(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, SOUND + 'PROVISION_SCRIPT=base,"it\'s, mine",x.yml\n')
    (folder / "it's, mine").write_text("#!/bin/sh\n")
    (folder / "it's, mine").chmod(0o755)
    (folder / "x.yml").write_text("- hosts: all\n")
    steps = env.load(folder, pytest.fail).provision_script
    assert [(step.kind, step.path) for step in steps] == [
        ("ours", Path("base")),
        ("script", folder / "it's, mine"),
        ("playbook", folder / "x.yml"),
    ]
    assert [str(step) for step in steps][1] == f'"{folder}/it\'s, mine"'


@pytest.mark.parametrize(
    ("text", "name", "users"),
    [
        ("#cloud-config\n", "app", []),
        ("#cloud-config\nhostname: base.example.org\nusers: [default, name: av]\n", "base", ["av"]),
        ("#cloud-config\nfqdn: base.example.org\n", "base", []),
        ("#cloud-config\nfqdn: a.example.org\nhostname: base\n", "base", []),
        ("#cloud-config\nfqdn: a.example.org\nprefer_fqdn_over_hostname: true\n", None, []),
        ("#cloud-config\nhostname: base\npreserve_hostname: true\n", None, []),
        ("#cloud-config\nusers: default\n", "app", []),
        ("#cloud-config\nuser: dev\n", "app", ["dev"]),
        ("#cloud-config\nuser: {name: dev, groups: [x]}\nusers: [default]\n", "app", ["dev"]),
        ("## template: jinja\n#cloud-config\nuser: dev\n{% if x %}\n", None, ["dev"]),
        ("#cloud-config\nusers: {av: {shell: /bin/sh}}\n", "app", ["av"]),
        ("## template: jinja\n#cloud-config\nusers:\n  - name: av\n{% if x %}\n", None, ["av"]),
    ],
)
def test_what_is_read_of_a_cloud_config(
    tmp_path: Path, text: str, name: str | None, users: list[str]
) -> None:
    folder = folder_with(tmp_path, SOUND + "CLOUD_INIT=user-data\n")
    (folder / "user-data").write_text(text)
    assert env.load(folder, pytest.fail).hostname == (name if name != "app" else folder.name)
    assert cloud_config.users_of(folder / "user-data") == users
    (folder / ".env").write_text(SOUND + "CLOUD_INIT=user-data\nNAME=mine\n")
    assert env.load(folder, pytest.fail).hostname == "mine"
