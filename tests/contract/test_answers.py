"""Providers whose answers cannot be read: a message and an exit code, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, VM, MakeProject

ANSWERS = ["", "null", "{"]


def answering(tmp_path: Path, tool: str, script: str) -> str:
    """Return a PATH on which a program of that name is a shell script."""
    folder = tmp_path / "answering"
    folder.mkdir(exist_ok=True)
    (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
    (folder / tool).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("tool", ["virsh", "podman"])
def test_an_answer_that_cannot_be_read(
    project: MakeProject, tmp_path: Path, tool: str, answer: str
) -> None:
    app = project().write(VM if tool == "virsh" else CONTAINER)
    path = answering(tmp_path, tool, f"echo '{answer}'")
    done = app.fab("up", PATH=path)
    assert "a bug in vagrantp" not in done.stderr
    assert done.returncode in (4, 5), done.stderr


def test_a_domain_of_our_name_without_metadata(project: MakeProject, tmp_path: Path) -> None:
    """As libvirt 11 answers: with nothing, and exit status 0."""
    app = project().write(VM)
    running = "case $* in *domstate*) echo running;; *vol-list*|*metadata*) ;; *) exit 1;; esac"
    done = app.fab("up", PATH=answering(tmp_path, "virsh", f"{running}; exit 0"))
    assert "exists and is not this project's: vagrantp did not make it" in done.stderr
