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
from traceback import extract_tb

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from vagrantp.core import live, metrics
from vagrantp.core.errors import ConfigError, HostLimitError, Interrupted, VagrantpError
from vagrantp.core.progress import Progress
from vagrantp.core.system import Host, handle_signals

LONGEST_START = 5.0  # seconds from the start of the process to that of its first verb


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Make a task of a function: it gets a Host in place of fab's context, and is measured.

    fab's own --dry holds the Host's changes back; --verbose is the function's to have.
    """

    name = body.__name__.replace("_", "-")  # as fab calls it

    @wraps(body)
    def measured(c: Context, *args: object, **kwargs: object) -> None:
        start, project = next(_STARTS), here()

        def record(exit_code: int) -> None:
            metrics.record(host, name, project, monotonic() - start, exit_code)

        is_patient = bool(kwargs.pop("wait", True))
        host = replace(_host(c, name, kwargs), is_patient=is_patient, before_exec=lambda: record(0))
        exit_code = VagrantpError.exit_code  # of what nobody foresaw
        try:
            with _exits():
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
        with _exits():
            body(_host(c, body.__name__, kwargs), *args, **kwargs)
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
    """Return how many seconds ago this process started, Python and fab among what it did since.

    /proc knows it to a hundredth. With `exec fab ssh` it has the start of the shell: then the CPU
    time comes nearest.
    """
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    age = clock_gettime(CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return age if 0 <= age < LONGEST_START else process_time()


_STARTS = _starts()


@contextmanager
def _exits() -> Iterator[None]:
    """Make our errors, and those of the system, message, hint and exit code."""
    try:
        handle_signals()
        yield
    except VagrantpError as error:
        raise Exit(str(error), error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted", Interrupted.exit_code) from None
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        place = f"{error.filename}: " if error.filename else ""
        code = HostLimitError.exit_code if is_full else VagrantpError.exit_code
        raise Exit(f"{place}{error.strerror or error}", code) from None
    except Exception as bug:
        frame = extract_tb(bug.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        text = f"a bug of vagrantp, at {where}: {type(bug).__name__}: {bug}"
        raise Exit(text, VagrantpError.exit_code) from None


def here() -> Path:
    """Return the current folder; one that was deleted under us still names its instance."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(os.environ.get("PWD", "/"))


def is_sure(force: bool) -> Callable[[str], bool]:
    """Return the question whether a running instance may be removed."""
    return lambda name: force or agrees(f"{name} is running. Remove it and its disk?")


def accepts(accept: bool) -> Callable[[str], bool]:
    """Return the question whether what a guest may have changed is to be used."""
    return lambda changed: accept or agrees(f"{changed}\nUse it as it is now?")


def agrees(question: str) -> bool:
    """Ask on a terminal; where there is none, the answer is no."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
