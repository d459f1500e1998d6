"""The docs say what the code does."""

from __future__ import annotations

import re

from vagrantp import errors, schema

from tests.conftest import MASTER


def test_exit_codes() -> None:
    listed = re.findall(r"^\| (\d+) \|", (MASTER / "docs/exit-codes.md").read_text(), re.MULTILINE)
    raised = {0, *(kind.exit_code for kind in errors.VagrantpError.__subclasses__())}
    assert {int(code) for code in listed} == raised | {errors.VagrantpError.exit_code}


def test_the_readme_lists_every_key_that_works() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    works = [k.name for k in schema.KEYS.values() if k.validate is not schema.not_supported]
    assert sorted(listed) == sorted(works)
