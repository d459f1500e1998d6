"""PROVISION_SCRIPT: what a guest is asked for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest import provision
from vagrantp.instance.record import Instance
from vagrantp.settings import env

from tests.unit.samples import SOUND


def test_a_guest_is_asked_no_more_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "bin/ssh": f'for command; do :; done\necho >> {tmp_path}/calls\neval "$command"\n',
        "bin/sudo": "exit 0\n",
        "one": "exit 1\n",
        "two": "exit 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    instance = Instance("app", "0123abcd", tmp_path, "container")
    instance.state_dir.mkdir(parents=True)
    (tmp_path / ".env").write_text(SOUND + "PROVISION_SCRIPT=./one,./two\n")
    settings, host = env.load(tmp_path), Host(Context())
    assert provision.run(host, instance, settings, "1", False, lambda: None) == "one, two"
    # for its home, that it is not done, the two, and that it is
    assert (tmp_path / "calls").read_text().count("\n") == 5
