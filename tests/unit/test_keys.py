"""No key is known and ignored: something applies it, and `verify` proves it or says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from vagrantp.settings.keys import KEYS, NOT_BUILT
from vagrantp.settings.schema import Key

LIB = Path(__file__).resolve().parents[2] / "lib/vagrantp"
# What makes instances out of settings, and looks at those that there are.
APPLIERS = (
    "providers",
    "guest",
    "net",
    "verbs",
    *(f"instance/{name}.py" for name in ("guard", "network", "seed", "ssh")),
)
PROVERS = ("providers", "guest", "net", "verbs")
ONLY_SHOW = ("status.py",)
EVERY = pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)


def nodes(places: tuple[str, ...]) -> Iterator[ast.AST]:
    """Yield all of the code in some files and folders."""
    for place in places:
        path = LIB / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            if file.name not in ONLY_SHOW:
                yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


@cache
def applied() -> set[str]:
    """Return the fields of `settings` that are read where instances are made."""
    return {
        node.attr
        for node in nodes(APPLIERS)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "settings"
    }


@cache
def proven() -> set[str]:
    """Return the names of checks, as far as they are written down."""
    found = set()
    for node in nodes(PROVERS):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("Check", "compare")):
            continue
        name = node.args[0]
        start = name.values[0] if isinstance(name, ast.JoinedStr) else name
        if isinstance(start, ast.Constant):
            found.add(str(start.value))
    return found


@EVERY
def test_every_key_is_applied(key: Key) -> None:
    assert key.field in applied(), f"nothing that makes instances reads settings.{key.field}"


@EVERY
def test_every_key_is_verified_or_says_why_not(key: Key) -> None:
    assert bool(key.verified) != bool(key.unverified)
    assert not key.verified or key.verified in proven(), f"verify has no check {key.verified!r}"


def test_every_key_that_is_decided_is_known() -> None:
    assert {*KEYS, *NOT_BUILT} >= {
        *("ACCEL", "AGENT", "AGENT_ENV", "AUTOSTART", "BOX", "BRIDGE", "CA_CERTS", "CLOUD_INIT"),
        *("CPUS", "DISK", "DNS", "EGRESS", "EGRESS_ALLOW", "FIXED_IP", "GATEWAY", "HIDE", "IMAGE"),
        *("IMAGE_SHA256", "INFRA_TYPE", "LAN_ACCESS", "LAN_ALLOW", "MAC", "MEMORY", "MOUNT"),
        *("NAME", "NESTED", "NETWORK_TYPE", "PORTS", "PROTECT", "PROVISION_SCRIPT"),
        *("PROVISION_VARS", "SSH_KEY", "SSH_USER"),
    }
