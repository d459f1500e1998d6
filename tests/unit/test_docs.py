"""The docs say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from vagrantp.core import errors
from vagrantp.settings import docs, env, keys, schema

from tests.conftest import MASTER, NOT_BUILT


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
    listed = re.findall(r"^\| `fab ([a-z-]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    verbs = runpy.run_path(str(MASTER / "fabfile.py"))["ns"].task_names
    assert sorted([*set(listed), *NOT_BUILT]) == sorted(verbs)


def test_the_readme_lists_the_ten_commonest_keys() -> None:
    listed = re.findall(r"^\| `([A-Z_0-9]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    assert listed == [*docs.COMMON]
    assert len({*listed}) == 10
    assert {*listed} >= {key.name for key in keys.KEYS.values() if key.is_required}


def test_the_reference_lists_every_key() -> None:
    text = (MASTER / "docs/configuration.md").read_text()
    assert re.findall(r"^\| `([A-Z_0-9]+)` \|", text, re.MULTILINE) == [*keys.KEYS]
    [line] = re.findall(r"^Not supported yet, .*: (.*)\.$", text, re.MULTILINE)
    assert line.replace("`", "").split(", ") == [*keys.NOT_BUILT]


@pytest.mark.parametrize("name", docs.documents())
def test_what_make_docs_writes_is_up_to_date(name: str) -> None:
    assert (MASTER / name).read_text(encoding="utf-8") == docs.documents()[name]


@pytest.mark.parametrize("infra_type", ["vm", "container"])
def test_what_init_writes_is_sound(tmp_path: Path, infra_type: str) -> None:
    (tmp_path / ".env").write_text(docs.env_text(infra_type), encoding="utf-8")
    assert env.load(tmp_path, pytest.fail).infra_type == infra_type


@pytest.mark.parametrize("key", keys.KEYS.values(), ids=lambda key: key.name)
def test_examples_and_defaults_are_sound(key: schema.Key) -> None:
    template_text = docs.env_text(key.infra_type or "vm")
    assert f"{key.name}={key.example}\n" in template_text
    key.parse(key.example)
    if key.default:
        assert key.is_built(key.parse(key.default))
    assert bool(key.so_far) == (key.is_built is not schema.always)
