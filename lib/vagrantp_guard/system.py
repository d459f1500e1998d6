"""Processes, files and locks. Nothing here knows about guests."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TextIO

from vagrantp_guard.contract import RUN

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")


class Refused(Exception):
    """A reason why a guest must not start."""


def is_rootless() -> bool:
    """Say whether this runs in a user's namespace: root there is the user, and root is nobody."""
    return Path("/").stat().st_uid != 0


def is_private(facts: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
    temporary.replace(path)


def private(path: Path) -> TextIO:
    """Open a file to be locked, for its owner only: whoever can read it could lock it, too."""
    file = path.open("a", encoding="utf-8")
    os.fchmod(file.fileno(), 0o600)
    return file


@contextmanager
def locked() -> Iterator[None]:
    RUN.mkdir(mode=0o755, exist_ok=True)
    with private(RUN / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def watchers_lock() -> TextIO | None:
    """Take the lock that the watcher holds while it runs; None when one runs already."""
    lock = watchers_file()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def watchers_file() -> TextIO:
    """Open what the watcher locks; its text is the watcher's process id."""
    return private(RUN / "watch.lock")


def in_background() -> bool:
    """Fork: return True in a new process, to be left by os._exit, and False in this one."""
    if os.fork():
        return False
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    return True


def run_inside(pid: int, *argv: str, stdin: str = "", check: bool = True) -> str:
    return run("nsenter", f"--target={pid}", "--net", *argv, stdin=stdin, check=check)


def run(*argv: str, stdin: str = "", check: bool = True, fds: tuple[int, ...] = ()) -> str:
    """Return what a program prints. Raises Refused, with its error line, when it fails.

    `fds`: open files that it gets, under the same numbers.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **_runtime()},
            timeout=30,
            pass_fds=fds,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Refused(str(error)) from None
    if done.returncode and check:
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise Refused(f"{argv[0]}: {next((line for line in said if 'rror' in line), said[-1])}")
    return done.stdout if done.returncode == 0 else ""


def start(*argv: str) -> None:
    """Start a program that nobody waits for. Raises OSError."""
    quiet = subprocess.DEVNULL
    subprocess.Popen(
        argv, env={"PATH": PATH}, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )


def until_none(missing: Callable[[], list[str]], name: str, seconds: float) -> bool:
    """Wait until a guest is not among those `missing`, or none is; return False if not in time."""
    end = monotonic() + seconds
    while lacking := missing():
        if name and name not in lacking:
            return True
        if monotonic() > end:
            return False
        sleep(0.02)
    return True


def _runtime() -> dict[str, str]:
    return {k: os.environ[k] for k in ("HOME", "XDG_RUNTIME_DIR") if k in os.environ}
