"""The lines of a `.env`, as python-dotenv reads them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from dotenv.parser import Binding, parse_stream

# python-dotenv's search for a comment takes time by the square of the blanks in a row
LONG_BLANK = re.compile(r"[^\S\r\n]{100,}")


def line_of(binding: Binding) -> int:
    """Return the line of a binding; python-dotenv counts from the blank lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def bindings(text: str) -> Iterator[Binding]:
    """Return what each line binds; one that cannot be read is an error, with its text."""
    # the parser counts two line ends in a CRLF behind a line that it cannot read
    return parse_stream(io.StringIO(LONG_BLANK.sub(" ", text), newline=None))
