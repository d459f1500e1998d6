"""Everything that can go wrong, with the exit code it ends in.

docs/exit-codes.md has the first line of each docstring; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from vagrantp.core.urls import redacted


class VagrantpError(Exception):
    """Base of all our errors.

    `message` says what happened; `hint`, where there is one, what to do about it. Passwords in
    URLs are hidden in both.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = redacted(message)
        self.hint = hint and redacted(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ConfigError(VagrantpError):
    """`.env` missing, unreadable or invalid; a verb not supported yet; a play not for the guest.

    The message holds every problem, one a line.
    """

    exit_code = 2


class NameTakenError(VagrantpError):
    """A foreign VM or container, or another user's, holds the name."""

    exit_code = 3


class HostLimitError(VagrantpError):
    """The host lacks memory, disk or a limit it cannot enforce."""

    exit_code = 4


class ProviderError(VagrantpError):
    """A tool or provider is missing, stopped, refuses or fails."""

    exit_code = 5


class UnansweredError(ProviderError):
    """A program did not finish in time. It would not answer further questions either."""


class FloodError(ProviderError):
    """A program printed more than it may."""


class KvmError(ProviderError):
    """KVM does not start a VM, or fails under one that runs."""


class ConflictError(VagrantpError):
    """Port, address or bridge conflict."""

    exit_code = 6


class ProvisionError(VagrantpError):
    """Provisioning failed.

    The message names the play, task or script line.
    """

    exit_code = 7


class StateError(VagrantpError):
    """Wrong state: `ssh` when stopped, `rm` of a running one, a smaller `DISK`, busy, not granted.

    Also `init` over a `.env`, a change that needs a new instance, an instance that others removed,
    a state folder that is not private.
    """

    exit_code = 8


class PromiseError(VagrantpError):
    """`verify` found a broken promise."""

    exit_code = 9


class Interrupted(VagrantpError):
    """Interrupted."""

    exit_code = 130


def in_words(error: BaseException) -> str:
    """Return an error's message, whether it is ours, the system's, an interrupt or a bug."""
    if isinstance(error, VagrantpError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError):
        return (f"{error.filename}: " if error.filename else "") + (error.strerror or str(error))
    frame = extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return redacted(f"a bug in vagrantp, at {where}: {type(error).__name__}: {error}")


@contextmanager
def cleaning_up_after(first: BaseException) -> Iterator[None]:
    """Keep `first` as the error: a block that cleans up after it, and fails, adds a note to it."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as failure:
        first.add_note(f"cleaning up failed, too: {in_words(failure).splitlines()[0]}")


@contextmanager
def cleaned_up_by(clean_up: Callable[[], object]) -> Iterator[None]:
    """Call `clean_up` at the end of a block; where the block fails, its error stays the error."""
    try:
        yield
    except BaseException as first:
        with cleaning_up_after(first):
            clean_up()
        raise
    clean_up()
