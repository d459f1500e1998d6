"""Filters for bindfs, run as the kernel runs them: seccomp(2), bpf(4)."""

from __future__ import annotations

import os
import struct

import pytest
from vagrantp_guard.seccomp import (
    CALLS,
    PROCESSORS,
    Action,
    no_setuid,
    program,
    supervised,
)
from vagrantp_guard.system import Refused

VETTED = 1000
MACHINES = sorted(CALLS)


def answer(code: bytes, machine: str, call: str, *arguments: int) -> Action:
    """Return what a filter says of a call."""
    values = [*arguments, *(0,) * (6 - len(arguments))]
    data = struct.pack("IIQ6Q", CALLS[machine][call], PROCESSORS[machine], 0, *values)
    lines, at, loaded = [*struct.iter_unpack("HBBI", code)], 0, 0
    while True:
        kind, yes, no, value = lines[at]
        match kind:
            case 0x20:
                [loaded] = struct.unpack_from("I", data, value)
            case 0x06:
                return Action(value)
            case 0x15:
                at += yes if loaded == value else no
            case 0x35:
                at += yes if loaded >= value else no
            case 0x45:
                at += yes if loaded & value else no
        at += 1


@pytest.mark.parametrize("machine", MACHINES)
def test_no_file_becomes_setuid(machine: str) -> None:
    code = program(machine, no_setuid())
    assert answer(code, machine, "fchmodat", 0, 0, 0o4755) is Action.REFUSE
    assert answer(code, machine, "fchmodat", 0, 0, 0o755) is Action.ALLOW
    assert answer(code, machine, "mknodat", 0, 0, 0o102755) is Action.REFUSE
    assert answer(code, machine, "openat", 0, 0, 0o101, 0o6755) is Action.ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("hides", [False, True])
def test_every_change_is_asked_for(machine: str, hides: bool) -> None:
    code = program(machine, supervised(VETTED, hides))
    reading = Action.NOTIFY if hides else Action.ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE):
        assert answer(code, machine, "openat", 0, 0, flags) is Action.NOTIFY
    assert answer(code, machine, "openat", 0, 0, os.O_DIRECTORY) is reading
    assert answer(code, machine, "newfstatat") is reading
    for call in {"mkdirat", "unlinkat", "renameat2", "linkat", "symlinkat", "truncate"}:
        assert answer(code, machine, call) is Action.NOTIFY
    assert answer(code, machine, "pwrite64", VETTED - 1) is Action.ALLOW
    assert answer(code, machine, "pwrite64", VETTED) is Action.NOTIFY
    assert answer(code, machine, "openat2") is Action.UNKNOWN


def test_another_processor() -> None:
    # its calls end the process
    assert struct.unpack_from("HBBI", program("x86_64", []), 16) == (0x06, 0, 0, Action.KILL)
    with pytest.raises(Refused, match="MOUNT is not known on riscv64"):
        program("riscv64", [])
