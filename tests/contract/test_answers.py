"""Providers whose answers cannot be read: a message and an exit code, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, VM, MakeProject

pytestmark = pytest.mark.slow

ANSWERS = {
    "nothing": "echo",
    "null": "echo null",
    "half": "echo {",
    "a flood": "yes | head -c 100000000",
    "a flood of errors": "yes >&2",
    "one long line": "head -c 100000000 /dev/zero | tr '\\0' x",
    "lines": "seq 1000000; exit 1",
    "nested": "head -c 1000000 /dev/zero | tr '\\0' [",
    "a huge number": "printf '['; head -c 5000 /dev/zero | tr '\\0' 9; echo ]",
    "no number": "echo '[NaN]'",
    "controls": r"printf '\033]52;c;aGk=\007\033[2J\302\233\n' | tee /dev/stderr; exit 1",
    "the other direction": r"printf '\342\200\256\342\201\246evil\n' | tee /dev/stderr; exit 1",
    "no UTF-8": r"printf '\377\0\355\260\200\n' | tee /dev/stderr; exit 1",
}


def answering(tmp_path: Path, tool: str, script: str) -> str:
    """Return a PATH on which a program of that name is a shell script."""
    folder = tmp_path / "answering"
    folder.mkdir(exist_ok=True)
    (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
    (folder / tool).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("tool", ["virsh", "podman"])
def test_an_answer_that_cannot_be_read(
    project: MakeProject, tmp_path: Path, tool: str, answer: str
) -> None:
    app = project().write(VM if tool == "virsh" else CONTAINER)
    path = answering(tmp_path, tool, answer)
    done = app.fab("up", PATH=path)
    assert "a bug in vagrantp" not in done.stderr
    assert done.returncode in (4, 5), done.stderr
    assert done.stderr.replace("\n", "").isprintable() and len(done.stderr) < 10_000


def test_a_domain_of_our_name_without_metadata(project: MakeProject, tmp_path: Path) -> None:
    """As libvirt 11 answers: with nothing, and exit status 0."""
    app = project().write(VM)
    running = "case $* in *domstate*) echo running;; *vol-list*|*metadata*) ;; *) exit 1;; esac"
    done = app.fab("up", PATH=answering(tmp_path, "virsh", f"{running}; exit 0"))
    assert "exists and is not this project's: vagrantp did not make it" in done.stderr
