"""What a guest says: only what was asked counts. Real shells; this host stands for the guest."""

from __future__ import annotations

import shlex
from pathlib import Path
from time import monotonic

import pytest
from invoke.context import Context
from vagrantp.core.errors import FloodError, ProviderError
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.guest.facts import Facts
from vagrantp.instance.record import Instance

QUIET = 'eval "$0"'
AWK = r"printf '\033[2J%05000d' 1"


def ask(shell: str) -> tuple[Facts, str]:
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
@pytest.mark.slow
def test_nothing_that_a_shell_file_prints_is_an_answer(shell: str) -> None:
    expected, _ = ask(QUIET)
    assert expected.hostname == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert ask(shell) == (expected, "")


@pytest.mark.parametrize("shell", ["true", "echo hostname app", "exec cat", "echo 0"])
def test_a_login_shell_that_runs_no_command(shell: str) -> None:
    assert ask(shell) == (Facts(), "the user's login shell ran no command")


def test_the_reason_why_there_is_no_answer() -> None:
    assert ask("echo hello; echo one >&2; echo two >&2; exit 255") == (Facts(), "two")


@pytest.mark.parametrize("value", ["many", "", "-1", "1e3", "٣", "9" * 30, "1;reboot"])
def test_a_number_that_is_none_is_not_known(tmp_path: Path, value: str) -> None:
    facts, why = ask(f"{shadowed(tmp_path, 'grep', f'echo {shlex.quote(value)}')}; {QUIET}")
    assert (why, bool(facts.hostname), facts.cpus) == ("", True, None)


def test_what_is_no_address_is_not_known(tmp_path: Path) -> None:
    facts, why = ask(f"{shadowed(tmp_path, 'awk', AWK)}; {QUIET}")
    assert (why, facts.gateway, facts.addresses, facts.memory_kib) == ("", None, (), None)
    assert facts.hostname and facts.user


@pytest.mark.parametrize("flood", ["yes", "yes >&2", "cat /dev/zero", "yes '\x1b]52;c;\x07'"])
@pytest.mark.slow
def test_a_guest_that_floods_is_left(flood: str) -> None:
    why = "the guest printed more than 1 MB when it was asked"
    assert ask(f"{flood} | head -c 100000000; {QUIET}") == (Facts(), why)
    with pytest.raises(FloodError, match=why):
        session.wait(Host(Context()), ["bash", "-c", flood], 60, lambda: None)
    assert ask(QUIET)[1] == ""


def shadowed(folder: Path, tool: str, script: str) -> str:
    """Put another program in place of a tool; return the line of shell that makes it count."""
    (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
    (folder / tool).chmod(0o755)
    return f"PATH={folder}:$PATH"


def test_a_guest_that_refuses_is_left_within_seconds() -> None:
    refused = ProviderError("it refuses")
    argv = ["bash", "-c", "echo 'Permission denied (publickey).' >&2; exit 255"]
    begun = monotonic()
    with pytest.raises(ProviderError, match="it refuses"):
        session.wait(
            Host(Context()),
            argv,
            60,
            lambda: None,
            refusal=lambda said: refused if "(publickey" in said else None,
        )
    assert session.REFUSED_SECONDS <= monotonic() - begun < 10


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "@@@ WARNING @@@\nHost key verification failed.\n",
            "shows another host key than that in ",
        ),
        ("av@10.201.0.5: Permission denied (publickey).\n", "refuses the key "),
        ("ssh: connect to host 10.201.0.5 port 22: Connection refused\n", ""),
        ("kex_exchange_identification: Connection closed by remote host\n", ""),
    ],
)
def test_what_ssh_says_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = Instance("app", "0a1b2c3d", Path("/app"), "vm")
    assert session.why_refused(app, said) is None  # it is being made
    app.state_dir.mkdir(parents=True)
    app.ssh_config.write_text("")
    found = session.why_refused(app, said)
    assert (found.message if found else "").startswith(f"app-0a1b2c3d {expected}" * bool(expected))
    assert bool(found) == bool(expected)
