"""The filter of system calls of a container, as libseccomp reads it: each rule that fits counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from vagrantp.instance.record import Instance
from vagrantp.providers.podman import walls
from vagrantp.providers.podman.seccomp import NESTED_RULES, RULES, closed, is_closed

PODMANS: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    ],
    "syscalls": [
        {"names": ["read", "clone", "clone3", "keyctl"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_NE"}],
        },
    ],
}
CALLS = {name for rule in RULES for name in rule["names"]}
MASK = 2**64 - 1
FITS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_EQ": lambda given, value, _: given == value,
    "SCMP_CMP_GT": lambda given, value, _: given > value,
    "SCMP_CMP_MASKED_EQ": lambda given, mask, wanted: given & mask == wanted,
}


def answers(profile: dict[str, Any], call: str, *arguments: int) -> list[int | None]:
    """Return the error, None for none, of every rule that fits a call, each once."""
    return [
        *dict.fromkeys(
            rule.get("errnoRet")
            for rule in profile["syscalls"]
            if call in rule["names"]
            and all(
                FITS[arg["op"]](arguments[arg["index"]] & MASK, arg["value"], arg["valueTwo"])
                for arg in rule.get("args", [])
            )
        )
    ]


EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("clone", 17), None),
        (("clone", 0x3D0F00), None),  # a thread
        (("clone", 0x10000000), EPERM),
        (("clone", 1 << 32 | 0x10000000 | 17), EPERM),
        (("clone", 0x80 | 17), None),
        (("unshare", 0x400), None),
        (("unshare", 0x80), EPERM),
        (("unshare", 0x50020000), EPERM),
        (("clone3",), ENOSYS),
        (("keyctl", 0), ENOSYS),
        (("io_uring_setup", 1), ENOSYS),
        (("socket", 1, 1, 0), None),
        (("socket", 2, 1, 0), None),
        (("socket", 2, 1, 132), EPROTONOSUPPORT),
        (("socket", 2, 1, 6 | 1 << 32), EPROTONOSUPPORT),
        (("socket", 10, 2, 58), None),
        (("socket", 16, 3, 4), None),
        (("socket", 16, 3, 12), EPROTONOSUPPORT),
        (("socket", 0, 1, 0), EAFNOSUPPORT),
        (("socket", 38, 5, 0), EAFNOSUPPORT),
        (("socket", 2 | 1 << 32, 1, 0), EAFNOSUPPORT),
        (("socket", -1, 1, 0), EAFNOSUPPORT),
        (("socketpair", 1, 1, 0), None),
        (("socketpair", 30, 1, 0), EAFNOSUPPORT),
    ],
)
def test_a_call(call: tuple[str, *tuple[int, ...]], expected: int | None) -> None:
    assert answers(closed(PODMANS), *call) == [expected]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("clone", 0x10000000), None),
        (("unshare", 0x50020000), None),
        (("setns", 3, 0), None),
        (("sethostname",), None),
        (("clone3",), ENOSYS),
        (("keyctl", 0), ENOSYS),
        (("io_uring_setup", 1), ENOSYS),
        (("socket", 16, 3, 12), EPROTONOSUPPORT),
        (("socket", 40, 1, 0), EAFNOSUPPORT),
    ],
)
def test_a_call_where_containers_may_be_made(
    call: tuple[str, *tuple[int, ...]], expected: int | None
) -> None:
    assert answers(closed(PODMANS, is_nested=True), *call) == [expected]


@pytest.mark.parametrize("is_nested", [False, True])
def test_no_call_has_two_answers(is_nested: bool) -> None:
    made = closed(PODMANS, is_nested)
    for family, protocol in product(range(20), range(62)):
        assert len(answers(made, "socket", family, 1, protocol)) == 1
    for call, bit in product(("clone", "unshare"), range(64)):
        assert len(answers(made, call, 1 << bit)) == 1


def test_each_argument_is_tested_once() -> None:
    """The OCI runtimes make a rule each of several tests of one argument."""
    for rule in (*RULES, *NESTED_RULES):
        at = [arg["index"] for arg in rule["args"]]
        assert len(at) == len({*at})


def test_the_rest_is_podmans() -> None:
    made = closed(PODMANS)
    assert made["syscalls"][:2] == [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ]
    native = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}]
    assert made == {**PODMANS, "archMap": native, "syscalls": made["syscalls"]}
    assert not CALLS.intersection(name for rule in made["syscalls"][:2] for name in rule["names"])
    assert closed(made) == made


def test_a_rule_of_an_older_profile_names_one_call() -> None:
    rules: list[dict[str, Any]] = [
        {"name": name, "action": "SCMP_ACT_ALLOW"} for name in ("read", "keyctl")
    ]
    rules.append({"names": None, "name": "write", "action": "SCMP_ACT_ALLOW"})
    made = closed({**PODMANS, "syscalls": rules})
    allowed = [{"names": [name], "action": "SCMP_ACT_ALLOW"} for name in ("read", "write")]
    assert made["syscalls"] == [*allowed, *RULES]
    assert is_closed(made)


def _in_force() -> dict[str, Any]:
    """Return what an OCI runtime is given of it."""
    given = {k: v for k, v in closed(PODMANS).items() if k != "archMap"}
    return {**given, "architectures": ["SCMP_ARCH_X86_64"]}


def test_what_is_in_force() -> None:
    given = _in_force()
    assert is_closed(given)
    assert is_closed(closed(PODMANS))
    assert not is_closed({})
    assert not is_closed(PODMANS)
    assert not is_closed({**given, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]})
    assert not is_closed({**given, "syscalls": given["syscalls"][:-1]})
    assert not is_closed(given, is_nested=True)
    assert is_closed(closed(PODMANS, is_nested=True), is_nested=True)
    assert not is_closed(closed(PODMANS, is_nested=True))
    older = {**given, "syscalls": [*given["syscalls"], {"name": "keyctl", "action": "ALLOW"}]}
    assert not is_closed(older)
    more = {"names": ["read", "keyctl"], "action": "SCMP_ACT_ALLOW"}
    assert not is_closed({**given, "syscalls": [*given["syscalls"], more]})


def test_only_a_container_that_was_given_a_filter_promises_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    instance = Instance("app", "0a1b2c3d", tmp_path, "container")
    assert walls.check(instance, "", "").outcome == "not enforced"
    instance.state_dir.mkdir(parents=True)
    instance.seccomp.write_text(json.dumps(PODMANS))
    assert walls.check(instance, "", "").outcome == "not enforced"
    instance.seccomp.write_text(json.dumps(closed(PODMANS)))
    assert walls.check(instance, "", "").outcome == "FAILED"
