"""Where a cloud image is, by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.images import cloud


@pytest.fixture(autouse=True)
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_the_catalogue_has_what_box_may_be_called() -> None:
    for name in ("debian-13", "ubuntu-24.04", "fedora", "alpine", "arch"):
        found = cloud.source(name)
        assert found
        assert str(found.place).startswith("https://")
        assert str(found.checksums).startswith("https://")


def test_a_vagrant_box_is_none() -> None:
    assert cloud.source("generic/debian12") is None


def test_a_mirror_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "vagrantp"
    folder.mkdir()
    (folder / "catalogue.toml").write_text('[arch]\nurl = "http://mirror/arch"\n')
    assert cloud.source("arch") == cloud.Source("http://mirror/arch", None)
    assert str(cloud.source("fedora")).count("https://") == 2
    for text, said in (("[arch]\n", "must have a line url"), ("[arch", "Expected ']'")):
        (folder / "catalogue.toml").write_text(text)
        with pytest.raises(ConfigError, match=said):
            cloud.source("arch")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a" * 64 + "  x.img\n" + "b" * 64 + "  y.img\n",
            [("x.img", "a" * 64), ("y.img", "b" * 64)],
        ),
        ("a" * 128 + " *x.img\n", [("x.img", "a" * 128)]),
        ("a" * 64 + "\n", [(None, "a" * 64)]),
        ("-----BEGIN PGP\n# x\nSHA256 (x.img) = " + "a" * 64 + "\n", [("x.img", "a" * 64)]),
    ],
)
def test_checksums_are_read_in_each_of_their_forms(
    text: str, expected: list[tuple[str | None, str]]
) -> None:
    assert cloud.checksums(text) == expected
