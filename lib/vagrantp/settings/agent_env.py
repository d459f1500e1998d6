"""The variables that an agent gets; their values are in a file of the person's, in no project."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Collection, Sequence

from voluptuous import All, Invalid, Schema

from vagrantp.core.documents import MAX_BYTES
from vagrantp.core.errors import ConfigError
from vagrantp.core.places import secrets_path
from vagrantp.settings import parsers
from vagrantp.settings.files import Base
from vagrantp.settings.lines import bindings, line_of
from vagrantp.settings.parsers import Parser, matching
from vagrantp.settings.schema import AT_ONCE, Grant, key

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def values(names: Sequence[str]) -> dict[str, str]:
    """Return the values of these variables. Raises ConfigError, which never shows one."""
    found = _all()
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"{secrets_path()} has no {missing[0]}", f"write {missing[0]}=… into it")
    return {name: found[name] for name in names}


def _all() -> dict[str, str]:
    """Return all variables that have a value. Raises ConfigError where the file is not sound."""
    path, found = secrets_path(), {}
    for binding in bindings(_text()):
        if binding.error:
            raise ConfigError(f"{path}:{line_of(binding)}: cannot be read as KEY=value")
        if binding.key and binding.value is not None:
            found[binding.key] = binding.value
    return found


def _text() -> str:
    """Return the text of the file. Raises ConfigError where it is not this user's alone."""
    path = secrets_path()
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid():
                hint = f"as root: chown {os.geteuid()} {shlex.quote(str(path))}"
                raise ConfigError(f"{path}: belongs to another user", hint)
            if stat.S_IMODE(found.st_mode) & 0o077:
                hint = f"chmod 600 {shlex.quote(str(path))}"
                raise ConfigError(f"{path}: others may read or write it", hint)
            data = file.read(MAX_BYTES + 1) if stat.S_ISREG(found.st_mode) else b"\0"
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if len(data) > MAX_BYTES or "\0" in text:
        raise ConfigError(f"{path}: must be a text of 1 MB at most")
    return text


def _known(_: Base, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        found = _all()
    except ConfigError as error:
        why = error.message.removeprefix(f"{secrets_path().parent}/")
        raise Invalid(f"must have its values in {why}") from None
    return tuple(Schema((_one_of(found),))(names))


def _one_of(found: Collection[str]) -> Parser:
    def validate(name: str) -> str:
        if name not in found:
            raise Invalid("must name what secrets.env has")
        return name

    return validate


AGENT_ENV = key(
    "names of variables, comma-separated",
    "what fab agent gives the agent as it starts; values are in ~/.config/vagrantp/secrets.env",
    "GITHUB_TOKEN",
    All(parsers.items, (matching(VARIABLE, "the name of a variable"),), parsers.each_once),
    locate=_known,
    hint="~/.config/vagrantp/secrets.env has lines such as GITHUB_TOKEN=…, and mode 600",
    grant=Grant("the agent in the guest gets its value from secrets.env"),
    applies=AT_ONCE,
    unverified="given to an agent as it starts, and kept nowhere",
)
