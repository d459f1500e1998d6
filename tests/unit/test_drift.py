"""What became of a changed `.env`: every key has an answer, and the docs say which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.instance import record
from vagrantp.instance.drift import Change, drift
from vagrantp.settings import env, saved
from vagrantp.settings.keys import KEYS

from tests.certificates import ONE
from tests.conftest import CONTAINER, MASTER, VM, env_text
from tests.unit import samples

Values = dict[str, object]
Tell = Callable[[Values, Values], list[Change]]
ANSWERS = {"at once", "at the next start", "to a new instance"}


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Return what tells the changes between an instance as it was made, and a new `.env`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    samples.make_secrets(tmp_path / "config")
    app = tmp_path / "app"
    app.mkdir()
    for name in ("one", "two"):
        (app / f"{name}.yml").write_text("#cloud-config\n")
        (app / f"{name}.pem").write_text(ONE)
        (app / f"{name}.pub").write_text("ssh-ed25519 AAAAC3\n")

    def tell(old: Values, new: Values) -> list[Change]:
        (app / ".env").write_text(env_text(old))
        settings = env.load(app)
        made = record.new(settings, app)
        made.state_dir.mkdir(parents=True, exist_ok=True)
        made.machine_json.write_text(record.document(made, settings, {}))
        (app / ".env").write_text(env_text(new))
        return drift(made, env.load(app))

    return tell


def documented(kind: str) -> dict[str, str]:
    """Return what docs/changes.md says of each key; of DISK, when it is larger."""
    text = (MASTER / "docs/changes.md").read_text()
    rows = re.findall(r"^\| (`.*|every other) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    column = 1 if kind == "vm" else 2
    said = {key: row[column] for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    other = next(row[column] for row in rows if row[0] == "every other")
    return {key: said.get(key, other).removeprefix("larger: ").partition(";")[0] for key in KEYS}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        pytest.param(values, key.name, id=f"{key.name}-{values['INFRA_TYPE']}")
        for values in (VM, CONTAINER)
        for key in KEYS.values()
        if key.infra_type in (None, values["INFRA_TYPE"])
    ],
)
def test_no_changed_key_is_silently_ignored(changed: Tell, values: Values, key: str) -> None:
    kind = str(values["INFRA_TYPE"])
    beside, old, new = samples.CHANGES[key]
    if key == "INFRA_TYPE" and kind == "container":
        old, new = new, old
    try:
        told = changed({**values, **beside, key: old}, {**values, **beside, key: new})
    except ConfigError as error:  # known, and not to be had so far
        assert "is not supported yet" in str(error)
        assert not KEYS[key].is_built(KEYS[key].parse(str(new)))
        return
    [change] = [change for change in told if change.key == key]
    # in full: a path from /, a port with its address
    assert (change.old.endswith(str(old)), change.new.endswith(str(new))) == (True, True)
    assert change.applies in ANSWERS
    assert change.applies == documented(kind)[key]


def test_a_disk_never_shrinks(changed: Tell) -> None:
    [change] = changed({**VM, "DISK": 8}, {**VM, "DISK": 5})
    assert (str(change), change.applies) == ("DISK: 8 → 5", "to a new instance")
    [change] = changed({**CONTAINER, "DISK": 8}, {**CONTAINER, "DISK": 5})
    assert change.applies == "at once"  # a quota takes nothing away


def test_what_is_not_changed_is_not_told(changed: Tell) -> None:
    of_vm = {key for key in KEYS if KEYS[key].infra_type in (None, "vm")}
    everything = {key: old for key, (_, old, _) in samples.CHANGES.items() if key in of_vm}
    same: Values = {
        **VM,
        **everything,
        **samples.FROM_URL,
        "INFRA_TYPE": "vm",
        "FIXED_IP": "192.0.2.9/24",
    }
    same |= {"NETWORK_TYPE": "bridge", "MOUNT": "rw"}
    assert changed(same, same) == []


def test_protect_is_nothing_without_mount_rw(changed: Tell) -> None:
    yes, no = ({**VM, "MOUNT": "ro", "PROTECT": value} for value in ("yes", "no"))
    assert changed(yes, no) == []


def test_an_instance_from_before_protect_is_protected_at_its_next_start(
    changed: Tell, tmp_path: Path
) -> None:
    values = {**VM, "MOUNT": "rw"}
    assert changed(values, values) == []
    settings = env.load(tmp_path / "app")
    made = record.new(settings, tmp_path / "app")
    document = json.loads(made.machine_json.read_text())
    del document["settings"]["protect"]
    made.machine_json.write_text(json.dumps(document))
    [change] = drift(made, settings)
    assert (str(change), change.applies) == ("PROTECT: no → yes", "at the next start")
    assert saved.kept(made.settings, settings).protect
