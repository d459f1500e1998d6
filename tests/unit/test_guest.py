"""What a guest says: only what was asked counts. Real shells; this host stands for the guest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.guest import session

QUIET = 'eval "$0"'
AWK = r"printf '\033[2J%05000d' 1"


def ask(shell: str) -> tuple[dict[str, str], str]:
    """Ask for facts by a stand-in for ssh, whose login shell runs `shell`: the command is $0."""
    return session.ask(Host(Context()), ["bash", "-c", shell])


@pytest.mark.parametrize(
    "shell",
    [
        f"echo hello; {QUIET}",
        f"echo hostname other; printf 'cpus 99\nno end'; {QUIET}; echo memory_kib 1",
        f"(while :; do echo cpus 99; done) & {QUIET}; kill $!",
        f"trap 'printf \"\\nuser 0 0\\n0\"' EXIT; {QUIET}; exit 5",
        f"set -eux; {QUIET}",
    ],
)
def test_nothing_that_a_shell_file_prints_is_an_answer(shell: str) -> None:
    expected, _ = ask(QUIET)
    assert expected["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert ask(shell) == (expected, "")


@pytest.mark.parametrize("shell", ["true", "echo hostname app", "exec cat", "echo 0"])
def test_a_login_shell_that_runs_no_command(shell: str) -> None:
    assert ask(shell) == ({}, "the user's login shell ran no command")


def test_the_reason_why_there_is_no_answer() -> None:
    assert ask("echo hello; echo one >&2; echo two >&2; exit 255") == ({}, "two")


@pytest.mark.parametrize("value", ["many", "", "-1", "1e3", "٣", "9" * 30, "1;reboot"])
def test_a_number_that_is_none_is_not_known(tmp_path: Path, value: str) -> None:
    facts, why = ask(f"{shadowed(tmp_path, 'grep', f'echo {shlex.quote(value)}')}; {QUIET}")
    assert (why, "hostname" in facts, "cpus" in facts) == ("", True, False)


def test_facts_are_bounded_and_print_nothing_but_text(tmp_path: Path) -> None:
    facts, _ = ask(f"{shadowed(tmp_path, 'awk', AWK)}; {QUIET}")
    assert all(re.fullmatch(r"[ -~]{0,4096}", value) for value in facts.values())
    assert facts["gateway"].startswith("?[2J00")


def shadowed(folder: Path, tool: str, script: str) -> str:
    """Put another program in place of a tool; return the line of shell that makes it count."""
    (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
    (folder / tool).chmod(0o755)
    return f"PATH={folder}:$PATH"
