"""What `.env` asks of this host, and what of it a person was asked for already."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core import documents
from vagrantp.core.errors import ConfigError, StateError
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.instance import grants, record
from vagrantp.settings import env, files
from vagrantp.settings.keys import KEYS
from vagrantp.verbs.steps.grant import granted, keep

from tests.certificates import ONE
from tests.unit import samples

PLAIN = {"INFRA_TYPE": "container", "MEMORY": "256", "CPUS": "1", "DISK": "3"}
BRIDGE = {"INFRA_TYPE": "vm", "NETWORK_TYPE": "bridge"}
FILES = {
    "site.yml": "- hosts: all\n",
    "vars.yml": "a: 1\n",
    "user-data": "#cloud-config\nhostname: theirs\n",
    "key.pub": "ssh-ed25519 AAAAC3\n",
    "ca.pem": ONE,
    "image.qcow2": "",
    "run": "#!/bin/sh\necho one\n",
}
FETCHED, OUTSIDE = grants.FETCHED, grants.OUTSIDE


def put_files(folder: Path) -> Path:
    """Make a folder with all the files that `.env` may name."""
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    put_files(tmp_path / "elsewhere")
    return put_files(tmp_path / "app")


def settings(folder: Path, **values: str) -> env.Settings:
    """Return the settings of a plain `.env` with these values, as far as they may be read."""
    lines = [f"{key}={value}\n" for key, value in {**PLAIN, **values}.items()]
    (folder / ".env").write_text("".join(lines))
    return grants.load(folder, pytest.fail)


def asked(folder: Path, *shared: Path, **values: str) -> list[str]:
    """Return what such a `.env` asks for, but for its type."""

    def is_box(name: str) -> bool:
        return "/" in name

    found = grants.asked(settings(folder, **values), folder, {}, shared, is_box)
    return [f"{one}: {one.lets}" for one in found if one.key != "INFRA_TYPE"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        (
            {"LAN_ACCESS": "no", "MOUNT": "none", "AUTOSTART": "no", "NETWORK_TYPE": "default"},
            [],
        ),
        ({"PORTS": "8080:80,auto:3000,127.0.0.2:1:1,[::1]:2:2"}, []),
        ({"PROVISION_SCRIPT": "base,agent,site.yml,run", "PROVISION_VARS": "vars.yml"}, []),
        ({"INFRA_TYPE": "vm", "CLOUD_INIT": "user-data", "BOX": "./image.qcow2"}, []),
        ({"INFRA_TYPE": "vm", "BOX": "debian-12"}, []),
        ({"INFRA_TYPE": "vm", "BOX": "https://example.org/x.qcow2"}, []),
        ({"FIXED_IP": "10.201.0.57", "MAC": "52:54:00:12:34:56", "NAME": "x"}, []),
        ({"LAN_ACCESS": "yes"}, ["LAN_ACCESS=yes: the guest reaches your LAN"]),
        (
            {"LAN_ALLOW": "host:11434,10.0.0.0/8:53/udp"},
            [
                "LAN_ALLOW=host:11434: the guest reaches this",
                "LAN_ALLOW=10.0.0.0/8:53/udp: the guest reaches this",
            ],
        ),
        (
            {"PORTS": "8080:80,0.0.0.0:1:2,[::]:3:4/udp"},
            [
                f"PORTS={port}: other machines reach the guest at this port of this host"
                for port in ("0.0.0.0:1:2", "[::]:3:4/udp")
            ],
        ),
        (
            {
                **BRIDGE,
                "BRIDGE": "br0",
                "FIXED_IP": "192.168.1.50/24",
                "GATEWAY": "192.168.1.1",
                "DNS": "192.168.1.2",
                "MAC": "52:54:00:12:34:56",
            },
            [
                "NETWORK_TYPE=bridge: the guest is a machine on the LAN of this host",
                "BRIDGE=br0: the bridge that the guest is on",
                "FIXED_IP=192.168.1.50/24: the guest has this address on your LAN",
                "GATEWAY=192.168.1.1: the guest's way out of your LAN",
                "DNS=192.168.1.2: the guest's resolver on your LAN",
                "MAC=52:54:00:12:34:56: the guest has this MAC address on your LAN",
            ],
        ),
        ({"MOUNT": "ro"}, ["MOUNT=ro: the guest reads this folder"]),
        ({"MOUNT": "rw"}, ["MOUNT=rw: the guest changes this folder"]),
        (
            {"MOUNT": "rw", "PROTECT": "no"},
            [
                "MOUNT=rw: the guest changes this folder",
                "PROTECT=no: the guest writes what programs on this host run in this folder, git "
                "among them",
            ],
        ),
        ({"MOUNT": "rw", "PROTECT": "yes"}, ["MOUNT=rw: the guest changes this folder"]),
        ({"MOUNT": "ro", "PROTECT": "no"}, ["MOUNT=ro: the guest reads this folder"]),
        (
            {"AGENT": "claude", "AGENT_ENV": "TOKEN,OTHER"},
            [
                f"AGENT_ENV={name}: the agent in the guest gets its value from secrets.env"
                for name in ("TOKEN", "OTHER")
            ],
        ),
        ({"AUTOSTART": "yes"}, ["AUTOSTART=yes: the guest starts with this host"]),
        (
            {"SSH_KEY": "key.pub,../elsewhere/key.pub"},
            [
                "SSH_KEY=APP/key.pub: who has the private key to it logs into the guest",
                "SSH_KEY=ELSE/key.pub: who has the private key to it logs into the guest; "
                f"{OUTSIDE}",
            ],
        ),
        (
            {"PROVISION_SCRIPT": "../elsewhere/run,base,../elsewhere/site.yml"},
            [
                f"PROVISION_SCRIPT=ELSE/run: {OUTSIDE}",
                f"PROVISION_SCRIPT=ELSE/site.yml: {grants.BESIDE}",
            ],
        ),
        (
            {"PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "../elsewhere/vars.yml"},
            [f"PROVISION_VARS=ELSE/vars.yml: {OUTSIDE}"],
        ),
        (
            {"CA_CERTS": "ca.pem,../elsewhere/ca.pem"},
            [f"CA_CERTS=ELSE/ca.pem: {OUTSIDE}"],
        ),
        (
            {"INFRA_TYPE": "vm", "CLOUD_INIT": "../elsewhere/user-data"},
            [f"CLOUD_INIT=ELSE/user-data: {OUTSIDE}"],
        ),
        (
            {"INFRA_TYPE": "vm", "BOX": "./../elsewhere/image.qcow2"},
            [f"BOX=ELSE/image.qcow2: {OUTSIDE}"],
        ),
        ({"INFRA_TYPE": "vm", "BOX": "generic/x"}, [f"BOX=generic/x: {grants.BOX}"]),
    ],
)
def test_what_is_asked(project: Path, values: dict[str, str], expected: list[str]) -> None:
    samples.make_secrets(project.parent / "CONFIG")
    other = project.with_name("elsewhere")
    texts = [text.replace("APP", str(project)).replace("ELSE", str(other)) for text in expected]
    assert asked(project, **values) == texts


def test_every_key_that_is_not_plain_has_words() -> None:
    for key in KEYS.values():
        if key.grant:
            assert isinstance(key.grant.lets, str) or {*key.grant.lets} == {"ro", "rw"}


def test_what_defaults_env_says_asks_nothing(project: Path, tmp_path: Path) -> None:
    config = tmp_path / "CONFIG/vagrantp"
    put_files(config)
    (config / "defaults.env").write_text(
        "LAN_ACCESS=yes\nMOUNT=rw\nSSH_KEY=key.pub,../../elsewhere/key.pub\n"
        "PROVISION_SCRIPT=../../elsewhere/site.yml\nNETWORK_TYPE=bridge\n"
    )
    assert asked(project, INFRA_TYPE="vm") == []
    assert asked(project, INFRA_TYPE="vm", MOUNT="ro") == ["MOUNT=ro: the guest reads this folder"]
    assert asked(project, INFRA_TYPE="vm", BRIDGE="br1") == [
        "BRIDGE=br1: the bridge that the guest is on"
    ]


@pytest.mark.parametrize("key", ["PROVISION_VARS", "PROVISION_SCRIPT"])
def test_a_path_is_what_it_really_leads_to(project: Path, key: str) -> None:
    other = project.with_name("elsewhere")
    why = OUTSIDE if key == "PROVISION_VARS" else grants.BESIDE
    values = {"PROVISION_SCRIPT": "base"} | {key: "link.yml"}
    (project / "link.yml").symlink_to("vars.yml" if key == "PROVISION_VARS" else "site.yml")
    assert asked(project, **values) == []
    (project / "link.yml").unlink()
    (project / "link.yml").symlink_to(other / "link.yml")
    (other / "link.yml").symlink_to(other / "vars.yml")
    assert asked(project, **values) == [f"{key}={other}/vars.yml: {why}"]
    (project / "inner").symlink_to(other)
    assert asked(project, **{**values, key: "inner/vars.yml"}) == [f"{key}={other}/vars.yml: {why}"]
    # and one that only looks as if it led outside
    (other / "back.yml").symlink_to(project / "vars.yml")
    if key == "PROVISION_VARS":
        assert asked(project, **{**values, key: "../elsewhere/back.yml"}) == []


def test_a_folder_that_another_guest_writes(project: Path) -> None:
    assert asked(project, project.parent, PROVISION_SCRIPT="run") == [
        f"PROVISION_SCRIPT={project}/run: the guest of {project.parent} can change it"
    ]
    assert asked(project, project / "sub", PROVISION_SCRIPT="run") == []


@pytest.mark.parametrize("name", ["requirements.yml", "roles/requirements.yaml"])
def test_requirements_are_asked_by_their_content(project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("- src: one\n")
    assert asked(project, PROVISION_SCRIPT="run") == []
    assert asked(project, PROVISION_SCRIPT="site.yml") == [f"{project}/{name}: {FETCHED}"]
    one = grants.asked(settings(project, PROVISION_SCRIPT="site.yml"), project, {})
    assert grants.wider(grants.together(one), one) == []
    (project / name).write_text("- src: two\n")
    two = grants.asked(settings(project, PROVISION_SCRIPT="site.yml"), project, {})
    assert [str(ask) for ask in grants.wider(grants.together(one), two)] == [f"{project}/{name}"]


def test_requirements_above_a_playbook_are_asked_for(project: Path) -> None:
    (project / "plays").mkdir()
    (project / "plays/site.yml").write_text("- hosts: all\n")
    for folder in (project, project.parent):
        (folder / "requirements.yml").write_text("- src: one\n")
    found = asked(project, PROVISION_SCRIPT="plays/site.yml")
    assert found == [f"{project}/requirements.yml: {FETCHED}"]


def test_what_a_terminal_could_obey_is_escaped(project: Path) -> None:
    odd = project.with_name("odd\x1b[2J\u202e\n  MOUNT=none")
    odd.write_text("a: 1\n")
    (project / "link.yml").symlink_to(odd)
    [text] = asked(project, PROVISION_SCRIPT="base", PROVISION_VARS="link.yml")
    assert text.isprintable()
    assert "odd\\x1b[2J\\u202e\\n  MOUNT" in text


@pytest.mark.parametrize(
    ("key", "before", "now", "expected"),
    [
        ("MOUNT", "rw", "ro", []),
        ("MOUNT", "ro", "rw", ["rw"]),
        ("INFRA_TYPE", "vm", "container", ["container"]),
        ("INFRA_TYPE", "container", "vm", []),
        ("LAN_ALLOW", "10.0.0.0/8", "10.0.0.0/8,host:1", ["host:1"]),
        ("LAN_ALLOW", "host:1,host:2", "host:2", []),
        ("LAN_ALLOW", "10.0.0.0/8", "10.1.0.0/16:80", []),
        ("LAN_ALLOW", "10.1.0.0/16", "10.0.0.0/8", ["10.0.0.0/8"]),
        ("LAN_ALLOW", "10.0.0.0/8:80", "10.0.0.0/8", ["10.0.0.0/8"]),
        ("LAN_ALLOW", "10.0.0.0/8:80", "10.0.0.0/8:80/udp", ["10.0.0.0/8:80/udp"]),
        ("LAN_ALLOW", "10.0.0.0/8:80", "host:80", ["host:80"]),
        ("PORTS", "0.0.0.0:1:1", "192.168.1.7:1:1,2:2", []),
        ("PORTS", "0.0.0.0:1:1", "[::]:1:1", ["[::]:1:1"]),
        ("PORTS", "192.168.1.7:1:1", "0.0.0.0:1:1", ["0.0.0.0:1:1"]),
        ("PORTS", "0.0.0.0:1:1", "0.0.0.0:1:22", ["0.0.0.0:1:22"]),
        ("LAN_ACCESS", "yes", "yes", []),
        ("LAN_ACCESS", "no", "yes", ["yes"]),
        ("AUTOSTART", "no", "yes", ["yes"]),
    ],
)
def test_only_what_gives_more_is_asked(
    project: Path, key: str, before: str, now: str, expected: list[str]
) -> None:
    had = grants.together(grants.asked(settings(project, **{key: before}), project, {}))
    asks = grants.asked(settings(project, **{key: now}), project, had)
    assert [one.part for one in grants.wider(had, asks)] == expected


def test_less_protection_is_asked(project: Path) -> None:
    yes, no = ({"MOUNT": "rw", "PROTECT": value} for value in ("yes", "no"))
    had = grants.together(grants.asked(settings(project, **yes), project, {}))
    asks = grants.asked(settings(project, **no), project, had)
    assert [str(one) for one in grants.wider(had, asks)] == ["PROTECT=no"]
    had = grants.together(asks)
    assert grants.wider(had, grants.asked(settings(project, **yes), project, had)) == []


@pytest.mark.parametrize(
    ("before", "now", "is_asked"),
    [
        ("", "run", False),
        ("run", "run", False),
        ("run", "run,vars.yml", False),
        ("plays/site.yml", "plays", False),
        ("run,vars.yml", "run", True),
        ("run", "vars.yml", True),
        ("plays", "plays/site.yml", True),
        ("run", "", True),
        ("'\"a, b\"'", "", True),
    ],
)
def test_a_shorter_hide_is_asked(project: Path, before: str, now: str, is_asked: bool) -> None:
    (project / "plays").mkdir()
    (project / "plays/site.yml").write_text("- hosts: all\n")
    (project / "a, b").touch()

    def asks(value: str, had: grants.Granted) -> list[grants.Grant]:
        values = {"MOUNT": "ro"} | ({"HIDE": value} if value else {})
        return grants.asked(settings(project, **values), project, had)

    had = grants.together(asks(before, {}))
    fresh = grants.wider(had, asks(now, had))
    assert [(one.key, one.part) for one in fresh] == ([("HIDE", now)] if is_asked else [])
    assert grants.wider({"MOUNT": ["ro"]}, asks(now, {})) == []


def test_what_was_hidden_is_remembered_where_defaults_env_mounts(
    project: Path, tmp_path: Path
) -> None:
    config = tmp_path / "CONFIG/vagrantp"
    config.mkdir(parents=True)
    (config / "defaults.env").write_text("MOUNT=rw\n")
    assert accept(project, HIDE="run") == []
    assert accept(project) == ["HIDE="]


def test_hide_in_defaults_env_is_about_the_project(project: Path, tmp_path: Path) -> None:
    config = tmp_path / "CONFIG/vagrantp"
    config.mkdir(parents=True)
    (config / "defaults.env").write_text("HIDE=.env\n")
    assert settings(project, MOUNT="ro").hide == (".env",)
    assert settings(project).hide == (".env",)  # idle, and no mistake there


def test_a_part_of_the_lan_is_less_than_the_lan(project: Path) -> None:
    asks = grants.asked(settings(project, LAN_ALLOW="10.0.0.0/8,host:1"), project, {})
    assert [one.part for one in grants.wider({"LAN_ACCESS": ["yes"]}, asks)] == ["host:1"]


def test_nothing_is_said_of_a_type_where_none_was_before(project: Path) -> None:
    assert grants.wider({}, grants.asked(settings(project), project, {})) == []


# What is remembered.

HOST = Host(Context())


def accept(folder: Path, **values: str) -> list[str]:
    """Grant what a `.env` asks for, as `up` does; return the lines of what was asked."""
    lines: list[str] = []

    def is_sure(text: str) -> bool:
        lines.extend(line.split("  ")[1] for line in text.splitlines()[1:])
        return True

    with granted(HOST, folder, settings(folder, **values), is_sure):
        return lines


def test_what_is_granted_is_asked_once(project: Path) -> None:
    assert accept(project, MOUNT="ro", LAN_ACCESS="yes") == ["LAN_ACCESS=yes", "MOUNT=ro"]
    file = grants.path(project)
    assert file.stat().st_mode & 0o777 == 0o600
    assert accept(project, MOUNT="ro", LAN_ACCESS="yes") == []
    assert accept(project, MOUNT="rw", LAN_ACCESS="yes") == ["MOUNT=rw"]
    # what is taken back is asked again
    assert accept(project, LAN_ACCESS="yes") == []
    assert accept(project, MOUNT="ro", LAN_ACCESS="yes") == ["MOUNT=ro"]
    assert accept(project) == []
    assert accept(project, LAN_ACCESS="yes") == ["LAN_ACCESS=yes"]
    assert accept(project, INFRA_TYPE="vm", LAN_ACCESS="yes") == []
    assert accept(project, LAN_ACCESS="yes") == ["INFRA_TYPE=container"]


def test_a_no_grants_nothing(project: Path) -> None:
    asks = settings(project, MOUNT="ro")
    with pytest.raises(StateError) as refused, granted(HOST, project, asks, lambda _: False):
        pytest.fail("it went on")
    assert refused.value.message == (
        ".env asks this host for more than a plain guest has:\n"
        "  MOUNT=ro  the guest reads this folder"
    )
    assert refused.value.hint == "fab up --accept"
    assert not grants.path(project).exists()


def test_a_plain_project_leaves_nothing(project: Path) -> None:
    assert accept(project) == []
    assert not state_root().exists()


@pytest.mark.parametrize(
    "how", ["copied", "moved", "another inode", "linked", "back in its place", "renewed"]
)
def test_it_is_for_this_very_folder(project: Path, how: str) -> None:
    accept(project, MOUNT="ro")
    other = project.with_name("other")
    if how == "copied":
        shutil.copytree(project, other)
    elif how == "moved":
        project.rename(other)
    elif how == "linked":
        other.symlink_to(project)
    else:
        project.rename(other)
        if how == "another inode":
            shutil.copytree(other, project)
        elif how == "renewed":
            put_files(project)
        else:
            other.rename(project)
        other = project
    is_same = how in ("linked", "back in its place")
    assert accept(other, MOUNT="ro") == ([] if is_same else ["MOUNT=ro"])


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "[" * 100_000, '{"granted": {"MOUNT": ["ro"]}}'),
        *("SAME, but 1", "SAME, but {}", 'SAME, but {"MOUNT": "ro"}', "a link", "open"),
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.slow
def test_a_file_that_is_not_ours_grants_nothing(project: Path, text: str) -> None:
    accept(project, MOUNT="ro")
    file = grants.path(project)
    found = json.loads(file.read_text())
    if text == "open":
        file.chmod(0o666)
    elif text == "a link":
        file.rename(project / "theirs")
        file.symlink_to(project / "theirs")
    elif text.startswith("SAME"):
        file.write_text(json.dumps(found | {"granted": json.loads(text.split("but ")[1])}))
    else:
        file.write_text(text)
    assert accept(project, MOUNT="ro") == ["MOUNT=ro"]
    assert accept(project, MOUNT="ro") == []


def test_what_other_guests_write_is_known_by_their_records(project: Path) -> None:
    other = project.parent
    with_rw = settings(project.with_name("elsewhere"), MOUNT="rw")
    made = record.new(with_rw, other)
    made.state_dir.mkdir(parents=True)
    made.machine_json.write_text(record.document(made, with_rw, {}))
    assert grants.shared_folders(project) == [other.resolve()]
    assert accept(project, PROVISION_SCRIPT="run") == [f"PROVISION_SCRIPT={project}/run"]
    assert accept(project, PROVISION_SCRIPT="run") == []


# What is read is what was granted.


def test_nothing_outside_is_looked_into_before(project: Path) -> None:
    other = project.with_name("elsewhere")
    for name in FILES:
        (other / name).write_text("- {\n")
    values = {
        "INFRA_TYPE": "vm",
        "PROVISION_SCRIPT": "../elsewhere/site.yml",
        "PROVISION_VARS": "../elsewhere/vars.yml",
        "CLOUD_INIT": "../elsewhere/user-data",
        "SSH_KEY": "../elsewhere/key.pub",
        "CA_CERTS": "../elsewhere/ca.pem",
    }
    assert settings(project, **values).hostname is None
    (other / "requirements.yml").write_text("- {\n")
    with pytest.raises(ConfigError) as refused:
        accept(project, **values)
    for key in ("PROVISION_SCRIPT", "PROVISION_VARS", "CLOUD_INIT", "SSH_KEY", "CA_CERTS"):
        assert f"{key} must name a file" in refused.value.message
    put_again = {name: (other / name).write_text(text) for name, text in FILES.items()}
    assert put_again
    asks = accept(project, **values)
    assert len(asks) == 6  # one question, though the requirements were read after it
    assert accept(project, **values) == []
    assert settings(project, **values).hostname == "theirs"
    (other / "requirements.yml").write_text("[]\n")
    assert accept(project, **values) == [f"{other}/requirements.yml"]


def test_a_copy_is_read(project: Path) -> None:
    other = project / "../elsewhere"
    values = {
        "INFRA_TYPE": "vm",
        "BOX": "./image.qcow2",
        "PROVISION_SCRIPT": "run,site.yml,../elsewhere/run",
        "PROVISION_VARS": "vars.yml",
        "CLOUD_INIT": "user-data",
        "SSH_KEY": "key.pub",
        "CA_CERTS": "ca.pem",
    }
    (project / "requirements.yml").write_text("[]\n")
    names = {**FILES, "requirements.yml": "[]\n"}
    (project / "site.yml").rename(project / "real.yml")
    (project / "site.yml").symlink_to("real.yml")
    first = settings(project, **values)
    made = record.new(first, project)
    with granted(HOST, project, first, lambda _: True):
        for folder, name in [(project, name) for name in names] + [(other, "run")]:
            path = folder / name
            if name in ("site.yml", "image.qcow2"):
                assert made.source(path) == (project / "real.yml" if name == "site.yml" else path)
                continue
            path.unlink()
            path.symlink_to("/etc/hostname")
            copy = made.source(path)
            assert (copy.read_text(), copy.name) == (names[name], name)
            assert copy.stat().st_mode & 0o777 == 0o600
    assert not made.sources.exists()
    assert made.source(project / "run") == project / "run"


def test_what_is_too_large_is_refused(project: Path) -> None:
    first = settings(project, PROVISION_SCRIPT="run")
    os.truncate(project / "run", 64 * 1024**2 + 1)
    too_large = pytest.raises(ConfigError, match="run must be a file of 64 MB at most")
    with too_large, granted(HOST, project, first, lambda _: True):
        pytest.fail("it was read")
    assert not record.new(first, project).sources.exists()


def test_a_link_that_moves_meanwhile_is_not_followed(project: Path, tmp_path: Path) -> None:
    (project / "sub").mkdir()
    (project / "sub/vars.yml").write_text("a: 1\n")
    first = settings(project, PROVISION_SCRIPT="site.yml", PROVISION_VARS="sub/vars.yml")
    shutil.rmtree(project / "sub")
    (project / "sub").symlink_to(tmp_path / "elsewhere")
    path = project / "sub/vars.yml"
    with pytest.raises(StateError) as asks, granted(HOST, project, first, lambda _: False):
        pytest.fail("it went on")
    assert f"PROVISION_VARS={tmp_path}/elsewhere/vars.yml  {OUTSIDE}" in asks.value.message
    with pytest.raises(StateError, match="leads to another file than a moment ago"):
        keep(HOST, project / "copy", path, path, files.Base(project))
    assert not (project / "copy").exists()


def test_no_part_of_a_path_may_be_a_link(tmp_path: Path) -> None:
    put_files(tmp_path / "real/sub")
    assert documents.text(tmp_path / "real/sub/run", documents.without_links) == FILES["run"]
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/sub/link").symlink_to("run")
    before = len([*Path("/proc/self/fd").iterdir()])
    for path in ("link/sub/run", "real/sub/link", "real/sub/none", "real/sub/run/x"):
        with pytest.raises(documents.Unreadable):
            documents.text(tmp_path / path, documents.without_links)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


# What versions before grants have made.

RECORDS = Path(__file__).parent / "records"


@pytest.fixture
def older(project: Path) -> Path:
    """Return the folder of an instance that c0773ba made: LAN_ACCESS=yes, MOUNT=ro."""
    document = json.loads((RECORDS / "c0773ba-container.json").read_text())
    identity = env.id_from(project)
    state = state_root() / f"web-{identity}"
    state.mkdir(parents=True)
    document |= {"id": identity, "folder": str(project), "instance": state.name}
    (state / "machine.json").write_text(json.dumps(document))
    (state_root() / f"trust/{identity}/files").mkdir(parents=True)
    return project


def test_what_an_older_instance_has_is_granted(older: Path) -> None:
    assert accept(older, LAN_ACCESS="yes", MOUNT="ro") == []
    assert grants.path(older).exists()
    assert not (state_root() / "trust").exists()
    assert accept(older, LAN_ACCESS="yes", MOUNT="rw") == ["MOUNT=rw"]


def test_what_is_wider_than_an_older_instance_has_is_asked(older: Path) -> None:
    asks = accept(older, LAN_ACCESS="yes", MOUNT="rw", AUTOSTART="yes")
    assert asks == ["MOUNT=rw", "AUTOSTART=yes"]
    assert accept(older, LAN_ACCESS="yes", MOUNT="rw", AUTOSTART="yes") == []


@pytest.mark.parametrize("mount", ["ro", "rw"])
def test_a_link_that_an_older_instances_guest_may_have_made_is_asked(
    older: Path, mount: str
) -> None:
    [file] = state_root().glob("web-*/machine.json")
    document = json.loads(file.read_text())
    other = older.with_name("elsewhere")
    document["settings"] |= {
        "mount": mount,
        "provision_script": [{"kind": "playbook", "path": str(older / "site.yml")}],
        "provision_vars": str(older / "vars.yml"),
        "ssh_key": [str(other / "key.pub"), str(older / "key.pub")],
    }
    file.write_text(json.dumps(document))
    (older / "vars.yml").unlink()
    (older / "vars.yml").symlink_to(other / "vars.yml")
    (older / "requirements.yml").write_text("[]\n")
    asks = accept(
        older,
        LAN_ACCESS="yes",
        MOUNT=mount,
        PROVISION_SCRIPT="site.yml",
        PROVISION_VARS="vars.yml",
        SSH_KEY="../elsewhere/key.pub,key.pub",
    )
    by_guest = [f"PROVISION_VARS={other}/vars.yml", f"{older}/requirements.yml"]
    assert asks == (by_guest if mount == "rw" else [])


def test_an_instance_without_grants_says_its_type_only(project: Path) -> None:
    made = record.new(settings(project, INFRA_TYPE="vm"), project)
    made.state_dir.mkdir(parents=True)
    written = settings(project, INFRA_TYPE="vm", MOUNT="rw")
    made.machine_json.write_text(record.document(made, written, {}))
    assert accept(project, MOUNT="rw") == ["INFRA_TYPE=container", "MOUNT=rw"]
