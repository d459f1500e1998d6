"""The docs say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from vagrantp.core import errors
from vagrantp.settings import docs, env, keys, schema

from tests.conftest import MASTER, VERBS


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


def test_the_verbs_page_lists_every_verb_and_option() -> None:
    page = (MASTER / "docs/verbs.md").read_text()
    rows = dict(re.findall(r"^\| `fab ([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    verbs = runpy.run_path(str(MASTER / "fabfile.py"))["ns"]
    assert sorted(verbs.task_names) == VERBS
    for verb, row in rows.items():
        for argument in verbs[verb].get_arguments():
            name = argument.name.strip("_").replace("_", "-")
            option = f"--{'no-' * (argument.default is True)}{name}"
            assert f"`{option}" in (page if option in ("--verbose", "--no-wait") else row)


def test_the_readme_lists_the_ten_commonest_keys() -> None:
    row = re.compile(r"^\| `([A-Z_0-9]+)` \| (\S+)", re.MULTILINE)
    defaults = dict(row.findall((MASTER / "README.md").read_text()))
    listed = [*defaults]
    assert len(listed) == 10
    for name, default in defaults.items():
        key = keys.KEYS[name]
        is_none = "required" if key.is_required else "none"
        assert default == (f"`{key.default}`" if key.default else is_none), name
    row = re.compile(r"^\| `([A-Z_0-9]+)` \|", re.MULTILINE)
    assert set(listed) >= {key.name for key in keys.KEYS.values() if key.is_required}
    assert set(listed) <= set(row.findall((MASTER / "docs/configuration.md").read_text()))
    assert set(keys.KEYS) <= set(row.findall((MASTER / "docs/configuration.md").read_text()))


def test_the_readme_has_at_most_a_hundred_lines() -> None:
    assert len((MASTER / "README.md").read_text().splitlines()) <= 100


def _anchors(page: Path) -> set[str]:
    """Return what may follow # in a link to a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize(
    "page",
    [*MASTER.glob("*.md"), *MASTER.glob("docs/**/*.md")],
    ids=lambda page: str(page.relative_to(MASTER)),
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link
    for name in re.findall(r"`?\b(docs/[\w/-]+\.md)\b`?", page.read_text(encoding="utf-8")):
        assert (MASTER / name).exists(), name


def test_the_reference_says_what_is_not_built() -> None:
    text = (MASTER / "docs/configuration.md").read_text()
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
