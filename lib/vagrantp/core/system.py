"""This host: the only way to start processes, change files, take locks and handle signals.

Everything that changes something goes through methods of `Host` that hold back under `fab --dry`:
one gate for every side effect. How it is done is in process.py, files.py and locks.py.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep, strftime

from invoke.context import Context
from invoke.exceptions import CommandTimedOut
from invoke.runners import Result

from vagrantp.core import files, locks
from vagrantp.core.errors import (
    FloodError,
    HostLimitError,
    Interrupted,
    ProviderError,
    StateError,
    UnansweredError,
    cleaned_up_by,
)
from vagrantp.core.places import SET_UP
from vagrantp.core.process import (
    GRACE,
    LOG_BYTES,
    SYSTEM_PATH,
    Child,
    Log,
    environment,
    fed,
    find_tool,
    last_error,
    marked,
)
from vagrantp.core.progress import Progress
from vagrantp.core.sandbox import Sandbox
from vagrantp.core.start import Held, command_line
from vagrantp.core.text import MAX_REASON, escaped, last_line, plain, show
from vagrantp.core.urls import redacted

MAX_SHOWN = 120  # characters of a command in a message
MAX_ANSWER = 16 * 1024**2  # bytes that a query may print


@dataclass(frozen=True, eq=False)
class Host:
    """This host, as far as a verb may touch it.

    `is_patient`: waits for another verb in its project; `before_exec`: called by `exec_process`.
    """

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
        sandbox: Sandbox | None = None,
        at_most: int = MAX_ANSWER,
    ) -> Result:
        """Run a query that changes nothing, and return its result whatever its exit status.

        `timeout` in seconds; `sandbox`: where it runs, with an environment of its own.
        Raises ProviderError when the tool is missing or does not answer; FloodError when it prints
        more than `at_most` bytes.
        """
        return self._run(argv, timeout, env, cwd, sandbox=sandbox, at_most=at_most)

    def require_sandbox(self) -> None:
        """Raise ProviderError where no program can be run in a sandbox, by running one."""
        done = self.ask(["true"], sandbox=Sandbox())
        if not done.ok:
            why = last_line(done.stderr or f"exit status {done.return_code}")
            raise ProviderError(f"nothing can be run in a sandbox: {why}", SET_UP)

    def answer(
        self, argv: Sequence[str], timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> str:
        """Return what a query prints. `timeout` in seconds.

        Raises ProviderError, with the last line of its stderr, when it fails.
        """
        result = self.ask(argv, timeout, env)
        if result.ok:
            return str(result.stdout)
        why = last_line(result.stderr).removeprefix("error: ").removeprefix("Error: ")
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
        sandbox: Sandbox | None = None,
        held: Held | None = None,
    ) -> None:
        """Run a command that changes something; under --dry only print it.

        `what` names the step in an error; `timeout` in seconds; `stdin` is a file that the command
        reads; `sandbox`: where it runs, with an environment of its own; `note` is called with every
        line of output; `explain` picks the one line that matters out of the output of a failure, or
        "" for the last one that mentions an error; `held`: the command, started ahead.
        Raises ProviderError when it fails, HostLimitError when a disk is full.
        """
        # a script for a guest does not help a reader: what follows the first line, or base64
        first, *rest = re.sub(r"[\w+/=]{300,}", "…", shlex.join(argv)).splitlines()
        shown = f"{first} …" if rest else first
        if self.dry:
            return self._would(f"run {shown}")
        self.note(f"{strftime('%Y-%m-%d %H:%M:%S')} $ {shown}")
        sink = Log(self.log, self.verbose, note)
        try:
            result = self._run(argv, timeout, env, cwd, sink, stdin, sandbox, held=held)
        finally:
            lines = sink.end()
        if not result.ok:
            why = explain(lines) if explain else ""
            why = why or plain(last_error(lines), MAX_REASON) or f"exit status {result.return_code}"
            hint = f"the full log is {self.log}" if self.log else None
            is_full = any(os.strerror(errno.ENOSPC) in line for line in lines)
            raise (HostLimitError if is_full else ProviderError)(f"{what} failed: {why}", hint)

    def write(self, path: Path, content: str | bytes, mode: int = 0o600) -> None:
        """Write a file whole or not at all."""
        if self.dry:
            return self._would(f"write {path}")
        files.write_whole(path, content, mode)

    def append(self, path: Path, line: str, at_most: int) -> None:
        """Append a line, as `files.append_line` does. Raises OSError."""
        if self.dry:
            return self._would(f"append to {path}")
        files.append_line(path, line, at_most)

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

    def adopt(self, source: Path, target: Path) -> bool:
        """Merge a folder that a sandbox has written into `target`; say whether it had any file.

        Regular files only, without setuid, as this user's own; a file there is replaced.
        """
        return not self.dry and files.adopt(source, target)

    def make_plain(self, folder: Path) -> None:
        """Make what a sandbox has written ours, and rid of set-ids and links that lead out."""
        if not self.dry:
            files.make_plain(folder)

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
            files.remove_tree(path)
        else:
            path.unlink(missing_ok=True)

    def end(self, pid: int) -> None:
        """End one of our processes, and wait until it is gone."""
        if self.dry:
            return self._would(f"end process {pid}")
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            select.select([descriptor], [], [], GRACE)
            os.close(descriptor)

    def wait_for_orphans(self, mark: str) -> None:
        """Wait for the processes that a killed verb left running; end them if they take too long.

        `mark`: NAME=value in their environment. A verb's child dies with it, but what that child
        has started does not: Vagrant's `podman run` would make a container that was just removed.
        """
        deadline = monotonic() + GRACE
        while not self.dry and (left := marked(mark)):
            if monotonic() > deadline:
                for pid in left:
                    self.end(pid)
            sleep(0.02)

    @contextmanager
    def scratch(self, parent: Path) -> Iterator[Path]:
        """Yield a temporary folder in `parent`."""
        self.make_dir(parent)
        if self.dry:
            yield parent / ".scratch"
            return
        folder = Path(mkdtemp(dir=parent, prefix=".scratch."))
        with cleaned_up_by(partial(files.remove_tree, folder)):
            yield folder

    @contextmanager
    def lock(
        self, folder: Path, key: str, waiting_for: str, is_patient: bool = True
    ) -> Iterator[None]:
        """Hold a lock named `key`, waiting for it with a message.

        Raises StateError instead of waiting when `is_patient` is false.
        """
        if self.dry:
            yield
            return
        self.make_dir(folder)
        files.refuse_open(folder)

        def wait() -> None:
            if not is_patient:
                raise StateError(f"busy: {waiting_for} is running")
            self.progress.say(f"waiting for {waiting_for} …")

        with locks.byte(folder / "lock", key, wait):
            yield

    @contextmanager
    def flock(self, path: Path) -> Iterator[None]:
        """Hold a lock that another program, too, takes for a moment by flock(2).

        Raises UnansweredError when that one does not release it.
        """
        if self.dry:
            yield
            return
        with locks.flock(path):
            yield

    def exec_process(
        self, argv: Sequence[str], cwd: Path = Path(), env: Mapping[str, str] | None = None
    ) -> None:
        """Replace this process by another one, with the same streams; under --dry print it."""
        if self.dry:
            return self._would(f"run {shlex.join(argv)}")
        path = find_tool(argv[0])
        self.before_exec()
        sys.stdout.flush()
        sys.stderr.flush()
        os.chdir(cwd)
        kept = {**environment(), "PATH": os.environ.get("PATH", SYSTEM_PATH), **(env or {})}
        with self.progress.aside():
            os.execve(path, [*argv], kept)

    def feed(self, argv: Sequence[str], data: bytes, cwd: Path) -> int:
        """Run a program with our streams, but `data` on stdin; return its status (process.fed)."""
        if self.dry:
            self._would(f"run {shlex.join(argv)}")
            return 0
        return fed([find_tool(argv[0]), *argv[1:]], data, cwd)

    def _run(
        self,
        argv: Sequence[str],
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        sink: Log | None = None,
        stdin: Path | None = None,
        sandbox: Sandbox | None = None,
        at_most: int = 0,
        held: Held | None = None,
    ) -> Result:
        find_tool(argv[0])
        command = command_line(argv, cwd, stdin, sandbox)
        shown = shlex.join(argv).splitlines()[0][:MAX_SHOWN]
        runner = Child(self.context)
        runner.progress, runner.log, runner.at_most = self.progress, sink, at_most
        runner.held = held
        interrupts = Child.interrupts
        try:
            result = runner.call(command, timeout, {**environment(), **(env or {})})
        except CommandTimedOut:
            raise UnansweredError(
                f"{argv[0]} did not finish in {timeout:.0f} seconds: {shown}",
                f"the full log is {self.log}" if self.log else "try it by hand",
            ) from None
        except KeyboardInterrupt:  # it came while invoke was not passing interrupts on
            if hasattr(runner, "process"):  # else even before there was a child
                runner.kill()
            raise
        if Child.interrupts > interrupts:
            raise Interrupted("interrupted")
        if runner.is_flood:
            raise FloodError(f"{argv[0]} printed more than {at_most // 1024**2} MB: {shown}")
        return result

    def note(self, line: str) -> None:
        """Write a line, redacted, into the log if that can be written; with --verbose to stderr."""
        line = redacted(line)
        if self.verbose:
            show(line, sys.stderr)
        if self.log and not self.dry:
            with suppress(OSError):
                self.make_dir(self.log.parent)
                self.append(self.log, escaped(line), LOG_BYTES)

    def _would(self, what: str) -> None:
        show(f"would {redacted(what)}")
