"""The program that keeps a VM's clock right."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from time import monotonic, sleep, time

import pytest
from vagrantp.guest import clock

PROGRAM = clock.FILES / clock.PROGRAM
# What it calls notes its last argument, and changes nothing.
NOTE = '#!/bin/sh\nfor last; do :; done\necho "${0##*/} $last" >> "$NOTES"\n'


def stand_ins(folder: Path) -> dict[str, str]:
    """Return an environment in which it cannot set a clock."""
    notes = folder / "notes"
    notes.write_text("")
    for name in ("date", "python3"):
        (folder / name).write_text(NOTE)
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(notes)}


def calls(folder: Path, ahead: int) -> list[str]:
    """Return what it calls at a hardware clock that is ahead of this host's by so many seconds."""
    notes, hardware = folder / "notes", folder / "hardware"
    environment = stand_ins(folder)
    hardware.write_text(f"{int(time()) + ahead}\n")
    traced = ["bash", "-x", str(PROGRAM), str(hardware)]
    with subprocess.Popen(traced, env=environment, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        for line in program.stderr:
            if line.startswith("+ read -rt 5"):
                break
        program.kill()
    return notes.read_text().splitlines()


def test_behind_it_goes_forward_at_once(tmp_path: Path) -> None:
    (call,) = calls(tmp_path, 60)
    name, _, when = call.partition(" --set=@")
    assert (name, int(when)) == ("date", int((tmp_path / "hardware").read_text()))


@pytest.mark.parametrize("ahead", [-60, -100_000])
def test_ahead_it_is_slowed_down(tmp_path: Path, ahead: int) -> None:
    (call,) = calls(tmp_path, ahead)
    name, _, seconds = call.partition(" ")
    assert name == "python3" and ahead - 5 <= int(seconds) <= ahead


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_is_less_than_the_hardware_clock_shows_is_left(tmp_path: Path, ahead: int) -> None:
    # on a busy host it may look a second late
    assert any(calls(tmp_path, ahead) == [] for _ in range(5))


def test_it_waits_without_a_process(tmp_path: Path) -> None:
    hardware = tmp_path / "hardware"
    hardware.write_text(f"{int(time())}\n")
    argv = ["bash", str(PROGRAM), str(hardware)]
    with subprocess.Popen(argv, env=stand_ins(tmp_path)) as program:
        end = monotonic() + 20
        while not is_alone_and_sleeps(program.pid):
            assert monotonic() < end
            sleep(0.05)
        program.kill()


def is_alone_and_sleeps(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return state(str(pid)) == "S" and {state(child) for child in children} <= {"Z"}


def state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_ends_where_there_is_no_hardware_clock(tmp_path: Path) -> None:
    done = subprocess.run(["bash", PROGRAM, tmp_path / "none"], capture_output=True, timeout=20)
    assert done.returncode == 1


def test_the_script_for_other_peoples_images_is_whole() -> None:
    assert subprocess.run(["sh", "-n"], input=clock.script().encode()).returncode == 0
    assert "printf %s '#!/bin/bash" in clock.script()
