"""Child processes, as core/system.py starts them: what they inherit and print, how they end."""

from __future__ import annotations

import grp
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from invoke.runners import Local

from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SET_UP
from vagrantp.core.progress import Progress
from vagrantp.core.urls import redacted

# What a child process may inherit. Everything else (VAGRANT_*, LIBVIRT_*, DOCKER_HOST, ANSIBLE_*,
# GEM_*, RUBYOPT, …) could change what the child does.
ALLOWED = (
    *("HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "XDG_RUNTIME_DIR"),
    *("DBUS_SESSION_BUS_ADDRESS", "http_proxy", "https_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


# An ordinary user's PATH often lacks the folders of nft, ip and the like.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


GRACE = 20.0  # seconds that an interrupted child has to clean up after itself


AT_WORK = ("docker", "podman", "ruby", "vagrant")  # Vagrant, and what it starts


class Child(Local):
    """invoke's local runner, with the child in a session of its own.

    A Ctrl-C in the terminal reaches us alone, and we pass it on: once, for the child to clean up;
    a second time, or when it took too long, its whole process group is killed. Without a terminal
    no child can ask for a password (/dev/tty) and wait for ever.
    """

    interrupts = 0
    progress = Progress()
    is_ended = False  # by us
    grace: threading.Timer | None = None

    def start(self, command: str, shell: str, env: Mapping[str, str]) -> None:
        """Start `command`. It dies with us, even when we are killed (`setpriv(1)`)."""
        self.process = Popen(
            f"exec setpriv --pdeathsig KILL -- {command}",
            shell=True,
            executable=shell,
            env=env,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )

    def _thread_join_timeout(self, target: Callable[..., object]) -> int | None:
        """Let invoke wait only a second for the rest of the output of a child that we ended.

        A kept ssh connection holds our pipes open until the command in the guest has ended.
        """
        timeout: int | None = super()._thread_join_timeout(target)
        return 1 if self.is_ended else timeout

    def kill(self) -> None:
        """Kill the child and what it started, in sessions of its own too, as Ansible does."""
        self.is_ended = True
        others = _descendants(self.process.pid)
        self._signal(signal.SIGKILL)
        for pid in others:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """Pass an interrupt on to the child's process group."""
        Child.interrupts += 1
        self.is_ended = True
        if Child.interrupts > 1:
            return self.kill()
        self.progress.say("interrupted: cleaning up (once more to stop at once)")
        self._signal(signal.SIGINT)
        self.grace = threading.Timer(GRACE, self.kill)
        self.grace.daemon = True
        self.grace.start()

    def stop(self) -> None:
        """Tidy up after the child, however it ended."""
        super().stop()
        if self.grace:
            self.grace.cancel()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it may end by itself in the meantime
            os.killpg(self.process.pid, number)


@dataclass
class Log:
    """A stream for invoke: into the log file, on to the terminal with --verbose, and to `note`.

    It goes on line by line, with the passwords in URLs hidden.
    """

    path: Path | None
    verbose: bool
    note: Callable[[str], None] | None = None
    tail: list[str] = field(default_factory=list)
    pending: str = ""  # the beginning of a line: virsh writes its errors piece by piece

    def write(self, text: str) -> None:
        """Take a piece of a child's output."""
        *lines, self.pending = re.split(r"(?<=[\r\n])", self.pending + text)
        self._pass_on(lines)

    def _pass_on(self, lines: list[str]) -> None:
        lines = [*map(redacted, lines)]
        if self.path:
            # a log that cannot be written is no reason to stop
            with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        if self.verbose:
            sys.stderr.write("".join(lines))
        for line in filter(None, map(str.strip, lines)):
            self.tail.append(line)
            if self.note:
                self.note(line)

    def lines(self) -> list[str]:
        """Return all lines, at the end of the output: the last one may have no end."""
        self._pass_on([self.pending])
        self.pending = ""
        return self.tail

    def flush(self) -> None:
        """Flush the terminal; the file is closed after every write."""
        sys.stderr.flush()


def environment() -> dict[str, str]:
    """Return the environment of every child: what ALLOWED lets through, and a known locale."""
    kept = {name: os.environ[name] for name in ALLOWED if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".strip(":")
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8"}


def find_tool(tool: str) -> str:
    """Return the path of a program. Raises ProviderError when it is not installed."""
    path = shutil.which(tool, path=environment()["PATH"])
    if not path:
        raise ProviderError(f"{tool} is not installed", SET_UP)
    return path


def is_installed(tool: str) -> bool:
    """Say whether a program is installed."""
    return shutil.which(tool, path=environment()["PATH"]) is not None


def handle_signals() -> None:
    """Make SIGTERM and SIGHUP interrupt a verb as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started."""
    try:
        # each of its threads may have some
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has just ended
        return []
    children = [int(word) for text in texts for word in text.split()]
    return [*children, *(other for child in children for other in _descendants(child))]


def marked(mark: str) -> list[int]:
    """Return this user's running processes with `mark`, NAME=value, in their environment.

    Only programs in AT_WORK: conmon and aardvark-dns have it, too, and are meant to stay.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another user's
            is_own = folder.stat().st_uid == os.getuid()
            is_own &= (folder / "comm").read_text().startswith(AT_WORK)
            if is_own and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


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


def last_error(lines: list[str]) -> str:
    """Return the last line that mentions an error, or else the last one."""
    marked = [line for line in lines if "error" in line.lower()]
    return (marked or lines or [""])[-1]
