"""The docs say what the code does."""

from __future__ import annotations

import re
import runpy

from vagrantp import errors, schema

from tests.conftest import MASTER


def test_exit_codes() -> None:
    text = (MASTER / "docs/exit-codes.md").read_text()
    listed = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    meanings = {
        kind.exit_code: kind.__doc__ or "" for kind in errors.VagrantpError.__subclasses__()
    }
    assert {int(code): meaning.lower() for code, meaning in listed[2:]} == {
        code: meaning.splitlines()[0].rstrip(".").lower() for code, meaning in meanings.items()
    }
    assert [int(code) for code, _ in listed[:2]] == [0, errors.VagrantpError.exit_code]


def test_the_readme_lists_every_verb() -> None:
    listed = re.findall(r"^\| `fab ([a-z]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    verbs = runpy.run_path(str(MASTER / "fabfile.py"))["ns"].task_names
    assert sorted(set(listed)) == sorted(verbs)


def test_the_readme_lists_every_key_that_works() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    works = [k.name for k in schema.KEYS.values() if k.validate is not schema.not_supported]
    assert sorted(listed) == sorted(works)
