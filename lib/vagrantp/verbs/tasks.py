"""What every verb has in common: its Host, the one place that catches errors, and its time."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, process_time
from traceback import format_exception

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from vagrantp.core import live, metrics
from vagrantp.core.called import as_called
from vagrantp.core.errors import ConfigError, HostLimitError, Interrupted, VagrantpError, in_words
from vagrantp.core.process import handle_signals, keep_half
from vagrantp.core.progress import Progress
from vagrantp.core.system import Host
from vagrantp.core.text import escaped, show
from vagrantp.instance import record as instances
from vagrantp.settings.env import id_from

LONGEST_START = 5.0  # seconds from the start of the process to that of its first verb


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Make a task of a function: it gets a Host in place of fab's context, and is measured.

    fab's own --dry holds the Host's changes back; --verbose is an option of the function's own.
    """

    name = body.__name__.replace("_", "-")  # as fab calls it

    @wraps(body)
    def measured(c: Context, *args: object, **kwargs: object) -> None:
        start, project = next(_STARTS), here()

        def record(exit_code: int) -> None:
            metrics.record(host, name, project, monotonic() - start, exit_code)

        is_patient = bool(kwargs.pop("wait", True))
        host = replace(_host(c, name, kwargs), is_patient=is_patient, before_exec=lambda: record(0))
        exit_code = VagrantpError.exit_code  # if an unforeseen error ends it
        try:
            with _exits(replace(host, log=instances.log(id_from(project)))):
                body(host, *args, **kwargs)
                sys.stdout.flush()
            exit_code = 0
        except Exit as end:
            exit_code = end.code
            raise
        finally:
            record(exit_code)

    return task(measured, auto_shortflags=False)


def chore(body: Callable[..., None]) -> Callable[..., None]:
    """Make a task of a function about this host and no project: like a verb, but not measured."""

    @wraps(body)
    def guarded(c: Context, *args: object, **kwargs: object) -> None:
        host = _host(c, body.__name__, kwargs)
        with _exits(replace(host, log=instances.log("vagrantp"))):
            body(host, *args, **kwargs)
            sys.stdout.flush()

    return task(guarded, auto_shortflags=False)


def not_built(what: str) -> ConfigError:
    """Return the error for a verb or an option that is decided and not built."""
    return ConfigError(f"{what} is not supported yet", "fab --list shows the verbs")


def _host(c: Context, verb: str, options: Mapping[str, object]) -> Host:
    is_dry, is_verbose = c.config.run.dry, bool(options.get("verbose"))
    is_live = live.is_possible() and not (is_dry or is_verbose)  # these print a lot meanwhile
    usual = partial(metrics.usual, verb, here())
    return Host(c, is_dry, is_verbose, progress=Progress(is_live, usual))


def _starts() -> Iterator[float]:
    """Yield when each verb of this process began: the first one with the process itself."""
    yield monotonic() - _age()
    while True:
        yield monotonic()


def _age() -> float:
    """Return how many seconds ago this process started: that includes loading Python and fab.

    /proc knows it to a hundredth. After `exec fab ssh` it has the start of the shell: then the CPU
    time comes closest.
    """
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    age = clock_gettime(CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return age if 0 <= age < LONGEST_START else process_time()


_STARTS = _starts()


@contextmanager
def _exits(host: Host) -> Iterator[None]:
    """Turn errors, ours and the system's, into message, hint and exit code.

    The traceback of a bug goes to the log of `host`.
    """
    try:
        handle_signals()
        keep_half()
        yield
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (VagrantpError, KeyboardInterrupt, OSError) as error:
        raise Exit(_printed(error), _exit_code(error)) from None
    except Exit:  # of the verb itself: a command's own status
        raise
    except Exception as bug:
        host.note("".join(format_exception(bug)))
        if not host.dry:
            bug.add_note(f"hint: the traceback is in {host.log}")
        raise Exit(_printed(bug), VagrantpError.exit_code) from None


def _printed(error: BaseException) -> str:
    """Return an error as it is printed: its message and the notes that were added to it."""
    notes: list[str] = getattr(error, "__notes__", [])
    return as_called(escaped("\n".join([in_words(error), *(f"  {note}" for note in notes)])))


def _exit_code(error: BaseException) -> int:
    if isinstance(error, VagrantpError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return HostLimitError.exit_code if is_full else VagrantpError.exit_code


def here() -> Path:
    """Return the current folder; one that was deleted under us still names its instance."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(os.environ.get("PWD", "/"))


def accepts(host: Host, accept: bool) -> Callable[[str], bool]:
    """Return a function that asks whether what `.env` asks for is granted."""
    return lambda asked: accept or (not host.dry and agrees(f"{asked}\nGrant it?"))


def agrees(question: str) -> bool:
    """Ask on a terminal; where there is none, the answer is no."""
    if not sys.stdin.isatty():
        return False
    show(f"{question} [y/N] ", sys.stderr, end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
