"""`.env`, with the host's `defaults.env` beneath it, to frozen Settings. Starts no process."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dotenv.parser import parse_stream
from voluptuous import MultipleInvalid

from vagrantp.errors import ConfigError
from vagrantp.schema import KEYS, SCHEMA

MAX_BYTES = 1024 * 1024  # a .env of more than 1 MiB is something else


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a project. `memory` in MiB, `disk` in GiB."""

    infra_type: Literal["vm", "container"]
    memory: int
    cpus: int
    disk: int
    name: str
    image: str  # BOX or IMAGE, whichever the type has
    accel: Literal["auto", "kvm", "tcg"]
    lan_access: bool


@dataclass(frozen=True)
class Entry:
    """A value of one of our keys and where it was written."""

    key: str
    raw: str
    file: str
    line: int


@dataclass(frozen=True)
class Problem:
    """Something wrong, at `file:line`; line 0 stands for the file as a whole."""

    file: str
    line: int
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}" + (f"\n  hint: {self.hint}" if self.hint else "")


def load(folder: Path) -> Settings:
    """Read `.env` of the project `folder`.

    Raises ConfigError with every problem of both files at once, in file order.
    """
    defaults: list[Entry] = []
    problems: list[Problem] = []
    if os.path.lexists(defaults_path()):
        defaults, problems = _read(defaults_path(), str(defaults_path()))
    entries, more = _read(folder / ".env", ".env")
    problems += more
    written = {entry.key: entry for entry in (*defaults, *entries)}
    raw = {key.name: key.default for key in KEYS.values() if key.default is not None}
    raw |= {key: entry.raw for key, entry in written.items()}
    values: dict[str, Any] = {}
    try:
        values = SCHEMA(raw)
    except MultipleInvalid as invalid:
        # voluptuous goes through a set of what is missing: another order in every process
        errors = sorted(invalid.errors, key=lambda error: list(KEYS).index(str(error.path[0])))
        problems += [_problem(str(e.path[0]), e.msg, written) for e in errors]
    problems += _misfits(entries, raw.get("INFRA_TYPE"))
    if problems:
        # defaults.env first, as it is read first; what is missing comes last
        files = [str(defaults_path()), ".env"]
        problems.sort(key=lambda p: (files.index(p.file), p.line == 0, p.line))
        raise ConfigError("\n".join(str(problem) for problem in problems))
    return Settings(
        infra_type=values["INFRA_TYPE"],
        memory=values["MEMORY"],
        cpus=values["CPUS"],
        disk=values["DISK"],
        name=values.get("NAME") or name_from(folder),
        image=values["BOX" if values["INFRA_TYPE"] == "vm" else "IMAGE"],
        accel=values["ACCEL"],
        lan_access=values["LAN_ACCESS"],
    )


def defaults_path() -> Path:
    """Return where values for all projects of this host can stand."""
    return xdg("CONFIG", ".config") / "defaults.env"


def xdg(kind: str, fallback: str) -> Path:
    """Return our folder under `$XDG_<kind>_HOME`; as XDG has it, a relative one does not count."""
    base = os.environ.get(f"XDG_{kind}_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "vagrantp"


def name_from(folder: Path) -> str:
    """Make a host label of a folder's name: `it's my app` becomes `it-s-my-app`."""
    text = unicodedata.normalize("NFKD", folder.resolve().name)
    text = text.encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", text)[:63].strip("-") or "project"


def id_from(folder: Path) -> str:
    """Return the first 8 hex digits of the SHA-256 of the folder's resolved path."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]


def _read(path: Path, shown: str) -> tuple[list[Entry], list[Problem]]:
    """Return our keys in the file, and what is wrong with its lines. Foreign keys are dropped."""
    entries: dict[str, Entry] = {}
    problems = []
    for binding in parse_stream(io.StringIO(_text(path, shown))):
        # `original` starts with the blank lines before the binding
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error:
            problems.append(Problem(shown, line, "cannot be read as KEY=value"))
        elif binding.key in entries:
            first = entries[binding.key].line
            problems.append(Problem(shown, line, f"{binding.key} is already set in line {first}"))
        elif binding.key in KEYS:
            entries[binding.key] = Entry(binding.key, binding.value or "", shown, line)
    return list(entries.values()), problems


def _text(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        where = "is a link to nothing" if path.is_symlink() else f"not found in {path.parent}"
        hint = "README.md shows one; four lines are enough"
        raise ConfigError(f"{shown}: {where}", hint) from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{shown}: larger than 1 MB, so no settings file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{shown}: not UTF-8 text", "save it as UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"{shown}: holds NUL bytes, so no text", "save it as UTF-8")
    return text


def _problem(key: str, message: str, written: dict[str, Entry]) -> Problem:
    if key not in written:
        return Problem(".env", 0, f"missing required key {key} ({KEYS[key].doc})")
    entry = written[key]
    text = f"{key} {message}"
    if not message.startswith("is "):
        text += f', got "{entry.raw}"'
    return Problem(entry.file, entry.line, text, KEYS[key].hint)


def _misfits(entries: list[Entry], infra_type: str | None) -> list[Problem]:
    """Return the keys in the project's own file that its type has no use for."""
    return [
        Problem(
            entry.file, entry.line, f"{entry.key} is for INFRA_TYPE={only}", f"take {entry.key} out"
        )
        for entry in entries
        if (only := KEYS[entry.key].infra_type)
        and infra_type in ("vm", "container")
        and infra_type != only
    ]
