"""Settings as JSON and as text, of this version and of older ones, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from vagrantp.core.urls import redacted
from vagrantp.settings.keys import KEYS, Settings
from vagrantp.settings.parsers import quoted


def _address(text: str) -> object:
    return ip_interface(text) if "/" in text else ip_address(text)


_kinds = cache(get_type_hints)
_PARSERS: dict[Any, Any] = {Path: Path, IPv4Address: _address, IPv4Network: ip_network}


def as_json(settings: Settings) -> dict[str, Any]:
    """Return the settings as machine.json has them: addresses as text."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return document


def from_json(values: Mapping[str, Any]) -> Settings:
    """Return the settings of a machine.json, of this version or an older one.

    A key that it lacks is what the versions without it did: `before` of the key, else its default.
    Where it does not say what was written, that is what differs from this; where it does not say
    what is in `.env`, that stays None. Raises ValueError, TypeError or LookupError for values that
    no version has written.
    """
    kinds = _kinds(Settings)
    absent = _absent(values["infra_type"])
    found = {name: _typed(kinds[name], values[name]) for name in kinds if name in values}
    if "written" not in found:
        names = {key.field for key in KEYS.values()} & found.keys()
        found["written"] = tuple(sorted(n for n in names if found[n] != absent.get(n)))
    return Settings(**{**absent, **found})


@cache
def _absent(infra_type: str) -> dict[str, Any]:
    """Return what each key that is not required is where a record lacks it, by field."""
    keys = [key for key in KEYS.values() if not key.is_required]
    keys.sort(key=lambda key: key.infra_type == infra_type)  # last, of BOX and IMAGE
    return {key.field: key.of(key.default if key.before is None else key.before) for key in keys}


def _typed(kind: Any, value: Any) -> Any:  # noqa: ANN401
    """Return a value of JSON as the type that Settings has. `kind`: that type's annotation."""
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is tuple:
        return tuple(_typed(get_args(kind)[0], item) for item in value)
    if kind in _PARSERS:
        return _PARSERS[kind](value)
    if is_dataclass(kind):
        make = cast("type", kind)
        kinds = _kinds(make)
        return make(**{name: _typed(kinds[name], item) for name, item in value.items()})
    if value not in get_args(kind) if get_origin(kind) is Literal else not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind}")
    return value


def as_written(value: object) -> str:
    """Return a setting as `.env` has it, but for a URL's password; "nothing" for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = ",".join(quoted(one) if isinstance(one, str) else str(one) for one in value)
    return "nothing" if value in (None, "") else redacted(str(value))


def differences(old: Settings, settings: Settings) -> list[tuple[str, str, str]]:
    """Return each key whose value is not that of `old`, then both values as written."""
    of_type = [key for key in KEYS.values() if key.infra_type in (None, settings.infra_type)]
    names = {key.field: key.name for key in of_type} | {"hostname": "HOSTNAME"}
    pairs = [(name, getattr(old, field), getattr(settings, field)) for field, name in names.items()]
    return [
        (name, as_written(was), as_written(now))
        for name, was, now in pairs
        if (was or None) != (now or None)
    ]


def kept(old: Settings | None, settings: Settings) -> Settings:
    """Return what `settings` ask of an instance that has `old`: what was never written, it keeps.

    So a default that changes from one version to the next changes no instance.
    """
    if old is None or old.infra_type != settings.infra_type:
        return settings
    unwritten = {key.field for key in KEYS.values() if key.is_kept}
    unwritten -= {*old.written, *settings.written}
    return replace(settings, **{name: getattr(old, name) for name in unwritten})
