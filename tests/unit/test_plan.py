"""What every verb does in every state, for every kind of change: instance/plan.py as a table."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from vagrantp.instance.drift import Change
from vagrantp.instance.found import Found, State
from vagrantp.instance.plan import (
    Apply,
    Confirm,
    Do,
    Provision,
    Record,
    Refuse,
    Remove,
    Start,
    Step,
    Stop,
    Want,
    Wanted,
    WantGone,
    WantStopped,
    WantUp,
    decide,
)
from vagrantp.instance.record import Instance

NAME, UID = "app-0a1b2c3d", 1000
KINDS = ("vm", "container")
LOST = "its state folder with the keys is gone"
GONE = "Podman no longer has it"
UNFINISHED = "it was never made in full"


def found(state: str, kind: str = "vm") -> Found:
    """Return an instance in a state, as find.py and found.judged make it."""
    instance = Instance("app", "0a1b2c3d", Path("/app"), "" if state == "absent" else kind)
    live: dict[str, State] = {"running": "running", "paused": "paused", "stopped": "stopped"}
    if state in live:
        return Found(instance, live[state], UID, live=live[state])
    if state == "absent":
        return Found(instance, "absent", UID)
    if state == "lost":
        return Found(instance, "broken", UID, GONE, is_lost=True)
    if state == "unfinished":
        return Found(instance, "broken", UID, UNFINISHED, live="stopped", is_unfinished=True)
    is_now: State = "running" if state == "broken, running" else "stopped"
    if state == "broken, paused":
        is_now = "paused"
    return Found(instance, "broken", UID, LOST, live=is_now)


# Every state; another user's instance, and what is not vagrantp's, is absent for this user.
STATES = (
    *("absent", "lost", "unfinished", "stopped", "running", "paused"),
    *("broken", "broken, running", "broken, paused"),
)
NO_INSTANCE = Refuse("there is no instance for /app", "fab up makes it")
BROKEN = Refuse(f"{NAME} is broken: {LOST}", "fab rm, then fab up")
IS_LOST = Refuse(f"{NAME} is lost: {GONE}", "fab rm, then fab up")
HALF_MADE = Refuse(f"{NAME} is broken: {UNFINISHED}", "fab rm, then fab up")
NOT_RUNNING = Refuse(f"{NAME} is not running", "fab up starts it")
PAUSED = Refuse(f"{NAME} is paused", "fab up resumes it")
REFUSED = {
    "absent": NO_INSTANCE,
    "lost": IS_LOST,
    "unfinished": HALF_MADE,
    "stopped": NOT_RUNNING,
    "paused": PAUSED,
    "broken": BROKEN,
    "broken, running": BROKEN,
    "broken, paused": BROKEN,
}


def change(key: str, applies: str = "at once") -> Change:
    """Return that a key has changed."""
    return Change(key.upper(), "old", "new", applies)  # type: ignore[arg-type]


LAN = change("lan_access")
PORTS = change("ports")
DISK = change("disk")
SCRIPT = change("provision_script")
MEMORY = change("memory", "at the next start")
ADDRESS = change("fixed_ip", "at the next start")
KEPT = (change("protect", "at the next start"), change("hide", "at the next start"))
IMAGE = change("box", "to a new instance")
SMALLER = change("disk", "to a new instance")

CREATE = (Do.REMOVE_LEFTOVERS, Do.CHECK_PLAYBOOKS, Do.CREATE, Provision("once"))
REMOVE_IT = Remove(f"{NAME} is broken: {UNFINISHED}; making it again")
UNLESS_RM = "these need a new instance: fab rm, then fab up; or take the change back"
NEW_IMAGE = Refuse(f"{NAME} was made with other settings:\n  BOX: old → new", UNLESS_RM)
SHRUNK = Refuse(
    f"{NAME} was made with other settings:\n"
    "  DISK: old → new (a disk grows, and never shrinks)\n"
    "  BOX: old → new",
    UNLESS_RM,
)
Row = tuple[str, str, tuple[Change, ...], tuple[Step, ...]]
UP: list[Row] = [
    # state, kind, changes, steps
    *[("absent", kind, (), CREATE) for kind in KINDS],
    *[("lost", kind, changes, (IS_LOST,)) for kind in KINDS for changes in ((), (LAN, IMAGE))],
    *[("unfinished", kind, (), (REMOVE_IT, *CREATE)) for kind in KINDS],
    # what needs a new instance is no matter where there will be one
    ("absent", "vm", (IMAGE,), CREATE),
    ("unfinished", "vm", (IMAGE,), (REMOVE_IT, *CREATE)),
    *[
        (state, kind, changes, (BROKEN,))
        for state in ("broken", "broken, running", "broken, paused")
        for kind in KINDS
        for changes in ((), (LAN,), (IMAGE,))
    ],
    *[
        (state, kind, changes, (refused,))
        for state in ("stopped", "running", "paused")
        for kind in KINDS
        for changes, refused in (
            ((IMAGE,), NEW_IMAGE),
            ((LAN, MEMORY, IMAGE), NEW_IMAGE),
            ((SMALLER, IMAGE), SHRUNK),
        )
    ],
    *[
        ("stopped", kind, changes, (Do.ADOPT, start, Provision("once")))
        for kind in KINDS
        for changes, start in (
            ((), Start()),
            ((LAN,), Start((LAN,))),
            ((PORTS, ADDRESS), Start((PORTS, ADDRESS))),
            (KEPT, Start(KEPT)),  # guard reads them from the metadata
            ((DISK,), Start((DISK,), resizes=True)),
            ((MEMORY,), Start((MEMORY,), by_vagrant=kind == "vm")),
            ((DISK, MEMORY), Start((DISK, MEMORY), resizes=True, by_vagrant=kind == "vm")),
        )
    ],
    *[
        (state, kind, changes, (Do.ADOPT, *resume, apply, Provision("once")))
        for state, resume in (("running", ()), ("paused", (Do.RESUME,)))
        for kind in KINDS
        for changes, apply in (
            ((), Apply()),
            ((LAN,), Apply((LAN,))),
            ((MEMORY,), Apply((MEMORY,))),
            ((ADDRESS,), Apply((ADDRESS,))),
            ((DISK,), Apply((DISK,), resizes=True)),
            ((PORTS,), Apply((PORTS,), forwards=True)),
            (
                (MEMORY, LAN, DISK, PORTS),
                Apply((MEMORY, LAN, DISK, PORTS), resizes=True, forwards=True),
            ),
        )
    ],
]


@pytest.mark.parametrize(("state", "kind", "changes", "steps"), UP)
def test_up(state: str, kind: str, changes: tuple[Change, ...], steps: tuple[Step, ...]) -> None:
    assert decide(found(state, kind), changes, WantUp()) == steps


def test_up_has_a_row_for_every_state_and_kind() -> None:
    assert {(state, kind) for state, kind, _, _ in UP} == {(s, k) for s in STATES for k in KINDS}


def test_what_a_running_one_can_have_now() -> None:
    assert Apply((MEMORY, LAN, DISK, ADDRESS, PORTS)).now == (LAN, DISK, PORTS)


@pytest.mark.parametrize("when", ["once", "always", "never"])
@pytest.mark.parametrize("state", ["absent", "unfinished", "stopped", "running", "paused"])
def test_up_provisions_at_the_end_as_it_was_asked(state: str, when: str) -> None:
    steps = decide(found(state), (), WantUp(when))  # type: ignore[arg-type]
    assert steps[-1] == Provision(when)  # type: ignore[arg-type]
    is_made = state in ("absent", "unfinished")
    assert (Do.CHECK_PLAYBOOKS in steps) == (is_made and when != "never")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("changes", [(), (LAN,), (MEMORY,), (IMAGE,)])
def test_ssh_and_provision(state: str, kind: str, changes: tuple[Change, ...]) -> None:
    one = found(state, kind)
    refused = REFUSED.get(state)
    assert decide(one, changes, Want.LOGIN) == (refused or Do.LOGIN,)
    expected = (refused,) if refused else (Record(()), Provision("always"))
    assert decide(one, changes, Want.PROVISIONED) == expected


def test_provision_writes_down_what_it_goes_by_and_nothing_else() -> None:
    steps = decide(found("running"), (LAN, SCRIPT, MEMORY), Want.PROVISIONED)
    assert steps == (Record((SCRIPT,)), Provision("always"))


STOP: dict[tuple[str, str], tuple[Step, ...]] = {
    **{("absent", kind): (NO_INSTANCE,) for kind in KINDS},
    **{("lost", kind): (IS_LOST,) for kind in KINDS},
    **{(state, kind): () for state in ("unfinished", "stopped", "broken") for kind in KINDS},
    **{(s, k): (Stop(False),) for s in ("running", "broken, running") for k in KINDS},
    **{(s, k): (Do.RESUME, Stop(False)) for s in ("paused", "broken, paused") for k in KINDS},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", STATES)
def test_stop(state: str, kind: str) -> None:
    one = found(state, kind)
    assert decide(one, (LAN, IMAGE), WantStopped()) == STOP[state, kind]
    forced = tuple(Stop(True) if step == Stop(False) else step for step in STOP[state, kind])
    if kind == "vm":  # whose plug can be pulled all the same
        forced = tuple(step for step in forced if step != Do.RESUME)
    assert decide(one, (), WantStopped(force=True)) == forced


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("state", "steps"),
    [
        ("absent", ()),
        *[(state, (Remove(),)) for state in ("lost", "unfinished", "stopped", "broken")],
        *[
            (state, (Confirm(f"{NAME} is {is_now}"), Remove()))
            for state, is_now in (
                ("running", "running"),
                ("paused", "paused"),
                ("broken, running", "running"),
                ("broken, paused", "paused"),
            )
        ],
    ],
)
def test_rm(state: str, kind: str, steps: tuple[Step, ...]) -> None:
    one = found(state, kind)
    assert decide(one, (IMAGE,), WantGone()) == steps
    assert decide(one, (IMAGE,), WantGone(force=True)) == steps[-1:]


def test_nothing_is_taken_after_a_refusal() -> None:
    wanted: list[Wanted] = [WantUp(), Want.LOGIN, WantStopped(), WantGone(), Want.PROVISIONED]
    assert {type(one) for one in wanted} == {*get_args(Wanted)}
    for state in STATES:
        for want in wanted:
            for changes in ((), (LAN,), (MEMORY,), (IMAGE,)):
                steps = decide(found(state), changes, want)
                assert not any(isinstance(step, Refuse) for step in steps[:-1])
