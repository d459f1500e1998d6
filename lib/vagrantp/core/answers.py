"""What other programs answer: JSON, XML, numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any, TypeVar

from vagrantp.core import documents
from vagrantp.core.errors import ProviderError
from vagrantp.core.text import plain

Document = TypeVar("Document", list[Any], dict[str, Any])


def as_json(program: str, text: str, kind: type[Document]) -> Document:
    """Return a program's answer, a JSON document of type `kind`; null counts as an empty list.

    Raises ProviderError for any other answer.
    """
    try:
        found = documents.from_json(text)
    except documents.Unreadable:
        found = text
    if found is None and kind is list:
        return kind()
    if not isinstance(found, kind):
        raise ProviderError(f"{program} gave an unreadable answer: {_shown(text)}")
    return found


def as_number(program: str, text: str) -> int:
    """Return a program's answer, a natural number. Raises ProviderError for any other answer."""
    if not re.fullmatch(r"[0-9]{1,15}", text.strip()):
        raise ProviderError(f"{program} gave an unreadable answer: {_shown(text)}")
    return int(text)


def as_xml(text: str) -> ET.Element:
    """Return virsh's answer, an XML document. Raises ProviderError for any other answer."""
    try:
        return ET.fromstring(text)
    except ET.ParseError:
        raise ProviderError(f"libvirt gave an unreadable answer: {_shown(text)}") from None


def _shown(text: str) -> str:
    return plain(text, 80) or "nothing"
