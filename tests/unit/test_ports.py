"""PORTS: what the carrier gets to know, and why a port does not answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.verbs.steps import start

from tests.unit.test_record import made

HOST = Host(Context())


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_the_carrier_follows_the_address() -> None:
    app = made("c0773ba-vm")
    app.ssh_config.write_text("Host app\n  HostName 10.201.0.57\n")
    start._write_address(HOST, app, "10.201.0.99")
    assert app.ssh_config.read_text() == "Host app\n  HostName 10.201.0.99\n"
    spec = json.loads(app.forwards.read_text())
    assert spec["target"] == app.machine()["provider"]["address"] == "10.201.0.99"
    assert spec["forwards"] == app.machine()["provider"]["forwards"]
