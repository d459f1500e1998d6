"""A key of `.env` is one record, from which everything else about it is derived."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec

from vagrantp.settings.files import Locator
from vagrantp.settings.parsers import Parser

When = Literal["at once", "at the next start", "to a new instance"]
AT_ONCE: When = "at once"
NEXT_START: When = "at the next start"
NEW: When = "to a new instance"
Applies = When | Literal["grow only"]  # at once where it is larger, else to a new instance
P = ParamSpec("P")


def always(value: object) -> bool:
    """Say that every value of a key works."""
    return True


def is_no(part: object) -> bool:
    """Say whether a part of a value is `no`."""
    return part is False


@dataclass(frozen=True)
class Grant:
    """What the values of a key give a guest beyond a plain one, which a person has to grant.

    - `lets`: what that is, for a person; by value, where they differ
    - `is_plain`: of a part of a typed value (an item of a list), whether it gives nothing
    - `covers`: of two parts as text, whether the first gives all that the second does
    - `within`: another key, of whose granted parts `covers` is asked as well
    - `by_bridge`: only with NETWORK_TYPE=bridge; `by_mount`: only with one of these in MOUNT
    - `only_wider`: only where an instance, or one before it, had less
    - `as_a_whole`: the value is one part, and asks where `.env` does not have the key, too
    """

    lets: str | Mapping[str, str]
    is_plain: Callable[[Any], bool] = is_no
    covers: Callable[[str, str], bool] = operator.eq
    within: str = ""
    by_bridge: bool = False
    by_mount: Collection[str] = ()
    only_wider: bool = False
    as_a_whole: bool = False


@dataclass(frozen=True)
class Key:
    """One key of `.env`.

    - `name`, `field`: in `.env`, and in Settings
    - `value`: what may be written; `doc`: what it does; `example`: a value that is sound
    - `hint`: what an error ends with; else, that the example is one
    - `default`: the raw text that it has when it is not written; `otherwise`: in words, what holds
      then; `nothing`: what Settings has then, where there is no default
    - `before`: the raw text of what an instance has whose version did not know the key, or had
      another default
    - `is_kept`: where it is written nowhere, an instance keeps what it has
    - `in_project`: its paths are in the project's folder, in `defaults.env`, too
    - `infra_type`: the one type that it makes sense for
    - `applies`: when a change applies; by type, where they differ
    - `aliases`: what other tools call it
    - `verified`: the start of the name of the check of `verify` that proves it; `unverified`: why
      there is none
    - `grant`: what a person has to grant of it
    - `is_built`: of a typed value, whether this version can honour it; `so_far`: which ones it can
    """

    value: str
    doc: str
    example: str
    parse: Parser
    hint: str = ""
    locate: Locator | None = None
    default: str | None = None
    before: str | None = None
    is_kept: bool = True
    in_project: bool = False
    otherwise: str = ""
    is_required: bool = False
    infra_type: str | None = None
    applies: Applies | Mapping[str, Applies] = "to a new instance"
    aliases: tuple[str, ...] = ()
    verified: str = ""
    unverified: str = ""
    grant: Grant | None = None
    is_built: Callable[[Any], bool] = always
    so_far: str = ""
    name: str = ""
    field: str = ""
    nothing: Any = None

    def of(self, raw: str | None) -> Any:  # noqa: ANN401
        """Return the typed value of a text that is known to be sound, None for no text."""
        return self.nothing if raw is None else self.parse(raw)

    def applies_to(self, infra_type: str) -> Applies:
        """Return when a changed value applies to instances of a type."""
        return self.applies if isinstance(self.applies, str) else self.applies[infra_type]


def either(*keys: Key) -> Any:  # noqa: ANN401
    """Return a field of Settings that one of several keys fills, each of another type."""
    return field(metadata={"keys": keys})


def _filling(make: Callable[P, Key]) -> Callable[P, Any]:
    def key(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401
        return either(make(*args, **kwargs))

    return key


key = _filling(Key)  # a field of Settings, and the key that fills it
