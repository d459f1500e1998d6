"""The filter of system calls of a container: Podman's own, and less. Pure.

docs/adr/0027-a-containers-system-calls.md and 0033-containers-in-a-container.md have the reasons.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT
from typing import Any

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
EQUAL, GREATER, MASKED = "SCMP_CMP_EQ", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"

# Programs do without these. Whether clone3 makes a namespace no filter can see: the flags are in
# memory. socketcall(2) would go round the rules on sockets.
UNKNOWN = (
    *("clone3", "socketcall", "add_key", "keyctl", "request_key"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
)
NAMESPACES = {  # linux/sched.h; a bit of 0x80 is part of the signal where clone(2) is asked
    "clone": (0x20000, *(1 << bit for bit in range(25, 31))),
    "unshare": (0x80, 0x20000, *(1 << bit for bit in range(25, 31))),
}
# What NESTED=yes needs besides: Podman's own profile allows it by capabilities of the container.
IN_NAMESPACES = ("setns", "sethostname", "setdomainname")
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4  # what ip(8) and ss(8) ask; linux/netlink.h
SOCKETS: dict[int, tuple[int, ...]] = {  # families, and the protocols of each
    socket.AF_UNIX: (0,),
    socket.AF_INET: (0, socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP),
    socket.AF_INET6: (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6),
    socket.AF_NETLINK: (NETLINK_ROUTE, NETLINK_SOCK_DIAG),
}

Test = tuple[int, str, int, int]  # argument, operator, value, second value
Rule = dict[str, Any]


def _rule(call: str, error: int | None, *tests: Test) -> Rule:
    """Return a rule: `call`, where all tests hold, is allowed or ends in `error`.

    At most one test an argument: of several the OCI runtimes make as many rules.
    """
    names = ("index", "op", "value", "valueTwo")
    args = [dict(zip(names, test, strict=True)) for test in tests]
    rule: Rule = {"names": [call], "args": args}
    return (
        {**rule, "action": ALLOW} if error is None else rule | {"action": REFUSE, "errnoRet": error}
    )


def _others(call: str, at: int, allowed: Iterable[int], error: int, *given: Test) -> Iterator[Rule]:
    """Return rules that end `call` in `error` for each number at argument `at` but those."""
    top = max(allowed)
    for number in sorted({*range(top)} - {*allowed}):
        yield _rule(call, error, *given, (at, EQUAL, number, 0))
    yield _rule(call, error, *given, (at, GREATER, top, 0))


def _rules(is_nested: bool) -> Iterator[Rule]:
    for call in UNKNOWN:
        yield _rule(call, ENOSYS)
    for call, flags in NAMESPACES.items():
        if not is_nested:
            yield _rule(call, None, (0, MASKED, sum(flags), 0))
        for flag in flags if not is_nested else ():
            yield _rule(call, EPERM, (0, MASKED, flag, flag))
    for call in (*NAMESPACES, *IN_NAMESPACES) if is_nested else ():
        yield _rule(call, None)
    for family, protocols in SOCKETS.items():
        of_family = (0, EQUAL, family, 0)
        for protocol in protocols:
            yield _rule("socket", None, of_family, (2, EQUAL, protocol, 0))
        yield from _others("socket", 2, protocols, EPROTONOSUPPORT, of_family)
    yield from _others("socket", 0, SOCKETS, EAFNOSUPPORT)
    yield _rule("socketpair", None, (0, EQUAL, socket.AF_UNIX, 0))
    yield from _others("socketpair", 0, (socket.AF_UNIX,), EAFNOSUPPORT)


RULES = [*_rules(is_nested=False)]
NESTED_RULES = [*_rules(is_nested=True)]


def rules(is_nested: bool) -> list[Rule]:
    """Return our rules. `is_nested`: NESTED=yes, which lets containers be made in the container."""
    return NESTED_RULES if is_nested else RULES


def _names(rule: Rule) -> list[str]:
    """Return which calls a rule of a profile is for. Older profiles name one, by another word."""
    own = [rule["name"]] if rule.get("name") else []
    return [*(rule.get("names") or []), *own]


def _calls(ours: list[Rule]) -> set[str]:
    return {name for rule in ours for name in rule["names"]}


def closed(profile: dict[str, Any], is_nested: bool = False) -> dict[str, Any]:
    """Return a profile of Podman's with our rules, for the processor's own system calls only."""
    ours = rules(is_nested)
    calls = _calls(ours)
    theirs = [
        {**{key: value for key, value in rule.items() if key != "name"}, "names": names}
        for rule in profile["syscalls"]
        if (names := [name for name in _names(rule) if name not in calls])
    ]
    native = [{**each, "subArchitectures": []} for each in profile.get("archMap") or []]
    return {**profile, "archMap": native, "syscalls": [*theirs, *ours]}


def is_closed(filters: dict[str, Any], is_nested: bool = False) -> bool:
    """Say whether a profile, or `linux.seccomp` of an OCI configuration, has our rules and no other
    for their calls, and the calls of one kind of processor only."""
    ours = rules(is_nested)
    calls = _calls(ours)
    found = [rule for rule in filters.get("syscalls") or [] if calls.intersection(_names(rule))]
    others = [each.get("subArchitectures") for each in filters.get("archMap") or []]
    kinds = filters.get("architectures") or []
    return _plain(found) == _plain(ours) and not any(others) and len(kinds) < 2


def _plain(found: list[Rule]) -> set[tuple[object, ...]]:
    """Return rules as they compare, one a call, without what is left out or written as 0."""
    return {
        (
            name,
            rule["action"],
            rule.get("errnoRet"),
            *(
                (arg["index"], arg["op"], arg["value"], arg.get("valueTwo", 0))
                for arg in rule.get("args") or []
            ),
        )
        for rule in found
        for name in _names(rule)
    }
