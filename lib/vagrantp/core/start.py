"""How a child process starts: its command line, its session, and ahead of its time."""

from __future__ import annotations

import grp
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from vagrantp.core.sandbox import Sandbox
from vagrantp.core.sandbox import argv as sandboxed

SECONDS = 2.0  # that a held command has to end by itself


def command_line(
    argv: Sequence[str],
    cwd: Path | None = None,
    stdin: Path | None = None,
    sandbox: Sandbox | None = None,
) -> str:
    """Return what a shell runs for `argv`. `stdin` is a file."""
    command = shlex.join(sandboxed(sandbox, argv) if sandbox else in_group(argv))
    if stdin:
        command = f"{command} < {shlex.quote(str(stdin))}"
    return f"env --chdir={shlex.quote(str(cwd))} {command}" if cwd else command


def started(
    command: str, env: Mapping[str, str], shell: str = "/bin/sh", stdin: int = DEVNULL
) -> Popen[bytes]:
    """Start a command in a session of its own. It dies with us, even when we are killed.

    setpriv(1)
    """
    return Popen(
        f"exec setpriv --pdeathsig KILL -- {command}",
        shell=True,
        executable=shell,
        env=env,
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )


class Held:
    """A command that loads itself, and waits for "go" on stdin before it does anything."""

    def __init__(self, command: str, env: Mapping[str, str]) -> None:
        """Start it. `env`: its whole environment."""
        self._process = started(command, env, stdin=PIPE)

    def release(self) -> Popen[bytes]:
        """Have it go on; return its process."""
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it has ended: what it printed says why
            os.write(self._process.stdin.fileno(), b"go")
        self._process.stdin.close()
        return self._process

    def end(self) -> None:
        """End it if it runs still: without "go" it ends by itself; kill one that does not."""
        if self._process.poll() is not None:
            return
        with self._process:  # closes its streams, and waits
            assert self._process.stdin
            self._process.stdin.close()
            with suppress(TimeoutExpired):
                self._process.wait(SECONDS)
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)


def in_group(argv: Sequence[str]) -> Sequence[str]:
    """Return argv that runs in group libvirt, for a user who joined it after logging in."""
    if os.getuid() == 0 or argv[0] not in ("virsh", "vagrant", "sudo"):
        return argv
    try:
        group = grp.getgrnam("libvirt")
    except KeyError:
        return argv
    if group.gr_gid in os.getgroups() or os.environ.get("USER") not in group.gr_mem:
        return argv
    return ["sg", "libvirt", "-c", shlex.join(argv)]
