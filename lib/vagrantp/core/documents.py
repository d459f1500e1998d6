"""Text, YAML and JSON that others wrote, read within bounds: of a project, a box, a guest."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any

MAX_BYTES = 1024 * 1024  # of a file that is read: a larger one is something else
MAX_DEPTH = 100  # of nested YAML; libyaml overflows its stack at some ten thousand
MAX_VALUES = 100_000  # of a YAML file, counted again wherever an alias repeats them
MAX_DIGITS = 1000  # of a number: sexagesimal ones take time by the square of their length
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE = "tag:yaml.org,2002:merge"
# What PyYAML's constructors raise for a value that does not fit its tag: `!!int ""`, 2001-99-99, …
BAD_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


class Unreadable(ValueError):
    """A file that cannot be used. The text says what it must be, as what follows "a file"."""


def at_once(path: str, flags: int) -> int:
    """Open a file, as the opener of open(); a FIFO does not block."""
    return os.open(path, flags | os.O_NONBLOCK)


def without_links(path: str, flags: int) -> int:
    """Open a file as `at_once`, but fail where any part of its absolute path is a link."""
    root, *folders, name = Path(path).parts
    found = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for part in folders:
            above = found
            found = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=found)
    finally:
        os.close(found)


def text(file: Path, opener: Callable[[str, int], int] = at_once, at_most: int = MAX_BYTES) -> str:
    """Return the text of a file of `at_most` so many bytes. Raises Unreadable."""
    try:
        return content(file, opener, at_most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("of UTF-8 text") from None


def content(
    file: Path, opener: Callable[[str, int], int] = at_once, at_most: int = MAX_BYTES
) -> bytes:
    """Return the content of a file of `at_most` so many bytes. Raises Unreadable."""
    try:
        with open(file, "rb", opener=opener) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Unreadable("that is a regular one")
            data = stream.read(at_most + 1)
    except OSError as error:
        raise Unreadable(f"that can be read ({error.strerror})") from None
    if len(data) > at_most:
        raise Unreadable(f"of {at_most // 1024**2} MB at most")
    return data


def json_file(file: Path) -> Any:  # noqa: ANN401
    """Return what a file of JSON says. Raises Unreadable."""
    return from_json(text(file))


def from_json(document: str) -> Any:  # noqa: ANN401
    """Return what a JSON document says, all numbers finite. Raises Unreadable."""
    try:
        return json.loads(document, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise Unreadable("of JSON") from None


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    if not isfinite(number := float(digits)):
        raise ValueError(f"{digits} is no number of JSON")
    return number


def compose(document: str) -> Any:  # noqa: ANN401  # a yaml.Node
    """Return the root node of a YAML document, None of an empty one. Raises Unreadable.

    Tags are ignored, so Ansible's own are no mistake. No node contains itself.
    """
    import yaml  # takes 0.03 s, and few need it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _measure(yaml.parse(document, Loader=loader))
        return yaml.compose(document, Loader=loader)
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # PyYAML 6.0.4 has a limit of its own, and reads ahead
            raise _too_deep() from None
        mark = getattr(error, "problem_mark", None)
        raise Unreadable(f"of YAML; line {mark.line + 1} is not" if mark else "of YAML") from None


def _too_deep() -> Unreadable:
    return Unreadable(f"of YAML, nested {MAX_DEPTH} deep at most")


def _measure(events: Iterator[Any]) -> None:
    """Refuse YAML that is deeply nested or large, each alias counted as what it stands for.

    623 bytes of aliases of aliases can stand for gigabytes.
    """
    from yaml import events as kinds

    anchors: dict[str | None, tuple[int, int] | None] = {}  # values, depth; None: still open
    levels: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    for event in events:
        values, depth = 0, 0
        if isinstance(event, kinds.CollectionStartEvent):
            levels.append((event.anchor, 1, 1))
            anchors[event.anchor] = None
        elif isinstance(event, kinds.CollectionEndEvent):
            anchor, values, depth = levels.pop()
            anchors[anchor] = values, depth
        elif isinstance(event, kinds.AliasEvent):
            # the composer refuses an unknown one
            if (known := anchors.get(event.anchor, (1, 0))) is None:
                raise Unreadable("of YAML without an alias inside what it stands for")
            values, depth = known
        elif isinstance(event, kinds.ScalarEvent):
            values = 1
            anchors[event.anchor] = values, depth
        anchor, inside, deepest = levels[-1]
        levels[-1] = anchor, inside + values, max(deepest, depth + 1)
        if len(levels) - 1 + depth > MAX_DEPTH:
            raise _too_deep()
        if inside + values > MAX_VALUES:
            raise Unreadable(f"of YAML, {MAX_VALUES} values at most with its aliases resolved")


def keys(mapping: Any) -> list[str]:  # noqa: ANN401  # a yaml.MappingNode
    """Return the plain keys of a mapping node of `compose`, and those that it merges by `<<`."""
    found: list[str] = []
    for key, value in mapping.value:
        if key.tag == MERGE:
            merged = value.value if value.id == "sequence" else [value]
            found += [name for each in merged if each.id == "mapping" for name in keys(each)]
        elif key.id == "scalar":
            found.append(key.value)
    return found


def load(document: str) -> Any:  # noqa: ANN401
    """Return what a YAML document says, in YAML's own types only. Raises Unreadable."""
    if (root := compose(document)) is None:
        return None
    from yaml import SafeLoader, YAMLError

    class Loader(SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def construct_scalar(self, node: Any) -> Any:  # noqa: ANN401
            found = super().construct_scalar(node)
            if node.tag in NUMBERS and len(found) > MAX_DIGITS:
                raise ValueError(f"a number of {len(found)} characters")
            return found

    try:
        return Loader("").construct_document(root)
    except (YAMLError, *BAD_VALUES) as error:
        why = str(getattr(error, "problem", None) or error) or type(error).__name__
        raise Unreadable(f"of plain YAML: {why}".splitlines()[0]) from None
