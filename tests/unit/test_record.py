"""machine.json: what older versions wrote counts, and what a newer one wrote is left alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from vagrantp.core.errors import StateError
from vagrantp.instance import guard, record
from vagrantp.instance.drift import drift
from vagrantp.net import isolation
from vagrantp.settings import env, keys, saved
from vagrantp.settings.forwards import PortForward
from vagrantp.settings.keys import KEYS
from vagrantp.verbs import status
from vagrantp_guard.contract import LanRule

from tests.conftest import MASTER

# Written by the code of the commit that they are named after.
RECORDS = {path.stem: path for path in (Path(__file__).parent / "records").glob("*.json")}
ENVS = {
    "c0773ba-vm": "INFRA_TYPE=vm\nMEMORY=2048\nCPUS=2\nDISK=20\nNAME=app\n"
    "PORTS=8080:80,auto:3000\nLAN_ALLOW=host:11434,10.0.0.0/8:53/udp\nFIXED_IP=10.201.0.57\n",
    "c0773ba-container": "INFRA_TYPE=container\nMEMORY=512\nCPUS=1\nDISK=10\nNAME=web\n"
    "LAN_ACCESS=yes\nMOUNT=ro\n",
}


@pytest.fixture(autouse=True)
def _homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    yield
    saved._absent.cache_clear()


def made(name: str, **changes: object) -> record.Instance:
    """Put a frozen record where its instance would have it. `changes`: of the document."""
    document: dict[str, Any] = json.loads(RECORDS[name].read_text()) | changes
    infra_type = document["settings"]["infra_type"]
    found = record.Instance(document["name"], document["id"], Path(document["folder"]), infra_type)
    found.state_dir.mkdir(parents=True)
    found.machine_json.write_text(json.dumps(document))
    return found


def wanted(tmp_path: Path, text: str) -> env.Settings:
    """Return the settings of a `.env`."""
    app = tmp_path / "app"
    app.mkdir(exist_ok=True)
    (app / ".env").write_text(text)
    return env.load(app, pytest.fail)


def without(name: str, *fields: str) -> record.Instance:
    """Return the instance of a record that lacks some settings."""
    settings = json.loads(RECORDS[name].read_text())["settings"]
    return made(name, settings={key: settings[key] for key in settings.keys() - {*fields}})


def have_key(patch: pytest.MonkeyPatch, name: str, **changes: str) -> None:
    """Be a version in which a key has another record."""
    patch.setitem(keys.KEYS, name, replace(KEYS[name], **changes))  # type: ignore[arg-type]
    saved._absent.cache_clear()


def test_an_older_record_is_typed() -> None:
    found = made("c0773ba-vm").settings
    assert found
    assert found.fixed_ip == IPv4Address("10.201.0.57")
    assert found.ports == (
        PortForward(IPv4Address("127.0.0.1"), 8080, 80, "tcp"),
        PortForward(IPv4Address("127.0.0.1"), None, 3000, "tcp"),
    )
    assert found.lan_allow == (
        LanRule(None, 11434, "tcp"),
        LanRule(IPv4Network("10.0.0.0/8"), 53, "udp"),
    )
    assert {"memory", "ports", "name"} <= {*found.written}
    assert not {"accel", "image", "lan_access", "ssh_user"} & {*found.written}


@pytest.mark.parametrize("name", RECORDS)
def test_an_older_instance_has_not_changed(tmp_path: Path, name: str) -> None:
    assert drift(made(name), wanted(tmp_path, ENVS[name])) == []


@pytest.mark.parametrize("name", RECORDS)
def test_any_key_may_be_younger_than_the_record(tmp_path: Path, name: str) -> None:
    for number, key in enumerate(key for key in KEYS.values() if not key.is_required):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(folder / "state"))
            instance = without(name, key.field)
            lines = ENVS[name].splitlines()
            text = "\n".join(line for line in lines if not line.startswith(f"{key.name}="))
            if key.name != "NAME":  # all have that
                assert drift(instance, wanted(folder, text)) == [], key.name


def test_what_a_version_without_the_key_did_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_key(monkeypatch, "LAN_ACCESS", before="yes")
    instance = without("c0773ba-container", "lan_access")
    found, now = instance.settings, wanted(tmp_path, ENVS["c0773ba-container"].replace("yes", "no"))
    assert found
    assert isolation.text(guard.policy(found)) == "LAN open"
    [change] = drift(instance, now)
    assert (str(change), change.applies) == ("LAN_ACCESS: yes → no", "at once")
    text = ENVS["c0773ba-container"].replace("LAN_ACCESS=yes\n", "")
    assert saved.kept(found, wanted(tmp_path, text)).lan_access  # what verify promises


def test_a_new_default_changes_no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have_key(monkeypatch, "ACCEL", default="tcg", before="auto")
    instance = made("c0773ba-vm")
    assert wanted(tmp_path, ENVS["c0773ba-vm"]).accel == "tcg"
    assert drift(instance, wanted(tmp_path, ENVS["c0773ba-vm"])) == []
    had = instance.settings
    assert had
    image = {"key": "BOX", "value": "debian-12", "default": "debian-13"}
    told = [image, {"key": "ACCEL", "value": "auto", "default": "tcg"}]
    assert status.kept(had, wanted(tmp_path, ENVS["c0773ba-vm"])) == told
    assert status.kept(had, wanted(tmp_path, ENVS["c0773ba-vm"] + "ACCEL=tcg\n")) == [image]
    [change] = drift(instance, wanted(tmp_path, ENVS["c0773ba-vm"] + "ACCEL=kvm\n"))
    assert str(change) == "ACCEL: auto → kvm"


@pytest.mark.parametrize("name", RECORDS)
def test_an_instance_keeps_the_image_that_was_the_default(tmp_path: Path, name: str) -> None:
    instance, key = made(name), "BOX" if name.endswith("vm") else "IMAGE"
    had, now = instance.settings, wanted(tmp_path, ENVS[name])
    assert had
    assert (had.image, now.image, drift(instance, now)) == ("debian-12", "debian-13", [])
    assert status.kept(had, now) == [{"key": key, "value": "debian-12", "default": "debian-13"}]
    assert "image" not in had.written
    [change] = drift(instance, wanted(tmp_path, f"{ENVS[name]}{key}=debian-13\n"))
    assert (str(change), change.applies) == (
        f"{key}: debian-12 → debian-13",
        "to a new instance",
    )


@pytest.mark.parametrize(
    ("image", "provider", "kind"),
    [
        ("debian-12", {}, "built here"),
        ("debian-13", {}, "built here"),
        ("debian-13", {"grows": False}, "cloud image"),
        ("generic/debian12", {"key": None}, "Vagrant box"),
    ],
)
def test_a_cloud_image_called_debian_13_is_told_from_the_one_that_is_built(
    tmp_path: Path, image: str, provider: dict[str, object], kind: str
) -> None:
    """BOX=debian-13 was Debian's own cloud image once."""
    document = json.loads(RECORDS["c0773ba-vm"].read_text())
    has = {k: v for k, v in (document["provider"] | provider).items() if v is not None}
    instance = made("c0773ba-vm", settings=document["settings"] | {"image": image}, provider=has)
    assert instance.settings
    shown = status._image(instance, instance.settings)
    assert shown == {"image": image, "image_kind": kind}
    if image != "debian-12":
        text = f"{ENVS['c0773ba-vm']}BOX={image}\n"
        assert drift(instance, wanted(tmp_path, text)) == []


