"""YAML that comes with a project: what it may stand for, and what no reader should meet."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp.core import documents

FRUIT = """\
defaults: &defaults {user: av, shell: /bin/bash}
more: &more {<<: *defaults, groups: [sudo]}
both:
  <<: [*more, {home: /home/av}]
  user: me
again: [*more, *more]
"""


def test_anchors_aliases_and_merges_work() -> None:
    found = documents.load(FRUIT)
    shared = {"user": "av", "shell": "/bin/bash", "groups": ["sudo"]}
    assert found["both"] == {**shared, "user": "me", "home": "/home/av"}
    assert found["again"] == [shared, shared]
    root = documents.compose(FRUIT)
    both = next(value for key, value in root.value if key.value == "both")
    assert sorted(documents.keys(both)) == ["groups", "home", "shell", "user", "user"]


def doubled(line: str, times: int) -> str:
    """Return YAML in which each line stands for what the one above does, twice. {0}: that one."""
    lines = (f"k{n}: &a{n} {line.format(f'*a{n - 1}')}\n" for n in range(1, times + 1))
    return f"k0: &a0 {{x: x}}\n{''.join(lines)}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (doubled("[{0}, {0}]", 40), "values at most"),
        (doubled("{{a: {0}, b: {0}}}", 40), "values at most"),
        (doubled("{{<<: [{0}, {0}]}}", 40), "values at most"),
        ("- x\n" * 100_001, "values at most"),
        (doubled("[{0}]", 200), "nested 100 deep"),
        ("[" * 200 + "]" * 200, "nested 100 deep"),
        ("a: &a [*a]", "without an alias inside"),
        ("a: &a {<<: *a}", "without an alias inside"),
        ("a: *b", "line 1 is not"),
        ("a: [", "line 2 is not"),
        ("a\n---\nb", "line 2 is not"),
        ("a: \0", "of YAML"),
        (f"a: 0x{'f' * 1_000_000}", "a number of 1000002 characters"),
        (f"a: 1{':59' * 300_000}", "a number of 900001 characters"),
        (f"a: 1{':59' * 300}.5", "int too large"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ('a: !!int ""', "out of range"),
        ("a: !!bool x", "x"),
        ("a: !!timestamp x", "of plain YAML"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !vault x", "could not determine a constructor"),
        ("{[1]: 2}", "found unhashable key"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(documents.Unreadable, match=why):
        documents.load(text)


def test_what_is_within_bounds() -> None:
    assert len(documents.load("- x\n" * 9_999)) == 9_999
    documents.load("[" * 100 + "]" * 100)
    assert documents.load("a: 1\na: 2\n1: b\nnull: c\n") == {"a": 2, 1: "b", None: "c"}
    assert documents.load("") is None
    assert documents.compose("a: !vault x").id == "mapping"


def test_text_is_of_a_regular_file(tmp_path: Path) -> None:
    fifo, big, dangling = tmp_path / "fifo", tmp_path / "big", tmp_path / "dangling"
    os.mkfifo(fifo)
    with big.open("wb") as file:
        file.truncate(1 << 40)
    dangling.symlink_to(dangling)
    for path, why in (
        (fifo, "regular"),
        (Path("/dev/zero"), "regular"),
        (tmp_path, "Is a directory"),
        (big, "1 MB at most"),
        (dangling, "symbolic links"),
    ):
        with pytest.raises(documents.Unreadable, match=why):
            documents.text(path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", "nul", "[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", "\0", "\udcff"),
        *("[" * 100_000, '{"a":' * 100_000, f"[{'9' * 1001}]", f"[{'9' * 1_000_000}]"),
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_json_that_no_reader_should_meet(text: str) -> None:
    with pytest.raises(documents.Unreadable, match="of JSON"):
        documents.from_json(text)


def test_json(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('\ufeff{"a": 1, "a": [2, 0.5, null, "\\ud800\\u001b"]}')
    assert documents.json_file(tmp_path / "a") == {"a": [2, 0.5, None, "\ud800\x1b"]}
    (tmp_path / "a").write_text(" " * 1_100_000 + "1")
    with pytest.raises(documents.Unreadable, match="of 1 MB at most"):
        documents.json_file(tmp_path / "a")


@given(st.one_of(st.text(), st.text('[]{}":,0123456789eE.-+ntfNI\\u')))
def test_any_text_is_json_or_not(text: str) -> None:
    with suppress(documents.Unreadable):
        documents.from_json(text)
