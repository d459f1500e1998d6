"""Vagrant loads itself while `up` looks at the host, and does nothing before it is released."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.process import marked
from vagrantp.core.system import Host
from vagrantp.images import store
from vagrantp.instance.record import Instance
from vagrantp.instance.vagrant import mark
from vagrantp.providers import vagrant

VAGRANT = """\
#!/bin/sh
[ "$VAGRANTP_WAITS" ] && echo loaded >>said
[ -z "$VAGRANTP_WAITS" ] || [ "$(cat)" = go ] || exit 1
echo "$@" >>said
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    for name in ("DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    program = tmp_path / "bin/vagrant"
    program.parent.mkdir()
    program.write_text(VAGRANT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    found = Instance("app", "0123abcd", tmp_path, "container")
    found.state_dir.parent.mkdir(parents=True)
    index = store.vagrant_home() / "data/machine-index/index"
    index.parent.mkdir(parents=True)
    index.touch()
    return found


def said(instance: Instance, wanted: str) -> bool:
    """Wait until Vagrant has said something."""
    path, until = instance.folder / "said", time.monotonic() + 10
    while not path.exists() or path.read_text() != wanted:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_it_goes_on_when_it_is_released(instance: Instance) -> None:
    with vagrant.loading(Host(Context()), instance, "up", "--now") as run:
        assert said(instance, "loaded\n")
        run()
    assert said(instance, "loaded\nup --now\n")


def test_it_ends_where_nothing_releases_it(instance: Instance) -> None:
    with pytest.raises(KeyError), vagrant.loading(Host(Context()), instance, "up"):
        assert said(instance, "loaded\n")
        raise KeyError
    assert (instance.folder / "said").read_text() == "loaded\n"
    assert marked(mark(instance)) == []


@pytest.mark.parametrize("what", ["a killed up's parts", "no home yet"])
def test_it_does_not_load_ahead(instance: Instance, what: str) -> None:
    if what == "no home yet":
        (store.vagrant_home() / "data/machine-index/index").unlink()
    else:
        instance.state_dir.mkdir()
    with vagrant.loading(Host(Context()), instance, "up") as run:
        time.sleep(0.1)
        assert not (instance.folder / "said").exists()
        instance.state_dir.mkdir(exist_ok=True)
        run()
    assert said(instance, "up\n")
