"""What every verb has in common: the one place that catches errors, and how a Host is made."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from vagrantp.errors import HostLimitError, Interrupted, VagrantpError
from vagrantp.run import Host, handle_signals


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Make a task of a function: our errors become message, hint and exit code."""

    @wraps(body)
    def guarded(c: Context, *args: object, **kwargs: object) -> None:
        try:
            handle_signals()
            body(c, *args, **kwargs)
            sys.stdout.flush()
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

    return task(guarded, auto_shortflags=False)


def host_for(c: Context, verbose: bool) -> Host:
    """Return this host for a verb; fab's own --dry holds its changes back."""
    return Host(c, dry=c.config.run.dry, verbose=verbose)


def is_sure(force: bool) -> Callable[[str], bool]:
    """Return the question whether a running instance may be removed."""

    def ask(name: str) -> bool:
        if force or not sys.stdin.isatty():
            return force
        print(f"{name} is running. Remove it and its disk? [y/N] ", end="", file=sys.stderr)
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask
