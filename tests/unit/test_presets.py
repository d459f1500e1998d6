"""Images that have what our own playbooks install: of which steps, for whom, and for how long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest import logins, provision
from vagrantp.images import builders, filled
from vagrantp.providers.podman import presets
from vagrantp.settings import env
from vagrantp.settings.env import Settings

from tests.certificates import ONE
from tests.unit.samples import SOUND

DAY = 24 * 60 * 60


def of(folder: Path, text: str) -> Settings:
    """Return the settings of a project in a folder."""
    (folder / "site.yml").write_text("- hosts: all\n")
    (folder / "vars.yml").write_text("agent_user: me\n")
    (folder / "set up").write_text("#!/bin/sh\n")
    (folder / "set up").chmod(0o755)
    (folder / ".env").write_text(SOUND + text)
    return env.load(folder)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ""),
        ("AGENT=claude", "agent,claude"),
        ("AGENT=codex,claude\nPROVISION_SCRIPT=agent", "agent,codex,claude"),
        ("PROVISION_SCRIPT=base,agent,site.yml", "base,agent"),
        ("AGENT=claude\nPROVISION_SCRIPT=base", "agent,base,claude"),
        ("PROVISION_SCRIPT=site.yml,agent", ""),
        ("PROVISION_SCRIPT=base,set up,agent\nAGENT=claude", "base"),
        ("AGENT=claude\nPROVISION_VARS=vars.yml\nPROVISION_SCRIPT=site.yml", ""),
    ],
)
def test_what_an_image_has(tmp_path: Path, text: str, name: str) -> None:
    assert provision.preset_name(of(tmp_path, text)) == name


def test_whose_image_it_is(tmp_path: Path) -> None:
    plain = of(tmp_path, "AGENT=claude")

    def key(text: str, base: str = "base", trusted: tuple[str, ...] = ()) -> str:
        return presets._key(of(tmp_path, text), base, [*trusted])

    same = presets._key(plain, "base", [])
    assert key("AGENT=claude\nPORTS=auto:80\nNAME=other\nPROVISION_SCRIPT=agent,site.yml") == same
    others = {
        key("AGENT=claude", trusted=(ONE,)),
        key("AGENT=claude", base="renewed"),
        key("AGENT=claude\nSSH_USER=av"),
        key("AGENT=claude,codex"),
        key("PROVISION_SCRIPT=agent"),
    }
    assert len(others | {same}) == 6


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a podman on PATH that has images in a file, and notes what it removes."""
    script = tmp_path / "podman"
    script.write_text(
        f"#!/bin/sh\ncd '{tmp_path}'\n"
        'case "$1 $2" in\n'
        '"images --filter"*) cat images ;;\n'
        '"images --format") echo localhost/base:latest ;;\n'
        '"ps --all") echo used ;;\n'
        '"image inspect") echo id1 ;;\n'
        '"image rm") echo "$3" >> removed ;;\n'
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    yield tmp_path


def image(number: int, days: float, base: str = "localhost/base:latest", id: str = "") -> object:
    name = f"localhost/vagrantp-x-with-agent-{number:010x}:latest"
    labels = {filled.KEY: "key", filled.BASE: base, filled.NAME: name}
    created = int(time() - days * DAY)
    return {"Id": id or f"id{number}", "Names": [name], "Created": created, "Labels": labels}


def test_how_long_one_is_used(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(podman / "data"))
    host = Host(Context())
    (podman / "images").write_text(json.dumps([image(1, 0)]))
    name = "localhost/vagrantp-x-with-agent-0000000001:latest"
    assert filled.find(host, "key") == ""  # anybody can write labels
    filled.keep(host, "key", name)
    assert filled.find(host, "key") == name
    assert filled.find(host, "another") == ""
    record = podman / "data/vagrantp/filled/key"
    for days, found in ((6.9, name), (7.1, ""), (-1, "")):
        record.write_text(json.dumps({"id": "id1", "made": time() - days * DAY}))
        assert filled.find(host, "key") == found
    (podman / "images").write_text(json.dumps([image(2, 0)]))
    filled.remove_stale(host)
    assert not record.exists()


@pytest.mark.parametrize(
    ("name", "found", "kept"),
    [
        ("claude", {"claudeAiOauth": {"accessToken": "x"}, "more": 1}, {"claudeAiOauth"}),
        ("codex", {"tokens": {}, "mcp": {"type": "api"}}, {"tokens"}),
        (
            "opencode",
            {"https://x": {"type": "wellknown", "key": "PATH"}, "a": {"type": "api"}, "b": 1},
            {"a"},
        ),
        ("claude", ["claudeAiOauth"], set()),
    ],
)
def test_a_copied_login_has_nothing_else(name: str, found: object, kept: set[str]) -> None:
    assert {*logins.entries(name, found)} == kept


def test_which_of_them_go(podman: Path) -> None:
    gone = "localhost/gone:latest"
    listed = [image(1, 9), image(2, 9, id="used"), image(3, 7.5), image(4, 1), image(5, 1, gone)]
    # what somebody made of one has its labels
    anothers = {**dict(image(6, 9)), "Names": ["localhost/mine:latest"]}  # type: ignore[call-overload]
    (podman / "images").write_text(json.dumps([*listed, anothers]))
    filled.remove_stale(Host(Context()))
    removed = (podman / "removed").read_text().split()
    assert [name[-18:-7] for name in removed] == ["-0000000005", "-0000000001"]


def test_what_a_killed_build_left(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(podman / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(podman / "cache"))
    root = podman / "state/vagrantp"
    for name, file in (("00000001", "builder"), ("00000002", "machine.json"), ("00000003", "")):
        (root / f"vagrantp-build-{name}").mkdir(mode=0o700, parents=True)
        if file:
            (root / f"vagrantp-build-{name}" / file).write_text("")
    root.chmod(0o700)
    host = Host(Context())
    with builders.lock(host, "0" * 7 + "1", "it"):
        builders.sweep(host)  # one is at work
    assert sorted(path.name[-1] for path in root.glob("v*")) == ["1", "2"]
    builders.sweep(host)
    assert sorted(path.name[-1] for path in root.glob("v*")) == ["2"]  # an instance
