"""What a verb does to an instance: from the state that it is in to the one that is wanted.

Pure, so that a table can have a row for every state, change and verb (tests/unit/test_plan.py).
The steps are taken by verbs/steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from vagrantp.instance.drift import AT_START, PROVISIONING, Change
from vagrantp.instance.found import UP, Found

When = Literal["once", "always", "never"]  # once: unless the guest says that it was done
Changes = tuple[Change, ...]
NEEDS_UP = {"paused": "fab up resumes it", "stopped": "fab up starts it"}


# What a verb wants.


@dataclass(frozen=True)
class WantUp:
    """An instance that runs as `.env` has it."""

    provisioning: When = "once"


@dataclass(frozen=True)
class WantStopped:
    """One that does not run. `force`: at once."""

    force: bool = False


@dataclass(frozen=True)
class WantGone:
    """None, and nothing that was made for it. `force`: even if it is in use."""

    force: bool = False


class Want(Enum):
    """A state that takes no parameters."""

    LOGIN = auto()  # a shell or a command in a running one
    PROVISIONED = auto()  # a running one, on which PROVISION_SCRIPT was run again


Wanted = WantUp | WantStopped | WantGone | Want


# How it gets there.


class Do(Enum):
    """A step without parameters."""

    REMOVE_LEFTOVERS = auto()  # of an `up` by another NAME that was killed
    CHECK_PLAYBOOKS = auto()  # find mistakes in them before anything is made for them
    CREATE = auto()  # make it from nothing, and start it
    ADOPT = auto()  # complete the records of one that an older version made
    RESUME = auto()  # let a paused one go on
    LOGIN = auto()  # leave this process to ssh


@dataclass(frozen=True)
class Refuse:
    """End in a StateError."""

    message: str
    hint: str


@dataclass(frozen=True)
class Confirm:
    """Ask whether an instance in use may be removed."""

    in_use: str


@dataclass(frozen=True)
class Remove:
    """Remove it and all that was made for it. `why`: what to say first."""

    why: str = ""


@dataclass(frozen=True)
class Start:
    """Start a stopped one with these changes. `by_vagrant`: it updates the domain."""

    changes: Changes = ()
    resizes: bool = False
    by_vagrant: bool = False


@dataclass(frozen=True)
class Apply:
    """Give a running one what it can have `now`, and what it has lost; announce all changes."""

    changes: Changes = ()
    resizes: bool = False
    forwards: bool = False  # its ports, other than before

    @property
    def now(self) -> Changes:
        """The changes that it can have while it runs."""
        return tuple(change for change in self.changes if change.applies == "at once")


@dataclass(frozen=True)
class Record:
    """Record changes that a later step applies."""

    changes: Changes


@dataclass(frozen=True)
class Provision:
    """Take the steps of PROVISION_SCRIPT in a running one."""

    when: When


@dataclass(frozen=True)
class Stop:
    """Stop a running one: gracefully, or at once."""

    force: bool


Step = Do | Refuse | Confirm | Remove | Start | Apply | Record | Provision | Stop


def decide(found: Found, changes: Sequence[Change], wanted: Wanted) -> tuple[Step, ...]:
    """Return the steps that lead from an instance as it was found to what a verb wants.

    `changes`: what `.env` asks for and it was not made with. No steps: nothing is to be done.
    """
    match wanted:
        case WantUp():
            return _to_run(found, tuple(changes), wanted.provisioning)
        case WantStopped():
            return _to_stop(found, wanted.force)
        case WantGone():
            return _to_remove(found, wanted.force)
        case Want.LOGIN:
            return _refusal(found) or (Do.LOGIN,)
        case Want.PROVISIONED:
            asked = tuple(change for change in changes if change.key.lower() in PROVISIONING)
            return _refusal(found) or (Record(asked), Provision("always"))


def _refusal(found: Found) -> tuple[Step, ...]:
    """Return the step that says why an instance cannot be used, nothing where it runs."""
    name = found.name
    if found.state == "running":
        return ()
    if found.state == "absent":
        return (Refuse(f"there is no instance for {found.instance.folder}", "fab up makes it"),)
    if found.state == "broken":
        what = "lost" if found.is_lost else "broken"
        return (Refuse(f"{name} is {what}: {found.reason}", "fab rm, then fab up"),)
    is_now = "paused" if found.state == "paused" else "not running"
    return (Refuse(f"{name} is {is_now}", NEEDS_UP[found.state]),)


def _to_run(found: Found, changes: Changes, provisioning: When) -> tuple[Step, ...]:
    check = () if provisioning == "never" else (Do.CHECK_PLAYBOOKS,)
    create = (Do.REMOVE_LEFTOVERS, *check, Do.CREATE, Provision(provisioning))
    if found.state == "absent":
        return create
    if found.state == "broken":
        if not found.is_unfinished:
            return _refusal(found)
        return Remove(f"{found.name} is broken: {found.reason}; making it again"), *create
    if fixed := [change for change in changes if change.applies == "to a new instance"]:
        return (_refusal_of(found, fixed),)
    keys = {change.key.lower() for change in changes}
    resizes = "disk" in keys
    if found.state == "stopped":
        by_vagrant = found.instance.infra_type == "vm" and bool(keys & {*AT_START})
        return Do.ADOPT, Start(changes, resizes, by_vagrant), Provision(provisioning)
    resume = (Do.RESUME,) if found.state == "paused" else ()
    return Do.ADOPT, *resume, Apply(changes, resizes, "ports" in keys), Provision(provisioning)


def _refusal_of(found: Found, changes: Sequence[Change]) -> Refuse:
    notes = {"DISK": " (a disk grows, and never shrinks)"}
    lines = [f"{change}{notes.get(change.key, '')}" for change in changes]
    return Refuse(
        f"{found.name} was made with other settings:\n  " + "\n  ".join(lines),
        "these need a new instance: fab rm, then fab up; or take the change back",
    )


def _to_stop(found: Found, force: bool) -> tuple[Step, ...]:
    if found.state == "absent" or found.is_lost:
        return _refusal(found)
    if found.live not in UP:
        return ()
    # What is frozen obeys no signal, and Podman sends it none. libvirt pulls the plug all the same.
    is_resumed = found.live == "paused" and not (force and found.instance.infra_type == "vm")
    return (Do.RESUME, Stop(force)) if is_resumed else (Stop(force),)


def _to_remove(found: Found, force: bool) -> tuple[Step, ...]:
    if found.state == "absent":
        return ()
    if found.live in UP and not force:
        return Confirm(f"{found.name} is {found.live}"), Remove()
    return (Remove(),)
