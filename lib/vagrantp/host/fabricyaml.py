"""`tasks.search_root` in the user's settings of fab, ~/.fabric.yaml: edited as text, comments stay.

Every edit is read back: the result must be the former settings with only
that one changed. If it is not, the file has a form that is left to the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vagrantp.core import documents
from vagrantp.core.errors import VagrantpError
from vagrantp.core.system import Host

SUFFIXES = ("yaml", "yml", "json", "py")  # the first that is there is read: invoke/config.py
BLANK = r"[ \t]*(?:#.*)?\r?\n"  # nothing, or a comment
HEAD = re.compile(rf"^tasks:{BLANK}(?=(?:{BLANK})*(?P<indent> +)[^\s#]|)", re.MULTILINE)
LINE = re.compile(r"^ +search_root:.*(?:\n|\Z)", re.MULTILINE)


def path() -> Path:
    """Return the file that fab reads, or would read."""
    places = [Path.home() / f".fabric.{suffix}" for suffix in SUFFIXES]
    return next((place for place in places if place.exists()), places[0])


def edited(edit: Callable[[str, Path], str], root: Path) -> str | None:
    """Return what `with_root` or `without_root` makes of the settings, None for no change.

    Raises VagrantpError where that cannot be done by lines.
    """
    file, text = path(), ""
    if file.exists():
        if file.suffix not in (".yaml", ".yml"):
            raise _by_hand("it is not YAML", root)
        try:
            text = documents.text(file)
        except documents.Unreadable as error:
            raise _by_hand(f"it is no file {error}", root) from None
    after = edit(text, root)
    return after if after != text else None


def write(host: Host, text: str) -> None:
    """Write the settings; where nothing is left of them, remove them."""
    file = path().resolve()  # a link stays one
    if text.strip():
        host.write(file, text, file.stat().st_mode & 0o777 if file.exists() else 0o644)
    else:
        host.remove(file)


def with_root(text: str, root: Path) -> str:
    """Return YAML text with `tasks.search_root` set.

    Raises VagrantpError when it is set to something else, or no line can be put in.
    """
    settings, tasks = _parsed(text, root)
    if tasks.get("search_root") == str(root):
        return text
    if tasks.get("search_root") is not None:
        raise _by_hand(f"search_root is {tasks['search_root']} there", root)
    text += "\n" if text and not text.endswith("\n") else ""
    if "tasks" in settings:
        after = HEAD.sub(lambda head: f"{head[0]}{head['indent'] or '  '}{_line(root)}\n", text, 1)
    else:
        after = f"{text}tasks:\n  {_line(root)}\n"
    if not _is(after, {**settings, "tasks": {**tasks, "search_root": str(root)}}):
        raise _by_hand("no line can be put in", root)
    return after


def without_root(text: str, root: Path) -> str:
    """Return YAML text without the `tasks.search_root` that `with_root` put in.

    Raises VagrantpError when it stands there in another form.
    """
    settings, tasks = _parsed(text, root)
    if tasks.pop("search_root", None) != str(root):
        return text
    settings = {**settings, "tasks": tasks}
    if not tasks:
        del settings["tasks"]
    for found in LINE.finditer(text):
        rest = text[: found.start()] + text[found.end() :]
        for after in (rest, HEAD.sub("", rest, 1)):
            if _is(after, settings):
                return after
    raise _by_hand("no line can be taken out", root)


def _parsed(text: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings, and those under `tasks`."""
    try:
        settings = documents.load(text) or {}
    except documents.Unreadable:
        raise _by_hand("it cannot be read as YAML", root) from None
    tasks = (settings.get("tasks") or {}) if isinstance(settings, dict) else None
    if not isinstance(tasks, dict):
        raise _by_hand("it has another form than fab's settings", root)
    return settings, tasks


def _is(text: str, settings: dict[str, Any]) -> bool:
    try:
        return (documents.load(text) or {}) == settings
    except documents.Unreadable:
        return False


def _line(root: Path) -> str:
    return f"search_root: {json.dumps(str(root), ensure_ascii=False)}"  # JSON is YAML, too


def _by_hand(why: str, root: Path) -> VagrantpError:
    return VagrantpError(
        f"{path()} is left as it is: {why}", f"do it by hand; under tasks it is: {_line(root)}"
    )
