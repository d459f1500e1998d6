"""The only module that starts processes, changes files, takes locks and handles signals.

Everything that changes something goes through `Host.change`, `write`, `append`, `make_dir`,
`move`, `link`, `remove`, `scratch`, `lock`, `flock` or `become`, and each of them holds back under
`fab --dry`: one gate for every side effect.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import select
import shlex
import shutil
import signal
import stat
import struct
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryDirectory
from time import monotonic, sleep, strftime
from typing import Any, TypeVar

from invoke.context import Context
from invoke.exceptions import CommandTimedOut
from invoke.runners import Local, Result

from vagrantp.core.errors import (
    HostLimitError,
    Interrupted,
    ProviderError,
    StateError,
    UnansweredError,
)
from vagrantp.core.places import MASTER
from vagrantp.core.progress import Progress, plain

Document = TypeVar("Document", list[Any], dict[str, Any])

# What a child process may inherit. Everything else (VAGRANT_*, LIBVIRT_*, DOCKER_HOST, ANSIBLE_*,
# GEM_*, RUBYOPT, …) could change what the child does.
ALLOWED = (
    *("HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "XDG_RUNTIME_DIR"),
    *("DBUS_SESSION_BUS_ADDRESS", "http_proxy", "https_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
# An ordinary user's PATH often lacks the folders of nft, ip and the like.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What mends most of what can be wrong with a host, as it is typed in any folder.
SET_UP = f"make -C {shlex.quote(str(MASTER))} setup"
GRACE = 20.0  # seconds that an interrupted child has to clean up behind itself
MAX_SHOWN = 120  # characters of a command in a message
AT_WORK = ("docker", "podman", "ruby", "vagrant")  # Vagrant, and what it starts
FLOCK_TIMEOUT = 30.0  # seconds; Vagrant holds its index for less than one
LOG_BYTES = 1024**2  # of a log, before the next command begins another one
APPEND_TIMEOUT = 1.0  # seconds; another writer holds a file for less than a thousandth of that


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
        """Wait a second only for the end of the output of what was ended: invoke's own question.

        A kept ssh connection has the ends of our pipes until the command in the guest has ended.
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
    """A stream for invoke: into the log file, on to the terminal with --verbose, and to `note`."""

    path: Path | None
    verbose: bool
    note: Callable[[str], None] | None = None
    tail: list[str] = field(default_factory=list)
    pending: str = ""  # the beginning of a line: virsh writes its errors piece by piece

    def write(self, text: str) -> None:
        """Take a piece of a child's output."""
        if self.path:
            # a log that cannot be written is no reason to stop
            with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        if self.verbose:
            sys.stderr.write(text)
        *lines, self.pending = re.split(r"[\r\n]", self.pending + text)
        for line in filter(None, map(str.strip, lines)):
            self.tail.append(line)
            if self.note:
                self.note(line)

    def lines(self) -> list[str]:
        """Return all lines, with a last one that has no end."""
        return [*self.tail, *filter(None, [self.pending.strip()])]

    def flush(self) -> None:
        """Flush the terminal; the file is closed after every write."""
        sys.stderr.flush()


