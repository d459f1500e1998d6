"""requirements.yml of Ansible, as far as it names what is on the internet: read before it is used.

What it may name: roles and collections of Galaxy, archives and git repositories by https. All the
rest of its syntax (folders, files, ssh, other servers' names, options) is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vagrantp.core import documents
from vagrantp.core.errors import ConfigError

MAX_PROBLEMS = 20  # in a message
MAX_SHOWN = 80  # characters of a value in a message
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
SEGMENT = r"(?!\.\.?(?:/|$))[A-Za-z0-9._~%-]+"  # of a path, and neither . nor ..
# https, with a name of the public DNS, no user and no other port: nothing else gets through.
URL = re.compile(
    rf"https://(?:{LABEL}\.)+[A-Za-z][A-Za-z0-9-]*(?::443)?(?:/{SEGMENT})+/?(?:\?[A-Za-z0-9._~%=&-]*)?"
)
SUBFOLDER = re.compile(rf"(?:/?{SEGMENT})+/?")  # of a repository, after #
ARCHIVE = r"\.(?:tar|tgz|gz|bz2|xz|zip)$"  # a file beside the playbook
ROLE = re.compile(rf"(?!.*{ARCHIVE})[A-Za-z0-9_][A-Za-z0-9_-]*\.[A-Za-z0-9_][A-Za-z0-9_.-]*")
COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a role, as plays name it
VERSION = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._/+-]*")  # a release, tag, branch or commit
RANGE = re.compile(r"[A-Za-z0-9<>=!*][A-Za-z0-9._<>=!*, +-]*")
SOURCES = "namespace.name, an https URL of an archive, or git+https://…"


@dataclass(frozen=True)
class Role:
    """A role. `src`: its name in Galaxy, or a URL; `scm`: git or ""; `version`: "": the newest."""

    src: str
    name: str = ""
    scm: str = ""
    version: str = ""


@dataclass(frozen=True)
class Collection:
    """A collection. `type`: galaxy, git or url; `source`: the URL, or another Galaxy's, or ""."""

    type: str
    name: str = ""
    source: str = ""
    version: str = ""


@dataclass(frozen=True)
class Requirements:
    """What a playbook requires."""

    roles: tuple[Role, ...] = ()
    collections: tuple[Collection, ...] = ()

    def to_json(self, kind: str) -> str:
        """Return those of one kind, roles or collections, in the form of requirements.yml."""
        found = ({k: v for k, v in vars(each).items() if v} for each in getattr(self, kind))
        return json.dumps({kind: list(found)})


def parse(texts: Mapping[str, str]) -> Requirements:
    """Return what the texts of some files, by their paths, require together.

    Raises ConfigError, with every problem.
    """
    problems: list[str] = []
    roles: list[Role] = []
    collections: list[Collection] = []
    for path, text in texts.items():
        try:
            found = documents.load(text)
        except documents.Unreadable as error:
            problems.append(f"{path} must be a file {error}")
            continue
        for kind, entries in _entries(path, found, problems):
            for number, entry in enumerate(entries, 1):
                try:
                    if kind == "roles":
                        roles.append(_role(entry))
                    else:
                        collections.append(_collection(entry))
                except _Unfit as error:
                    problems.append(f"{path}: {kind}, entry {number}: {error}")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
    if problems:
        raise ConfigError("\n".join(problems))
    return Requirements(tuple(dict.fromkeys(roles)), tuple(dict.fromkeys(collections)))


class _Unfit(Exception):
    """A value that an entry may not have. The text says what it must be."""

    def __init__(self, what: str, must_be: str, found: object) -> None:
        super().__init__(f"{what} must be {must_be}, got {_shown(found)}")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _entries(path: str, found: Any, problems: list[str]) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401
    """Yield the two lists of a file, and add what is wrong with it to `problems`."""
    if isinstance(found, list):  # the old form
        found = {"roles": found}
    if not isinstance(found, dict):
        if found is not None:
            problems.append(f"{path}: it must have roles: and collections:, got {_shown(found)}")
        return
    for key, entries in found.items():
        if key not in ("roles", "collections"):
            problems.append(f"{path}: it must have roles: and collections: only, got {_shown(key)}")
        elif isinstance(entries, list):
            yield key, entries
        elif entries is not None:
            problems.append(f"{path}: {key} must be a list, got {_shown(entries)}")


