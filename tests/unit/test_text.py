"""What is shown of what others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp.core.progress import table
from vagrantp.core.text import escaped, last_line, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 日本語, e\u0301 → ok", "Grüße, 日本語, e\u0301 → ok"),
        ("one\ntwo", "one\ntwo"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("a\tb\rc\0d\x7f", r"a\tb\rc\x00d\x7f"),
        ("\x85\x9b", r"\x85\x9b"),
        ("\u200b\u200f\u2028\ufeff", r"\u200b\u200f\u2028\ufeff"),
        ("\u202aa\u202e\u2066b\u2069", r"\u202aa\u202e\u2066b\u2069"),
        ("\ud800\udcff", r"\ud800\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown == escaped(shown)


@given(st.text(st.characters()))
def test_whatever_is_shown_can_be_encoded_and_is_printable(text: str) -> None:
    shown = escaped(text)
    assert shown.replace("\n", "").isprintable()
    shown.encode()
    assert escaped(shown) == shown
    assert plain(text).isprintable() and len(plain(text)) <= 300


def test_a_row_is_one_line() -> None:
    assert table([["a", "b"], ["one\ntwo", "\x1b"]]) == "a         b\none\\ntwo  \\x1b"


def test_the_last_line_is_the_reason() -> None:
    assert last_line("one\n two\x07 \n\n") == r"two\x07"
    assert last_line(" \n") == "no reason given"
    assert len(last_line("x" * 1_000_000)) == 1000
