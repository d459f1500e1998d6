"""One setting goes into ~/.fabric.yaml and out of it again; all else stays, comments too."""

from __future__ import annotations

from pathlib import Path

import pytest
from vagrantp.core.errors import VagrantpError
from vagrantp.host.fabricyaml import with_root, without_root

ROOT = Path('/it\'s "a"/#1: {é}')
LINE = 'search_root: "/it\'s \\"a\\"/#1: {é}"'
TEXTS = {
    "nothing": ("", f"tasks:\n  {LINE}\n"),
    "comments": ("# mine\n", f"# mine\ntasks:\n  {LINE}\n"),
    "others": ("run:\n  echo: true # loud", f"run:\n  echo: true # loud\ntasks:\n  {LINE}\n"),
    "tasks": (
        "tasks:  # of mine\n\n    # why\n    dedupe: false\nuser: me\n",
        f"tasks:  # of mine\n    {LINE}\n\n    # why\n    dedupe: false\nuser: me\n",
    ),
    "another of that name": (
        "my:\n  search_root: /x\ntasks:\n  dedupe: false\n",
        f"my:\n  search_root: /x\ntasks:\n  {LINE}\n  dedupe: false\n",
    ),
    "a start": ("---\nuser: me\n", f"---\nuser: me\ntasks:\n  {LINE}\n"),
    "CRLF": ("tasks:\r\n  dedupe: false\r\n", f"tasks:\r\n  {LINE}\n  dedupe: false\r\n"),
}


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_in_and_out_again(before: str, after: str) -> None:
    assert with_root(before, ROOT) == after
    assert with_root(after, ROOT) == after
    assert without_root(after, ROOT) == before.removesuffix("\n") + ("\n" if before else "")


@pytest.mark.parametrize("tasks", ["tasks:\n", "tasks:\n  # nothing yet\n", "tasks:\nuser: me\n"])
def test_tasks_without_any(tasks: str) -> None:
    assert with_root(tasks, ROOT) == tasks.replace("tasks:\n", f"tasks:\n  {LINE}\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tasks: {dedupe: false}\n", "no line can be put in"),
        ("{user: me}\n", "no line can be put in"),
        ('"tasks":\n  dedupe: false\n', "no line can be put in"),
        ("user: me\n...\n", "no line can be put in"),
        ("tasks:\n  search_root: /x\n", "search_root is /x there"),
        ("tasks: [1]\n", "it has another form than fab's settings"),
        ("- tasks\n", "it has another form than fab's settings"),
        ("tasks: [\n", "it cannot be read as YAML"),
    ],
)
def test_what_is_left_to_the_user(text: str, why: str) -> None:
    with pytest.raises(VagrantpError) as caught:
        with_root(text, ROOT)
    assert caught.value.message == f"{Path.home()}/.fabric.yaml is left as it is: {why}"
    assert LINE in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "tasks:\n  search_root: /x\n", "search_root: 1\n"])
def test_what_is_not_ours_is_not_taken_out(text: str) -> None:
    assert without_root(text, ROOT) == text


def test_what_cannot_be_taken_out() -> None:
    with pytest.raises(VagrantpError, match="no line can be taken out"):
        without_root("tasks: {search_root: /x}\n", Path("/x"))
