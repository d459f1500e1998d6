"""Child processes, as core/system.py starts them: what they inherit and print, how they end."""

from __future__ import annotations

import codecs
import os
import resource
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from subprocess import PIPE, Popen

from invoke.runners import Local, Result

from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SET_UP
from vagrantp.core.progress import Progress
from vagrantp.core.start import Held, started
from vagrantp.core.text import escaped, show
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


LOG_BYTES = 1024**2  # of one command in a log, and of a log before the next command begins another
MAX_LINE = 4096  # characters of a line that is logged or shown; what is longer becomes several
LAST_LINES = 1000  # of a command's output, kept to explain a failure


AT_WORK = ("docker", "podman", "ruby", "vagrant")  # Vagrant, and what it starts


class Child(Local):
    """invoke's local runner, with the child in a session of its own, and its output bounded.

    `log` takes all that it prints, as it comes; without one, it is killed at `at_most` bytes.
    A Ctrl-C in the terminal reaches us alone, and we pass it on: once, for the child to clean up;
    a second time, or when it took too long, its whole process group is killed. Without a terminal
    no child can ask for a password (/dev/tty) and wait for ever.
    """

    interrupts = 0
    progress = Progress()
    held: Held | None = None
    at_most = 0
    log: Log | None = None
    printed = 0  # bytes
    is_flood = False
    is_ended = False  # by us
    read_chunk_size = 64 * 1024
    grace: threading.Timer | None = None

    def call(self, command: str, timeout: float, env: Mapping[str, str]) -> Result:
        """Run `command` to its end; `timeout` in seconds. No setting of fab's leaks in."""
        result = self.run(
            command,
            timeout=timeout,
            env=env,
            replace_env=True,
            shell="/bin/sh",
            encoding="utf-8",
            in_stream=False,
            warn=True,
            dry=False,
            echo=False,
            pty=False,
            hide=True,
        )
        assert result is not None  # only a disowned child has none
        return result

    def start(self, command: str, shell: str, env: Mapping[str, str]) -> None:
        """Start `command`, or have it go on where it is `held`."""
        self.process = self.held.release() if self.held else started(command, env, shell)

    def read_proc_output(self, reader: Callable[[int], bytes]) -> Generator[str, None, None]:
        """Yield output as it comes; invoke would break characters between two chunks."""
        decode = codecs.getincrementaldecoder(self.encoding)("replace").decode
        while data := reader(self.read_chunk_size):
            self.printed += len(data)
            if self.printed > self.at_most and not self.log:
                self.is_flood = True
                self.kill()
                return
            yield decode(data)
        yield decode(b"", final=True)

    def _handle_output(
        self, buffer_: list[str], hide: bool, output: object, reader: Callable[[int], bytes]
    ) -> None:
        """Keep output, or log it; invoke does both, and searches all of it at every chunk."""
        take = self.log.write if self.log else buffer_.append
        for text in self.read_proc_output(reader):
            take(text)

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
    """A command's output: into the log file, on to the terminal with --verbose, and to `note`.

    The file gets the first LOG_BYTES, and from what comes after them, at the end, the last lines.
    What may be secret in a URL is hidden.
    """

    path: Path | None
    verbose: bool
    note: Callable[[str], None] | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    pending: str = ""  # the beginning of a line: virsh writes its errors piece by piece
    written: int = 0  # bytes, to the file
    unwritten: int = 0  # lines
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the threads of both streams

    def write(self, text: str) -> None:
        """Take a piece of a child's output."""
        with self.lock:
            *lines, self.pending = (self.pending + text).replace("\r", "\n").split("\n")
            if len(self.pending) > MAX_LINE:
                lines, self.pending = [*lines, self.pending], ""
            self._take(lines)

    def end(self) -> list[str]:
        """Take a last line that has no end; return the last lines of all."""
        with self.lock:
            self._take([self.pending] if self.pending else [])
            self.pending = ""
            if self.unwritten:
                kept = _last_that_fit([*self.tail][-self.unwritten :])
                self._append([f"… {self.unwritten} more lines, the last of which are:", *kept])
            return [line.strip() for line in self.tail]

    def _take(self, lines: list[str]) -> None:
        """Take whole lines; quickly, where none but the last ones count."""
        is_written = self.written < LOG_BYTES
        if not is_written:
            self.unwritten += len(lines)
            if not (self.verbose or self.note):
                lines = lines[-LAST_LINES:]
        pieces = (piece for line in lines for piece in _pieces(redacted(line)))
        lines = [piece for piece in pieces if not piece.isspace()]
        self.tail.extend(lines)
        if is_written:
            self._append(lines)
        if self.verbose and lines:
            show("\n".join(map(_shown, lines)), sys.stderr)
        if self.note:
            for line in lines:
                self.note(line.strip())

    def _append(self, lines: list[str]) -> None:
        data = "".join(f"{_shown(line)}\n" for line in lines).encode()
        self.written += len(data)
        # a log that cannot be written is no reason to stop
        with suppress(OSError):
            if self.path and data:
                with self.path.open("ab") as file:
                    file.write(data)


def _pieces(line: str) -> Sequence[str]:
    """Return a line in pieces of MAX_LINE characters, an empty one in none."""
    if len(line) <= MAX_LINE:
        return (line,) if line else ()
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)]


def _shown(line: str) -> str:
    return escaped(line.rstrip().expandtabs(), keep="")


def _last_that_fit(lines: list[str]) -> list[str]:
    """Return the last lines that are LOG_BYTES together as they are written."""
    sizes = accumulate(len(_shown(line)) + 1 for line in reversed(lines))
    return lines[len(lines) - sum(size <= LOG_BYTES for size in sizes) :]


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


def keep_half() -> None:
    """Let no container that we start use up what its user has of queued signals and messages.

    The kernel counts these for whoever made a user namespace as well, and holds all in it together
    to the soft limits that process had. With half of them, whoever has all keeps the other half.
    """
    for kind in (resource.RLIMIT_SIGPENDING, resource.RLIMIT_MSGQUEUE):
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            resource.setrlimit(kind, (min(soft, hard // 2), hard))


def fed(argv: Sequence[str], data: bytes, cwd: Path) -> int:
    """Run a program with our stdout and stderr; return its exit status, as a shell has it.

    `data` comes on its stdin, which then stays open for as long as this process lives.
    """
    with Popen(argv, stdin=PIPE, cwd=cwd, env=environment()) as child:
        try:
            if child.stdin:
                with suppress(BrokenPipeError):
                    child.stdin.write(data)
                    child.stdin.flush()
            status = child.wait()
        finally:
            child.terminate()
    return status if status >= 0 else 128 - status


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


def last_error(lines: list[str]) -> str:
    """Return the last line that mentions an error, or else the last one."""
    marked = [line for line in lines if "error" in line.lower()]
    return (marked or lines or [""])[-1]
