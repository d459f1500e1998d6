"""`.env`, with the host's `defaults.env` beneath it, to frozen Settings. Starts no process."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from voluptuous import All, MultipleInvalid, Schema

from vagrantp.core.documents import MAX_BYTES
from vagrantp.core.errors import ConfigError
from vagrantp.core.places import defaults_path as defaults_path
from vagrantp.core.places import id_from as id_from
from vagrantp.core.text import escaped
from vagrantp.core.urls import redacted
from vagrantp.settings import cloud_config
from vagrantp.settings.files import Base, readable
from vagrantp.settings.keys import KEYS, is_not_built
from vagrantp.settings.keys import Settings as Settings
from vagrantp.settings.lines import bindings, line_of
from vagrantp.settings.parsers import items, one_line
from vagrantp.settings.rules import conflicts, meant

MAX_SHOWN = 100  # characters of a value in a message
FOREIGN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
NAME = re.compile(r"\w+", re.ASCII)
PREFIX = "VAGRANTP_"
SHARED = (
    f"where one of these is the application's: with {PREFIX}INFRA_TYPE in the file, our keys "
    f"are those that start with {PREFIX}, and no others"
)
WITHOUT = "the keys of this file have no prefix"
UNREADABLE_HINT = "a comment starts with #, and every quote needs its other one"


@dataclass(frozen=True)
class Entry:
    """A value of one of our keys and where it was written. `name`: the key as it stands there."""

    key: str
    name: str
    raw: str
    path: Path
    file: str  # the path as it is shown
    line: int


@dataclass(frozen=True)
class Problem:
    """Something wrong, at `file:line`; line 0 stands for the file as a whole."""

    file: str
    line: int
    text: str
    hint: str | None = None
    is_warning: bool = False
    may_collide: bool = False  # with a key of the same name that somebody else reads

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}" + (f"\n  hint: {self.hint}" if self.hint else "")


def load(
    folder: Path,
    warn: Callable[[str], None] = lambda text: None,
    granted: Collection[Path] = (),
) -> Settings:
    """Read `.env` of the project `folder`; `warn` is called with what may be a mistake.

    `granted`: the real paths of files outside of it that may be opened; others are not looked into.
    Raises ConfigError with every problem of both files at once, in file order.
    """
    defaults = Read()
    if os.path.lexists(defaults_path()):
        defaults = _read(defaults_path(), str(defaults_path()))
    own = _read(folder / ".env", ".env", may_share=True)
    entries = own.entries
    problems = [*defaults.problems, *own.problems]
    is_whole = not any(problem.line == 0 for problem in problems)
    written = {entry.key: entry for entry in (*defaults.entries, *entries)}
    bases = {
        entry.key: Base(
            folder if KEYS[entry.key].in_project else entry.path.parent,
            granted if entry.file == ".env" else None,
        )
        for entry in written.values()
    }
    values, more = _values(written, bases, folder)
    problems += more
    if is_whole:  # else what is missing may well be there
        problems += [
            Problem(".env", 0, f"missing required key {own.prefix}{key.name} ({key.value})")
            for key in KEYS.values()
            if key.is_required and key.name not in written
        ]
    if any(not problem.is_warning for problem in problems):
        # defaults.env first, as it is read first; what is missing comes last
        files = [str(defaults_path()), ".env"]
        problems.sort(key=lambda p: (files.index(p.file), p.line == 0, p.line))
        text = "\n".join(str(problem) for problem in problems)
        is_mixed = own.is_shared and not own.prefix
        may_collide = any(one.may_collide for one in problems if one.file == ".env")
        raise ConfigError(text, SHARED if is_mixed and may_collide else None)
    for problem in problems:
        warn(str(problem))
    is_own = {entry.key for entry in entries}
    settings = _settings(values, bases, folder)
    fields = {key.field for key in KEYS.values() if key.name in is_own}
    return replace(settings, in_env=tuple(name for name in settings.written if name in fields))


def _settings(values: Mapping[str, Any], bases: Mapping[str, Base], folder: Path) -> Settings:
    """Return the settings of sound values, without those in defaults.env for another type."""
    of_type = [k for k in KEYS.values() if k.infra_type in (None, values["INFRA_TYPE"])]
    found = {key.field: key.of(key.default) for key in KEYS.values()}
    found |= {key.field: values.get(key.name, key.nothing) for key in of_type}
    if values["NETWORK_TYPE"] == "default":
        found |= {"bridge": None, "gateway": None, "dns": None}
    name = values.get("NAME") or name_from(folder)
    hostname: str | None = name
    if theirs := found["cloud_init"]:
        real = readable(bases["CLOUD_INIT"], theirs)
        hostname = values.get("NAME") or (cloud_config.hostname(real, name) if real else None)
    return Settings(
        **{**found, "name": name, "image": str(found["image"])},
        hostname=hostname,
        written=tuple(sorted({key.field for key in of_type if key.name in bases})),
    )


def name_from(folder: Path) -> str:
    """Make a host label of a folder's name: `it's my app` becomes `it-s-my-app`."""
    text = unicodedata.normalize("NFKD", folder.resolve().name)
    text = text.encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", text)[:63].strip("-") or "project"


def _values(
    written: Mapping[str, Entry], bases: Mapping[str, Base], folder: Path
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the typed value of every key that is sound, and what is wrong with the others."""
    raw = {key.name: key.default for key in KEYS.values() if key.default is not None}
    values = {name: KEYS[name].parse(text) for name, text in raw.items() if name not in written}
    problems: dict[str, list[Problem]] = {}
    for entry in written.values():
        key = KEYS[entry.key]
        steps: list[Callable[[Any], Any]] = [one_line, key.parse]
        if key.locate:
            steps.append(partial(key.locate, bases[entry.key]))
        try:
            values[entry.key] = Schema(All(*steps))(entry.raw)
        except MultipleInvalid as invalid:
            problems[entry.key] = [
                _problem(entry, f"{error.msg}, got {_shown(entry.raw, error.path)}", None)
                for error in invalid.errors
            ]
            problems[entry.key][-1] = replace(problems[entry.key][-1], hint=key.hint)
    for conflict in conflicts(values, written, folder):
        entry = written[conflict.key]
        if entry.file == ".env" or not conflict.is_idle:
            got = "" if conflict.is_idle else f", got {_shown(entry.raw)}"
            problem = _problem(entry, f"{conflict.text}{got}", conflict.hint)
            problems.setdefault(conflict.key, []).append(problem)
    for name, entry in written.items():
        if name not in problems and not KEYS[name].is_built(values[name]):
            problems[name] = [_unsupported(entry)]
    return values, [problem for found in problems.values() for problem in found]


def _problem(entry: Entry, text: str, hint: str | None) -> Problem:
    is_optional = not KEYS[entry.key].is_required if entry.key in KEYS else False
    return Problem(entry.file, entry.line, f"{entry.name} {text}", hint, may_collide=is_optional)


def _unsupported(entry: Entry) -> Problem:
    hint = f"take {entry.name} out; this version cannot honour it"
    return _problem(entry, f"is not supported yet, got {_shown(entry.raw)}", hint)


def _shown(raw: str, where: Sequence[Hashable] = ()) -> str:
    """Quote a value, or its item at the index `where`, for a message.

    Only its first line: with a quote left open, the next ones can be somebody's password. The one
    in a URL is hidden.
    """
    text = redacted(items(raw)[int(str(where[0]))] if where else raw)
    line = text.splitlines()[0] if text else ""
    kept = line[:MAX_SHOWN]
    return f'"{escaped(kept)}{"…" if kept != text else ""}"'


@dataclass(frozen=True)
class Read:
    """Our keys in a file, and what is wrong with its lines.

    `prefix`: of our keys in it; `is_shared`: keys of somebody else are in it, too.
    """

    entries: Sequence[Entry] = ()
    problems: Sequence[Problem] = ()
    prefix: str = ""
    is_shared: bool = False


def _read(path: Path, shown: str, may_share: bool = False) -> Read:
    """Read our keys in a file. Foreign keys are dropped.

    `may_share`: it may be an application's, too. Then our keys are those with PREFIX, if that of
    INFRA_TYPE is there.
    """
    try:
        text = _text(path, shown)
    except ConfigError as error:
        return Read(problems=[Problem(shown, 0, error.message, error.hint)])
    found = [*bindings(text)]
    has_prefix = may_share and any(one.key == f"{PREFIX}INFRA_TYPE" for one in found)
    prefix = PREFIX if has_prefix else ""
    entries: dict[str, Entry] = {}
    foreign: set[str] = set()
    problems, is_shared = [], False
    for binding in found:
        source, line = binding.original.string, line_of(binding)
        name = binding.key or ""
        key = name.removeprefix(prefix) if name.startswith(prefix) else ""
        if binding.error and may_share and not _may_be_ours(source, prefix):
            text = "warning: cannot be read as KEY=value, and is left to the application"
            problems.append(Problem(shown, line, text, is_warning=True))
        elif binding.error:
            problems.append(Problem(shown, line, "cannot be read as KEY=value", UNREADABLE_HINT))
        elif key in entries:
            first = entries[key].line
            hint = "take one of the two lines out"
            text = f"{name} is already set in line {first}"
            problems.append(Problem(shown, line, text, hint, may_collide=True))
        elif not prefix and name.startswith(PREFIX) and _may_be_ours(name, PREFIX):
            text = f"{name} counts only beside {PREFIX}INFRA_TYPE"
            hint = f"write {PREFIX} before all keys of vagrantp" if may_share else WITHOUT
            problems.append(Problem(shown, line, text, hint))
        elif key in KEYS:
            entries[key] = Entry(key, name, binding.value or "", path, shown, line)
        elif is_not_built(key):
            entry = Entry(key, name, binding.value or "", path, shown, line)
            problems.append(_unsupported(entry))
        elif key and name not in foreign and FOREIGN.fullmatch(name):
            foreign.add(name)
            if other := meant(key):
                text = f"warning: {name} is no key of vagrantp; did you mean {prefix}{other}?"
                problems.append(Problem(shown, line, text, is_warning=True))
            else:
                is_shared = True
    return Read([*entries.values()], problems, prefix, is_shared)


def _may_be_ours(line: str, prefix: str) -> bool:
    """Say whether a line that cannot be read has one of our keys in it, or what is nearly one."""
    names = {name.removeprefix(prefix) for name in NAME.findall(line) if name.startswith(prefix)}
    return any(name in KEYS or is_not_built(name) or meant(name) for name in names)


def _text(path: Path, shown: str) -> str:
    """Return the text of a settings file. Raises ConfigError, without the name of the file."""
    owner = None
    try:
        found = path.stat()
        owner = found.st_uid
        if stat.S_ISDIR(found.st_mode):
            raise ConfigError("is a folder, not a file")
        if not stat.S_ISREG(found.st_mode):  # a FIFO would block
            raise ConfigError("is no regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError("is a link to nothing", f"it leads to {path.readlink()}") from None
        raise ConfigError(f"not found in {path.parent}", "fab init writes one") from None
    except OSError as error:
        is_ours = error.errno == errno.EACCES and owner == os.geteuid()
        hint = f"chmod u+r {shlex.quote(shown)}" if is_ours else None
        raise ConfigError(f"cannot be read: {error.strerror}", hint) from None
    if len(data) > MAX_BYTES:
        raise ConfigError("larger than 1 MB, so no settings file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", "save it as UTF-8") from None
    if "\0" in text:
        raise ConfigError("holds NUL bytes, so no text", "save it as UTF-8")
    return text
