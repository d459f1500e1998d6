"""PORTS: what the carrier gets to know, and why a port does not answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.instance.found import Found
from vagrantp.net import ports
from vagrantp.verbs.steps import peek, start

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


SOCKETS = """\
tcp:  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
tcp:   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
tcp:   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
tcp:   2: 0500C90A:A000 08080808:01BB 01 00000000:00000000 00:00000000 00000000     0
tcp6:   0: 00000000000000000000000001000000:1388 00000000000000000000000000000000:0000 0A 0
tcp6:   1: 0000000000000000FFFF00000100007F:1389 00000000000000000000000000000000:0000 0A 0
tcp6:   2: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0
udp:  10: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   990
udp6:  11: 00000000000000000000000000000000:1F40 00000000000000000000000000000000:0000 07 0
"""


def test_what_listens_in_a_guest() -> None:
    assert ports.listeners(SOCKETS) == {
        ("tcp", 3000): False,  # on the loopback, and everywhere by IPv6
        ("tcp", 22): False,
        ("tcp", 5000): True,
        ("tcp", 5001): True,
        ("udp", 53): True,
        ("udp", 8000): False,
    }


@pytest.mark.parametrize(
    ("protocol", "port", "is_inside", "expected"),
    [
        ("tcp", 22, False, ""),
        ("tcp", 5000, False, ""),
        ("tcp", 80, False, "nothing listens on port 80 in the guest"),
        ("tcp", 53, False, "nothing listens on port 53 in the guest"),
        ("udp", 22, False, "nothing listens on port 22/udp in the guest"),
        ("udp", 8000, False, ""),
        (
            "udp",
            53,
            False,
            "port 53/udp is on the guest's loopback only, where only tcp is carried",
        ),
        ("udp", 53, True, ""),
    ],
)
def test_why_a_port_does_not_answer(
    protocol: str, port: int, is_inside: bool, expected: str
) -> None:
    sockets = ports.listeners(SOCKETS)
    forward = {"protocol": protocol, "guest": port}
    assert ports._why_silent(forward, sockets, is_inside) == expected


def test_status_asks_no_guest_whose_folder_others_may_write() -> None:
    app = made("c0773ba-vm")
    ssh = app.state_dir / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {app.state_dir}/asked\n")
    ssh.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{app.state_dir}:{os.environ['PATH']}")
        app.state_dir.chmod(0o777)
        assert peek.why_silent(HOST, app, "1") == ["", ""]
        assert not (app.state_dir / "asked").exists()
        app.state_dir.chmod(0o700)
        assert peek.why_silent(HOST, app, "1") == ["", ""]
        assert (app.state_dir / "asked").exists()


def test_nor_for_its_sessions() -> None:
    app = made("c0773ba-container")
    for program, does in (("podman", "echo running 1"), ("ssh", f"touch {app.state_dir}/asked")):
        (app.state_dir / program).write_text(f"#!/bin/sh\n{does}\n")
        (app.state_dir / program).chmod(0o755)
    found = Found(app, "running", os.getuid(), live="running")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{app.state_dir}:{os.environ['PATH']}")
        for mode, is_asked in ((0o777, False), (0o700, True)):
            app.state_dir.chmod(mode)
            assert peek.lost_with(HOST, found) == [peek.UNSEEN]
            assert (app.state_dir / "asked").exists() is is_asked
