"""What other programs answer, as JSON or XML."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any, TypeVar

from vagrantp.core.errors import ProviderError
from vagrantp.core.progress import plain

Document = TypeVar("Document", list[Any], dict[str, Any])


def as_json(program: str, text: str, kind: type[Document]) -> Document:
    """Return what a program answered, a JSON document of a kind. null is an empty list.

    Raises ProviderError when it is another one, or none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    if found is None and kind is list:
        return kind()
    if not isinstance(found, kind):
        raise ProviderError(f"{program} gave an unreadable answer: {_shown(text)}")
    return found


def as_xml(text: str) -> ET.Element:
    """Return what virsh answered, an XML document. Raises ProviderError when it is none."""
    try:
        return ET.fromstring(text)
    except ET.ParseError:
        told = f"libvirt gave an unreadable answer: {_shown(text)}"
        raise ProviderError(told) from None


def _shown(text: str) -> str:
    return plain(text, 80) or "nothing"
