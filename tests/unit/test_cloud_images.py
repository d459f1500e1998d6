"""Where a cloud image is, by its name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ConfigError
from vagrantp.core.system import Host
from vagrantp.images import boxes, cloud


@pytest.fixture(autouse=True)
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_the_catalogue_has_what_box_may_be_called() -> None:
    for name in ("ubuntu-24.04", "fedora", "alpine", "arch"):
        found = cloud.source(name)
        assert found
        assert str(found.place).startswith("https://")
        assert str(found.checksums).startswith("https://")


def test_an_image_that_is_built_here(tmp_path: Path) -> None:
    assert boxes.is_built_here("debian-13")
    folder = tmp_path / "vagrantp"
    folder.mkdir()
    (folder / "catalogue.toml").write_text('[debian-13]\nurl = "https://mirror/debian"\n')
    assert not boxes.is_built_here("debian-13")
    assert not boxes.is_of_others("debian-13")
    assert cloud.source("debian-13") == cloud.Source("https://mirror/debian", None)


def test_a_vagrant_box_is_none() -> None:
    assert cloud.source("generic/debian12") is None


def test_a_mirror_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "vagrantp"
    folder.mkdir()
    (folder / "catalogue.toml").write_text('[arch]\nurl = "https://mirror/arch"\n')
    assert cloud.source("arch") == cloud.Source("https://mirror/arch", None)
    by_http = '[arch]\nurl = "http://mirror/arch"\nchecksums = "https://mirror/sums"\n'
    (folder / "catalogue.toml").write_text(by_http)
    assert cloud.source("arch") == cloud.Source("http://mirror/arch", "https://mirror/sums")
    assert str(cloud.source("fedora")).count("https://") == 2
    for text, said in (
        ("[arch]\n", "must have a line url"),
        ("[arch", "Expected ']'"),
        ('[arch]\nurl = "http://mirror/arch"\n', "must not be http without a checksum by https"),
        (by_http.replace("https", "HTTP"), "must not be http without a checksum by https"),
        ('[arch]\nurl = "file:///etc/shadow"\n', "must have URLs of https or http"),
        ('[arch]\nurl = "https://mirror/a\\nurl = file:///x"\n', "must have URLs of https or"),
        ('[arch]\nurl = "https://mirror/arch"\nchecksums = 7\n', "must have URLs of https or"),
        (by_http.replace("https", "ftp"), "must have URLs of https or http"),
    ):
        (folder / "catalogue.toml").write_text(text)
        with pytest.raises(ConfigError, match=said):
            cloud.source("arch")


DISK = bytes(510) + b"\x55\xaa"
CURL = """\
#!/bin/sh
printf '%s\\n' "$@" >> "$RECORD.argv"
while [ "$1" != --config ]; do shift; done
cat "$2" >> "$RECORD.config"
case " $* " in *" --silent "*) exec cat "$RECORD.sums" ;; esac
while [ "$1" != --output ]; do shift; done
head -c 510 /dev/zero > "$2"
printf '\\125\\252' >> "$2"
echo "got it from $(sed 's/url = //' "$RECORD.config")"
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a curl on PATH; return the start of the names of the files of what it was given."""
    curl, record = tmp_path / "curl", tmp_path / "record"
    curl.write_text(CURL.replace("$RECORD", str(record)))
    curl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return record


def test_the_checksum_that_is_published_beside_an_image(tmp_path: Path, record: Path) -> None:
    sums = f"SHA256 (other.img) = {'1' * 64}\nSHA256 (some.img) = {'0' * 64}\n"
    record.with_suffix(".sums").write_text(sums)
    found = cloud.Source("https://mirror.invalid/some.img", "https://mirror.invalid/CHECKSUM")
    digest = hashlib.sha256(DISK).hexdigest()
    with pytest.raises(ConfigError, match=f"has the checksum {digest}, not {'0' * 64}"):
        cloud.ensure(Host(Context()), "some", found, None, 20)
    assert not [*(tmp_path / "cache").rglob("some.img")]


@pytest.mark.parametrize(
    ("url", "schemes"),
    [
        ("https://me:secret@mirror.invalid:8443/a{1,2}.qcow2?key=secret", "=https"),
        ("http://secret@mirror.invalid/a[1-9].qcow2", "=http,https"),
        ('https://me:secret"\\n@mirror.invalid/a.qcow2', "=https"),
    ],
)
def test_a_password_reaches_curl_alone(
    tmp_path: Path, record: Path, url: str, schemes: str
) -> None:
    host = Host(Context(), log=tmp_path / "log")
    digest = hashlib.sha256(DISK).hexdigest()
    source = cloud.Source(url)
    with pytest.raises(ConfigError, match="DISK must be at least 1") as caught:
        cloud.ensure(host, url, source, digest, 0)
    argv = record.with_suffix(".argv").read_text().splitlines()
    assert argv[argv.index("--proto") + 1] == argv[argv.index("--proto-redir") + 1] == schemes
    assert "--globoff" in argv
    config = record.with_suffix(".config").read_text()
    assert config == 'url = "{}"\n'.format(url.replace("\\", "\\\\").replace('"', '\\"'))
    log = (tmp_path / "log").read_text()
    assert "got it from" in log
    for text in (*argv, str(caught.value), log):
        assert "secret" not in text
    assert not [*(tmp_path / "cache").rglob("curl")]


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
