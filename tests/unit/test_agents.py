"""Coding agents: their scripts, run by this host's shell with a program in place of an agent."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from vagrantp.core import called
from vagrantp.core.errors import ConfigError
from vagrantp.guest import agents
from vagrantp.settings import env
from vagrantp.settings.agents import AGENTS

from tests.unit.samples import SOUND


def started(
    folder: Path, program: str, size: int, seconds: int = 0, variables: int = 0
) -> subprocess.Popen[bytes]:
    """Start agent_prompt.sh with a shell script as the agent."""
    agent = folder / "an agent"
    agent.write_text(f"#!/bin/sh\n{program}\n")
    agent.chmod(0o755)
    limits = (str(variables), str(size), str(seconds), str(folder), "")
    argv = ["sh", "-c", agents.RUN.read_text("utf-8"), "sh", *limits, str(agent), "it's me", "-"]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)


def ended(run: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Return its status, stdout and stderr, once it has ended with its stdin still open."""
    assert run.stdout
    assert run.stderr
    out, errors = run.stdout.read(), run.stderr.read()
    return run.wait(30), out, errors


@pytest.mark.parametrize(
    "prompt", [b"-n", b"two\nlines\n\n", b"$(reboot) 'it' \"\\", "größer".encode() * 9000, b"\xff"]
)
def test_a_prompt_arrives_as_it_is(tmp_path: Path, prompt: bytes) -> None:
    run = started(tmp_path, 'cat; echo "$1|$2" >&2; exit 42', len(prompt))
    assert run.stdin
    run.stdin.write(prompt)
    run.stdin.flush()
    assert ended(run) == (42, prompt, b"it's me|-\n")


def test_variables_are_for_the_agent_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "vagrantp/secrets.env"
    file.parent.mkdir()
    file.write_text(
        'OTHER=x\nTOKEN="it\'s $(id)\\n"\nEMPTY=\nsize=s\nseconds=x\nprompt=p\ngiven=g\nNAME\n'
    )
    file.chmod(0o600)
    (tmp_path / ".env").write_text(
        SOUND + "AGENT=claude\nAGENT_ENV=TOKEN,EMPTY,size,seconds,prompt,given\n"
    )
    settings = env.load(tmp_path)
    command, data = agents.run(settings, "claude", b"go on", 0)
    assert "it's" not in shlex.split(command)
    variables = len(data) - len(b"go on")
    run = started(
        tmp_path,
        'cat; echo "|$TOKEN|$EMPTY|$OTHER|$#|$size$seconds$prompt$given"',
        5,
        variables=variables,
    )
    assert run.stdin
    run.stdin.write(data)
    run.stdin.flush()
    assert ended(run) == (0, b"go on|it's $(id)\n|||2|sxpg\n", b"")

    file.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read or write it"):
        agents.exports(settings)
    file.chmod(0o600)
    for text, why in (("TOKEN=x\n", " has no EMPTY"), ("\n\n'hunter2", ":3: cannot be read")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=why) as raised:
            agents.exports(settings)
        assert "hunter2" not in str(raised.value)
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        agents.exports(settings)


def test_it_works_in_its_folder(tmp_path: Path) -> None:
    assert ended(started(tmp_path, "pwd", 0))[1] == f"{tmp_path}\n".encode()


def test_a_limit_of_time(tmp_path: Path) -> None:
    status, out, _ = ended(started(tmp_path, "echo begun; exec sleep 60", 0, seconds=1))
    assert (status, out) == (124, b"begun\n")


def test_when_nobody_waits_for_it_any_more_it_ends(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    run = started(
        tmp_path, f"trap 'echo ended > {sign}; exit' TERM; echo begun; sleep 60 & wait", 0
    )
    assert run.stdin
    assert run.stdout
    assert run.stdout.readline() == b"begun\n"
    run.stdin.close()
    for _ in range(100):
        if sign.exists():
            break
        time.sleep(0.05)
    assert sign.read_text() == "ended\n"
    run.wait(30)


@pytest.mark.parametrize("is_opened", [False, True])
def test_a_guest_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_opened: bool
) -> None:
    """The message names the command as the person called it."""
    for tool, program in {"sh": "sh", "tmux": "true", "base64": "base64", "rm": "rm"}.items():
        (tmp_path / tool).symlink_to(f"/usr/bin/{program}")
    (tmp_path / ".env").write_text(SOUND + "AGENT=claude\n")
    settings = env.load(tmp_path)
    monkeypatch.setattr("sys.argv", ["/it's here/fab", "-r", "a $b", "agent"])
    called._command.cache_clear()
    if is_opened:
        command = agents.opened(settings, "claude", "claude", "")
    else:
        command, _ = agents.run(settings, "claude", b"", 0)
    called._command.cache_clear()
    argv, environment = shlex.split(command), {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    how = shlex.join(["/it's here/fab", "-r", "a $b", "provision"])
    said = f"error: the guest has no claude: {how} installs it\n"
    assert (done.returncode, done.stdout, done.stderr) == (127, "", said)


def test_names_of_sessions() -> None:
    assert all(map(agents.SESSION.fullmatch, [*AGENTS, "a-1_b", "7"]))
    assert not any(
        map(agents.SESSION.fullmatch, ["", "-a", "a:b", "a.b", "a b", "=a", "a\n", "a" * 33])
    )


def test_npms_reason() -> None:
    lines = [
        "npm error code E404",
        "npm error 404 Not Found - GET https://registry.example/no",
        "npm error A complete log of this run can be found in: /home/vagrant/.npm/_logs/x.log",
    ]
    assert agents.npms_reason(lines) == lines[1]
    assert agents.npms_reason(["sh: npm: not found"]) == "sh: npm: not found"
    assert agents.npms_reason([]) == ""