@dataclass(frozen=True, eq=False)
class Host:
    """This host, as far as a verb may touch it. `before_exec` is called by `become`;
    one that is not patient waits for no other verb in its project."""

    context: Context
    dry: bool = False
    verbose: bool = False
    log: Path | None = None
    progress: Progress = field(default_factory=Progress)
    is_patient: bool = True
    before_exec: Callable[[], None] = lambda: None

    def ask(
        self,
        argv: Sequence[str],
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Result:
        """Run a query that changes nothing, and return its result whatever its exit status.

        `timeout` in seconds. Raises ProviderError when the tool is missing or does not answer.
        """
        return self._run(argv, timeout, env, cwd)

    def answer(
        self, argv: Sequence[str], timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> str:
        """Return what a query prints. `timeout` in seconds.

        Raises ProviderError, with the last line of its stderr, when it fails.
        """
        result = self.ask(argv, timeout, env)
        if result.ok:
            return str(result.stdout)
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        why = lines[-1].removeprefix("error: ").removeprefix("Error: ")
        if argv[0] == "virsh" and "failed to connect" in result.stderr.lower():
            raise ProviderError(f"libvirt does not answer: {why}", SET_UP)
        raise ProviderError(f"{argv[0]} failed: {why}")

    def change(
        self,
        argv: Sequence[str],
        *,
        what: str,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Path | None = None,
        note: Callable[[str], None] | None = None,
        explain: Callable[[list[str]], str] | None = None,
    ) -> None:
        """Run a command that changes something; under --dry only print it.

        `what` names the step in an error; `timeout` in seconds; `stdin` is a file that the command
        reads; `note` is called with every line of output; `explain` picks the one line that matters
        out of the output of a failure, or "" for the last one that speaks of an error.
        Raises ProviderError when it fails.
        """
        # a script for a guest is no use to a reader: what follows the first line, or base64
        first, *rest = re.sub(r"[\w+/=]{300,}", "…", shlex.join(argv)).splitlines()
        shown = f"{first} …" if rest else first
        if self.dry:
            return self._would(f"run {shown}")
        self._note(f"{strftime('%Y-%m-%d %H:%M:%S')} $ {shown}")
        sink = Log(self.log, self.verbose, note)
        result = self._run(argv, timeout, env, cwd, sink, stdin)
        if not result.ok:
            lines = sink.lines()
            why = explain(lines) if explain else ""
            why = why or _last_error(lines) or f"exit status {result.return_code}"
            hint = f"the full log is {self.log}" if self.log else None
            is_full = any(os.strerror(errno.ENOSPC) in line for line in lines)
            raise (HostLimitError if is_full else ProviderError)(f"{what} failed: {why}", hint)

    def write(self, path: Path, content: str | bytes, mode: int = 0o600) -> None:
        """Write a file whole or not at all."""
        if self.dry:
            return self._would(f"write {path}")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        data = content.encode() if isinstance(content, str) else content
        try:
            with open(temporary, "wb", opener=lambda p, f: os.open(p, f, mode)) as file:
                file.write(data)
            temporary.replace(path)
        except OSError as error:
            error.filename = str(path)  # a failing write(2) does not tell
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def append(self, path: Path, line: str, at_most: int) -> None:
        """Append a line, whole and on a line of its own whatever a killed writer left behind.

        A file that has grown to `at_most` bytes is renamed to `<name>.1` first, over an older one.
        Raises OSError; TimeoutError when another process holds the file all the time.
        """
        if self.dry:
            return self._would(f"append to {path}")
        try:
            refuse_open(path.parent)
        except StateError as error:
            raise PermissionError(errno.EPERM, error.message, str(path)) from None
        deadline = monotonic() + APPEND_TIMEOUT
        while monotonic() < deadline:
            with open(path, "ab+", 0, opener=lambda p, f: os.open(p, f, 0o600)) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    sleep(0.002)
                    continue
                if not _is_open_at(file.fileno(), path):  # renamed by another writer just now
                    continue
                size = file.seek(0, os.SEEK_END)
                if size >= at_most:
                    self.move(path, path.with_name(f"{path.name}.1"))
                    continue
                is_torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
                data = (b"\n" if is_torn else b"") + line.encode() + b"\n"
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                return
        raise TimeoutError(errno.ETIMEDOUT, "held by another process", str(path))

    def make_dir(self, path: Path) -> None:
        """Make a private folder and the ones above it."""
        if path.is_dir():
            return
        if self.dry:
            return self._would(f"make folder {path}")
        self.make_dir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)

    def move(self, source: Path, target: Path) -> None:
        """Rename a file within one file system; the target is replaced."""
        if self.dry:
            return self._would(f"move {source} to {target}")
        source.replace(target)

    def link(self, path: Path, target: Path) -> None:
        """Make a symbolic link. Raises FileExistsError where something is there already."""
        if self.dry:
            return self._would(f"link {path} to {target}")
        path.symlink_to(target)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole folder, if it is there."""
        if not os.path.lexists(path):
            return
        if self.dry:
            return self._would(f"remove {path}")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def end(self, pid: int) -> None:
        """End a process of ours, and wait until it has gone."""
        if self.dry:
            return self._would(f"end process {pid}")
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            select.select([descriptor], [], [], GRACE)
            os.close(descriptor)

    def outlast(self, mark: str) -> None:
        """Wait until what a killed verb left at work has ended; end it where that takes too long.

        `mark`: what its processes have in their environment. What dies with a verb is its child,
        and not what that has started: Vagrant's `podman run` would make a container that was just
        removed.
        """
        deadline = monotonic() + GRACE
        while not self.dry and (left := _marked(mark)):
            if monotonic() > deadline:
                for pid in left:
                    self.end(pid)
            sleep(0.02)

    @contextmanager
    def scratch(self, parent: Path) -> Iterator[Path]:
        """Give a folder in `parent` for a moment."""
        self.make_dir(parent)
        if self.dry:
            yield parent / ".scratch"
            return
        with TemporaryDirectory(dir=parent, prefix=".scratch.") as folder:
            yield Path(folder)

    @contextmanager
    def lock(
        self, folder: Path, key: str, waiting_for: str, is_patient: bool = True
    ) -> Iterator[None]:
        """Hold a lock named `key`, waiting for it with a message.

        Raises StateError instead of waiting when `is_patient` is false.

        One byte of one file stands for each key (fcntl(2), open file description locks; plain
        record locks of a process all go when it closes the file once): nothing is left to clean
        up, and the lock ends with the process, however that ends.
        """
        if self.dry:
            yield
            return
        self.make_dir(folder)
        refuse_open(folder)
        with (folder / "lock").open("a") as file:
            byte = int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)
            flock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, flock)
            except (BlockingIOError, PermissionError):
                if not is_patient:
                    raise StateError(f"busy: {waiting_for} is running") from None
                self.progress.say(f"waiting for {waiting_for} …")
                fcntl.fcntl(file, fcntl.F_OFD_SETLKW, flock)
            yield

    @contextmanager
    def flock(self, path: Path) -> Iterator[None]:
        """Hold a lock of another program's, which it takes for a moment by flock(2).

        Raises UnansweredError when it does not let go.
        """
        if self.dry:
            yield
            return
        deadline = monotonic() + FLOCK_TIMEOUT
        with path.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() > deadline:
                        text = f"{path} was held for {FLOCK_TIMEOUT:.0f} seconds"
                        mend = f"'fuser --verbose {shlex.quote(str(path))}' shows by what"
                        raise UnansweredError(text, mend) from None
                    sleep(0.02)
            yield

    def become(self, argv: Sequence[str], cwd: Path = Path()) -> None:
        """Replace this process by another one, streams and all; under --dry print it."""
        if self.dry:
            return self._would(f"run {shlex.join(argv)}")
        path = find_tool(argv[0])
        self.before_exec()
        sys.stdout.flush()
        sys.stderr.flush()
        os.chdir(cwd)
        kept = {**environment(), "PATH": os.environ.get("PATH", SYSTEM_PATH)}
        with self.progress.aside():
            os.execve(path, [*argv], kept)

    def _run(
        self,
        argv: Sequence[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        sink: Log | None = None,
        stdin: Path | None = None,
    ) -> Result:
        find_tool(argv[0])
        command = shlex.join(_in_group(argv))
        if stdin:
            command = f"{command} < {shlex.quote(str(stdin))}"
        if cwd:
            command = f"env --chdir={shlex.quote(str(cwd))} {command}"
        runner = Child(self.context)
        runner.progress = self.progress
        interrupts = Child.interrupts
        try:
            result = runner.run(
                command,
                timeout=timeout,
                env={**environment(), **(env or {})},
                replace_env=True,
                shell="/bin/sh",
                encoding="utf-8",
                in_stream=False,
                warn=True,
                dry=False,
                echo=False,
                pty=False,
                hide=sink is None,
                out_stream=sink,
                err_stream=sink,
            )
        except CommandTimedOut:
            shown = shlex.join(argv).splitlines()[0][:MAX_SHOWN]
            raise UnansweredError(
                f"{argv[0]} did not finish in {timeout:.0f} seconds: {shown}",
                f"the full log is {self.log}" if self.log else "try it by hand",
            ) from None
        except KeyboardInterrupt:  # it fell between the moments in which invoke passes it on
            if hasattr(runner, "process"):  # else even before there was a child
                runner.kill()
            raise
        if Child.interrupts > interrupts:
            raise Interrupted("interrupted")
        assert result is not None  # only a disowned child has none
        return result

    def _note(self, line: str) -> None:
        """Write a line of our own into the log; one that cannot be written is no reason to stop."""
        if self.verbose:
            print(line, file=sys.stderr)
        if self.log:
            with suppress(OSError):
                self.make_dir(self.log.parent)
                self.append(self.log, line, LOG_BYTES)

    def _would(self, what: str) -> None:
        print(f"would {what}")


def refuse_open(folder: Path) -> None:
    """Raise StateError when anybody else could put something into a folder of ours, or owns it."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    quoted = shlex.quote(str(folder))
    if found.st_uid != os.getuid():
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = f"uid {found.st_uid}"
        me = os.getuid()
        hint = f"call it as {owner}, or: sudo chown --recursive {me} {quoted}"
        raise StateError(f"{folder} holds keys, and belongs to {owner}", hint)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"{folder} holds keys, and others may write it", f"chmod 700 {quoted}")