def test_what_was_written_and_is_taken_out_is_a_change(tmp_path: Path) -> None:
    instance = made("c0773ba-vm")
    text = ENVS["c0773ba-vm"].replace("PORTS=8080:80,auto:3000\n", "")
    [change] = drift(instance, wanted(tmp_path, text))
    assert str(change) == "PORTS: 127.0.0.1:8080:80,auto:3000 → nothing"


def test_what_is_written_later_and_taken_out_again_is_a_change(tmp_path: Path) -> None:
    instance = made("c0773ba-container")
    plain = wanted(tmp_path, ENVS["c0773ba-container"])
    with_ports = wanted(tmp_path, ENVS["c0773ba-container"] + "PORTS=8080:80\n")
    document = record.amended(instance, with_ports, ["ports"])
    assert document["version"] == record.VERSION
    instance.machine_json.write_text(record.as_text(document))
    assert drift(instance, with_ports) == []
    [change] = drift(instance, plain)
    assert str(change) == "PORTS: 127.0.0.1:8080:80 → nothing"


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": []},
        {"settings": {"infra_type": "vm"}},
        {"settings": {"infra_type": "lxc", "memory": 1, "cpus": 1, "disk": 1}},
        {"settings": {"infra_type": "vm", "memory": "1", "cpus": 1, "disk": 1}},
        {"settings": {"infra_type": "vm", "memory": 1, "cpus": 1, "disk": 1, "ports": [{"a": 1}]}},
        {"settings": {"infra_type": "vm", "memory": 1, "cpus": 1, "disk": 1, "fixed_ip": "x"}},
    ],
)
def test_what_is_no_record(changes: dict[str, Any]) -> None:
    assert made("c0773ba-vm", **changes).machine() == {}


def test_a_newer_record_is_refused_and_both_versions_are_named() -> None:
    instance = made("c0773ba-vm", version=99, settings={"infra_type": "vm", "unheard": {}})
    assert instance.settings is None
    assert record.by_id("0a1b2c3d") == instance  # where it is, and what, is known all the same
    with pytest.raises(StateError) as caught:
        instance.refuse_newer()
    assert str(caught.value) == (
        "app-0a1b2c3d: a newer vagrantp made it (machine.json version 99, this one reads 2)\n"
        "  hint: use the checkout that made it"
    )


def test_the_vagrantfile_finds_what_it_reads() -> None:
    """That it works for real is in tests/e2e."""
    vm, container = (made(name).machine()["provider"] for name in sorted(RECORDS, reverse=True))
    lines = (MASTER / "Vagrantfile").read_text().splitlines()
    read = {line: re.findall(r'provider(?:"\))?\.fetch\("(\w+)"\)', line) for line in lines}
    for line, names in read.items():
        of_container = "docker." in line
        if "config.vm.hostname" not in line:  # of a box made for Vagrant
            assert {*names} <= (container if of_container else vm).keys(), line
    assert sum(map(len, read.values())) > 20
