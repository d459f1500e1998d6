"""The docs say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vagrantp import config, errors, schema, template

from tests.conftest import MASTER


def test_exit_codes() -> None:
    listed = re.findall(r"^\| (\d+) \|", (MASTER / "docs/exit-codes.md").read_text(), re.MULTILINE)
    raised = {0, *(kind.exit_code for kind in errors.VagrantpError.__subclasses__())}
    assert {int(code) for code in listed} == raised | {errors.VagrantpError.exit_code}


def test_the_readme_lists_the_keys_that_work() -> None:
    listed = re.findall(r"^\| `([A-Z_0-9]+)` \|", (MASTER / "README.md").read_text(), re.MULTILINE)
    keys = schema.KEYS.values()
    assert set(listed) >= {k.name for k in keys if k.is_built is schema.always or k.is_required}
    assert set(listed) <= {k.name for k in keys if k.is_built is not schema.never}


@pytest.mark.parametrize("name", template.documents())
def test_what_make_docs_writes_is_up_to_date(name: str) -> None:
    assert (MASTER / name).read_text(encoding="utf-8") == template.documents()[name]


@pytest.mark.parametrize("infra_type", ["vm", "container"])
def test_what_init_writes_is_sound(tmp_path: Path, infra_type: str) -> None:
    (tmp_path / ".env").write_text(template.env_text(infra_type), encoding="utf-8")
    assert config.load(tmp_path, pytest.fail).infra_type == infra_type


@pytest.mark.parametrize("key", schema.KEYS.values(), ids=lambda key: key.name)
def test_examples_and_defaults_are_sound(key: schema.Key) -> None:
    template_text = template.env_text("vm")
    assert f"{key.name}={key.example}\n" in template_text
    key.validate(key.example)
    if key.default:
        assert key.is_built(key.validate(key.default))
    assert bool(key.so_far) == (key.is_built not in (schema.always, schema.never))
