"""The line that ticks, in a terminal of a given width: what is really written to it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from vagrantp.core import live

SLOW = pytest.mark.slow
WORK = """
import sys, threading, time
from invoke.context import Context
from vagrantp.core import live
from vagrantp.core.progress import Progress
from vagrantp.core.system import Host
live.TICK = 0.02
usual = lambda infra_type: {"create": 65.0, "quick": 0.2}
progress = Progress(is_live=True, usual=usual)
progress.about("app-0", "vm")
"""


def written(script: str, columns: int, ticks: int = 0) -> list[str]:
    """Return what a script writes to a terminal, one string for each time a line was begun.

    Where it reads a line from its stdin, it gets one as soon as it has ticked that often.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    argv = [sys.executable, "-c", WORK + script]
    text = b""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=theirs) as child:
        os.close(theirs)
        assert child.stdin
        try:
            while piece := os.read(ours, 4096):
                text += piece
                if ticks and text.count(live.ERASE.encode() + b"\r") >= ticks:
                    child.stdin.write(b"\n")
                    child.stdin.flush()
                    ticks = 0
        except OSError:  # the other end was closed
            pass
    os.close(ours)
    assert child.returncode == 0, text
    return re.split(r"[\r\n]+", text.decode())


@pytest.mark.parametrize("columns", [80, *(pytest.param(n, marks=SLOW) for n in (40, 12)), 1])
def test_no_line_is_longer_than_the_terminal(columns: int) -> None:
    script = """
with progress.stage("create", "日本語の名前" * 5):
    progress.done(lambda: "task 7 of 23")
    input()
"""
    *ticks, last, end = written(script, columns, ticks=3)
    assert (len(ticks) >= 2, end) == (True, "")
    assert re.fullmatch(r"\x1b\[K  create (日本語の名前){5}: 0\.\d s", last)
    for tick in ticks[:-1]:
        shown = tick.replace(live.ERASE, "")
        wide = sum(sign > "\u2fff" for sign in shown)
        assert len(shown) + wide < max(columns, 2)
    if columns > 40:
        assert any("…: task 7 of 23, 0 s (usually 1 min 5 s)" in tick for tick in ticks)


def test_what_is_told_meanwhile_stands_alone() -> None:
    script = """
with progress.stage("outer"):
    progress.say("a word")
    try:
        with progress.stage("quick"):
            raise OSError
    except OSError:
        input()
"""
    lines = [line.replace(live.ERASE, "") for line in written(script, 80, ticks=5)]
    told = [line for line in lines if line.startswith("  ")]
    assert told[0] == "  a word"
    assert [re.sub(r"\d", "N", line) for line in told[1:]] == [
        "  quick: N.N s (failed)",
        "  outer: N.N s",
    ]
    after = lines[lines.index(told[1]) + 1 :]
    assert any(re.fullmatch(r"[-|/\\] outer: 0 s", line) for line in after)  # it goes on


def test_nothing_ticks_in_what_we_become() -> None:
    script = """
with progress.stage("create"):
    Host(Context(), progress=progress).exec_process(["sh", "-c", "sleep 0.2; echo end >&2"])
"""
    *_, line, end = written(script, 80)
    assert (line, end) == (f"{live.ERASE}end", "")


def test_nothing_is_left_of_it_after_an_error() -> None:
    script = """
try:
    with progress.stage("create"):
        raise OSError
except OSError:
    assert threading.active_count() == 1
"""
    *_, last, end = written(script, 80)
    assert re.fullmatch(r"\x1b\[K  create: 0\.\d s \(failed\)", last)
    assert end == ""


@pytest.mark.parametrize(
    ("text", "columns", "line"),
    [
        ("| create", 40, "| create: 3 s"),
        ("| create", 13, "| create: 3 s"),
        ("| create", 12, "| crea…: 3 s"),
        ("| 日本語", 12, "| 日本…: 3 s"),
        ("| e\u0301te\u0301", 10, "| e\u0301te\u0301: 3 s"),
        ("| a\nb\x1b[31m", 40, "| a\\nb\\x1b[31m: 3 s"),
        ("| create", 6, "…: 3 s"),
        ("| create", 4, ": 3 "),
        ("| create", 0, ""),
    ],
)
def test_fitted(text: str, columns: int, line: str) -> None:
    assert live.fitted(text, ": 3 s", "", columns) == line


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "| grow the root file system: 3 s (usually 9 s)"),
        (45, "| grow the root file syst…: 3 s (usually 9 s)"),
        (35, "| grow the root…: 3 s (usually 9 s)"),
        (34, "| grow the root file system: 3 s"),
        (20, "| grow the roo…: 3 s"),
    ],
)
def test_what_gives_way(columns: int, line: str) -> None:
    text = "| grow the root file system"
    assert live.fitted(text, ": 3 s", " (usually 9 s)", columns) == line


def test_work_goes_on_when_nobody_reads_what_is_told() -> None:
    script = WORK.replace("is_live=True", "is_live=False") + "progress.say('one')\nprint('done')"
    with Path("/dev/full").open("w") as full:  # every write to it fails
        done = subprocess.run(
            [sys.executable, "-c", script], stderr=full, stdout=subprocess.PIPE, check=False
        )
    assert done.stdout == b"done\n"
