"""What is read of a person's #cloud-config: names, of the guest and of users."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vagrantp.core import documents
from vagrantp.core.errors import ConfigError
from vagrantp.settings.files import JINJA

MAX_NAME = 253  # characters of a host name, dots among them (RFC 1035, 2.3.4)


def is_template(cloud_init: Path) -> bool:
    """Say whether a #cloud-config is a template, which only cloud-init can look into."""
    return _read(cloud_init)[1] is None


def users_of(cloud_init: Path) -> list[str]:
    """Return the users that a #cloud-config names; of a template, what looks like it.

    A `user` is the image's default user by another name (its ug_util.py, normalize_users_groups).
    """
    text, found = _read(cloud_init)
    if found is None:
        return re.findall(r"^\s*-?\s*(?:name|user):\s*[\"']?([\w-]+)", text, re.MULTILINE)
    users, default = found.get("users"), found.get("user")
    if isinstance(users, dict):
        names = [_word(name) for name in users]
    else:
        listed = users if isinstance(users, list) else []  # or a string, of "default" for one
        names = [_word(user.get("name")) for user in listed if isinstance(user, dict)]
    names.append(_word(default.get("name") if isinstance(default, dict) else default))
    return [name for name in names if name]


def hostname(cloud_init: Path, otherwise: str) -> str | None:
    """Return the host name that a #cloud-config gives (its util.py, get_hostname_fqdn).

    None where only the guest knows: it may keep its image's, or take the whole `fqdn`.
    """
    _, found = _read(cloud_init, documents.without_links)
    if found is None or found.get("preserve_hostname") or found.get("prefer_fqdn_over_hostname"):
        return None
    given = _word(found.get("hostname")) or _word(found.get("fqdn"))
    return (given or otherwise).partition(".")[0]


def _word(value: object) -> str:
    """Return a value of YAML that can be a name, as text; "" of one that cannot."""
    text = str(value) if isinstance(value, (str, int)) else ""
    return text if len(text) <= MAX_NAME and text.isprintable() else ""


def _read(
    path: Path, opener: Callable[[str, int], int] = documents.at_once
) -> tuple[str, dict[Any, Any] | None]:
    """Return the text of a #cloud-config, and its keys, None of one that is a template."""
    try:
        text = documents.text(path, opener)
        if JINJA.match(text):
            return text, None
        found = documents.load(text)
    except documents.Unreadable as error:
        raise ConfigError(f"{path} must be a file {error}") from None
    return text, found if isinstance(found, dict) else {}