def as_json(program: str, text: str, kind: type[Document]) -> Document:
    """Return what a program answered, a JSON document of a kind. null is an empty list.

    Raises ProviderError when it is another one, or none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    if found is None and kind is list:
        return kind()
    if not isinstance(found, kind):
        raise ProviderError(f"{program} gave an unreadable answer: {_shown(text)}")
    return found


def as_xml(text: str) -> ET.Element:
    """Return what virsh answered, an XML document. Raises ProviderError when it is none."""
    try:
        return ET.fromstring(text)
    except ET.ParseError:
        told = f"libvirt gave an unreadable answer: {_shown(text)}"
        raise ProviderError(told) from None


def _shown(text: str) -> str:
    return plain(text, 80) or "nothing"


def environment() -> dict[str, str]:
    """Return the environment of every child: what ALLOWED lets through, and a known locale."""
    kept = {name: os.environ[name] for name in ALLOWED if name in os.environ}
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".strip(":")
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8"}


def find_tool(tool: str) -> str:
    """Return the path of a program. Raises ProviderError when it is not there to be run."""
    path = shutil.which(tool, path=environment()["PATH"])
    if not path:
        raise ProviderError(f"{tool} is not installed", SET_UP)
    return path


def is_installed(tool: str) -> bool:
    """Say whether a program is there to be run."""
    return shutil.which(tool, path=environment()["PATH"]) is not None


def holder_of(path: Path) -> int | None:
    """Return the process id in a lock file of forward.py, None when nobody holds it."""
    try:
        with path.open("rb") as file:
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock)
            is_held = struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK
            return int(file.read()) if is_held else None
    except (FileNotFoundError, ValueError):
        return None


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


def _marked(mark: str) -> list[int]:
    """Return the processes of this user at work with `mark`, NAME=value, in their environment.

    What stays on purpose has it too, and may be everyone's: conmon, aardvark-dns.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another user's
            is_own = folder.stat().st_uid == os.getuid()
            is_own &= (folder / "comm").read_text().startswith(AT_WORK)
            if is_own and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _in_group(argv: Sequence[str]) -> Sequence[str]:
    """Put group libvirt in force for a user who was added to it after logging in."""
    if os.getuid() == 0 or argv[0] not in ("virsh", "vagrant", "sudo"):
        return argv
    try:
        group = grp.getgrnam("libvirt")
    except KeyError:
        return argv
    if group.gr_gid in os.getgroups() or os.environ.get("USER") not in group.gr_mem:
        return argv
    return ["sg", "libvirt", "-c", shlex.join(argv)]


def _last_error(lines: list[str]) -> str:
    marked = [line for line in lines if "error" in line.lower()]
    return (marked or lines or [""])[-1]
