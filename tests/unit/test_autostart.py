"""What vagrantp-autostart starts: containers that a state folder knows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from vagrantp.core.places import MASTER

PODMAN = """\
#!/bin/sh
case $* in
    "start "*) echo "$*" >> "$0.started" ;;
    "ps "*) printf '%s\\n' "$@" | sed -n 's/^id=//p' | grep -xF -f "$0.labelled" ;;
esac
"""
KNOWN, UNLABELLED, FOREIGN = "a" * 64, "b" * 64, "c" * 64


def test_it_starts_what_a_state_folder_knows(tmp_path: Path) -> None:
    [line] = re.findall(r"ExecStart=(.*autostart.*)", (MASTER / "playbooks/host.yml").read_text())
    argv = shlex.split(line.replace("$$", "$").replace("%h", str(tmp_path)))  # systemd.service(5)
    podman = tmp_path / "bin/podman"
    podman.parent.mkdir()
    podman.write_text(PODMAN)
    podman.chmod(0o755)
    (tmp_path / "bin/podman.labelled").write_text(f"{KNOWN}\n{FOREIGN}\n")
    env = {"PATH": f"{podman.parent}:{os.environ['PATH']}"}
    subprocess.run(argv, env=env, check=True)  # no state folder at all
    for name, content in (
        ("one-01234567", f"{KNOWN}\n"),
        ("two-01234567", f"{UNLABELLED}\n"),
        ("odd-01234567", "\n"),
        ("all-01234567", ".*\n"),
    ):
        folder = tmp_path / ".local/state/vagrantp" / name
        folder.mkdir(parents=True)
        (folder / "container").write_text(content)
    (tmp_path / ".local/state/vagrantp/none-01234567").mkdir()
    subprocess.run(argv, env=env, check=True)
    started = tmp_path / "bin/podman.started"
    assert started.read_text() == f"start {KNOWN}\n"
    other = {**env, "XDG_STATE_HOME": str(tmp_path / "elsewhere")}
    subprocess.run(argv, env=other, check=True)
    assert started.read_text() == f"start {KNOWN}\n"