def _role(entry: object) -> Role:
    """Read SRC[,VERSION[,NAME]], or the mapping of an entry. Raises _Unfit."""
    if isinstance(entry, str):
        values = [value.strip() for value in entry.split(",")]
        if len(values) > 3:
            raise _Unfit("it", "SRC[,VERSION[,NAME]]", entry)
        entry = dict(zip(("src", "version", "name"), values, strict=False))
    texts = _texts(entry, "src", "role", "name", "version", "scm")
    given = texts["src"] or texts["role"] or texts["name"]
    name = (texts["src"] and (texts["name"] or texts["role"])) or (texts["role"] and texts["name"])
    if name and not NAME.fullmatch(name):
        raise _Unfit("name", "a plain name", name)
    if texts["version"] and not VERSION.fullmatch(texts["version"]):
        raise _Unfit("version", "a release, tag, branch or commit", texts["version"])
    if texts["scm"] not in ("", "git"):
        raise _Unfit("scm", "git", texts["scm"])
    src = given.removeprefix("git+")
    is_url = URL.fullmatch(src) is not None
    if not is_url and not (ROLE.fullmatch(given) and not texts["scm"]):
        raise _Unfit("src", SOURCES, given)
    is_git = is_url and (src != given or texts["scm"] or src.endswith(".git"))
    return Role(src, name, "git" if is_git else "", texts["version"])


def _collection(entry: object) -> Collection:
    """Read NAME, a URL, or the mapping of an entry. Raises _Unfit."""
    if isinstance(entry, str):
        given, _, version = entry.partition(",")
        entry = {"name": given.strip(), "version": version.strip()}
    texts = _texts(entry, "name", "version", "source", "type")
    name, source, kind = texts["name"], texts["source"], texts["type"]
    if kind not in ("", "galaxy", "git", "url"):
        raise _Unfit("type", "galaxy, git or url", kind)
    if COLLECTION.fullmatch(name) and kind in ("", "galaxy"):
        if source and not URL.fullmatch(source):
            raise _Unfit("source", "the https URL of a Galaxy server", source)
        if texts["version"] and not RANGE.fullmatch(texts["version"]):
            raise _Unfit("version", "a release or a range of them", texts["version"])
        return Collection("galaxy", name, source, texts["version"])
    if source and name and not COLLECTION.fullmatch(name):
        raise _Unfit("name", "namespace.name", name)
    given = source or name
    url, mark, folder = given.removeprefix("git+").partition("#")
    if kind == "galaxy" or not URL.fullmatch(url) or (mark and not SUBFOLDER.fullmatch(folder)):
        raise _Unfit("source" if source else "name", SOURCES, given)
    if texts["version"] and not VERSION.fullmatch(texts["version"]):
        raise _Unfit("version", "a release, tag, branch or commit", texts["version"])
    is_git = kind == "git" or (not kind and (given.startswith("git+") or url.endswith(".git")))
    if not is_git and (mark or given.startswith("git+")):
        raise _Unfit("type", "git", kind)
    return Collection(
        "git" if is_git else "url", name if source else "", f"{url}{mark}{folder}", texts["version"]
    )


def _texts(entry: object, *keys: str) -> dict[str, str]:
    """Return the values of an entry, "" for those that it lacks. Raises _Unfit."""
    if not isinstance(entry, dict):
        raise _Unfit("it", "a name, a URL or a mapping", entry)
    for key in entry:
        if key not in keys:
            raise _Unfit("keys", f"among {', '.join(keys)}", key)
    found = {key: entry.get(key) for key in keys}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise _Unfit(key, "text", value)
    return {key: "" if value is None else str(value) for key, value in found.items()}
