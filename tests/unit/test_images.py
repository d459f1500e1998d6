"""The pure parts of building base images."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.host import checks
from vagrantp.images import bootstrap, built

TARGETS = """\
Debian|Debian|http://mirror.example/debian
Debian|Debian|http://mirror.example/debian
Debian|Debian-Security|https://security.example/debian-security/
Docker|Docker CE|https://download.example/linux/debian
|Node|https://node.example/node_20.x
"""


def test_mirrors_are_the_hosts_own_and_no_third_partys() -> None:
    assert bootstrap.mirrors(TARGETS) == (
        "http://mirror.example/debian",
        "https://security.example/debian-security",
    )


@pytest.mark.parametrize(
    "targets",
    ["", "\n", "half a line", "Debian|Debian|cdrom:[Debian 12]/", "Ubuntu|Ubuntu|http://u.example"],
)
def test_a_host_without_mirrors_of_debian_uses_the_public_ones(targets: str) -> None:
    assert bootstrap.mirrors(targets) == bootstrap.PUBLIC


def test_a_list_of_mirrors_stands_for_its_first(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("https://first.example/debian\nhttps://second.example/debian\n")
    targets = f"Debian|Debian|mirror+file:{listed}"
    assert bootstrap.mirrors(targets)[0] == "https://first.example/debian"
    listed.unlink()
    assert bootstrap.mirrors(targets) == bootstrap.PUBLIC


def test_sources_of_an_image() -> None:
    signed = f"deb [signed-by={bootstrap.KEYRING}]"
    assert bootstrap.sources("bookworm", "http://d.example", "http://s.example") == (
        f"{signed} http://d.example bookworm main\n"
        f"{signed} http://d.example bookworm-updates main\n"
        f"{signed} http://s.example bookworm-security main\n"
    )


@pytest.mark.parametrize(
    ("site", "inside"),
    [
        ("http://localhost:3142/debian", "public"),
        ("http://127.0.0.1/debian", "public"),
        ("http://[::1]:9999/debian", "public"),
        ("http://mirror.example/debian", "http://mirror.example/debian"),
        ("http://localhost.example/debian", "http://localhost.example/debian"),
        ("https://me:secret@mirror.example/debian", "public"),
    ],
)
def test_a_guest_gets_a_mirror_that_it_can_and_may_use(site: str, inside: str) -> None:
    assert bootstrap.for_guest(site, "public") == inside


def test_a_proxy_counts_during_the_build_only() -> None:
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https::Verify-Peer "true";\n'
        'Acquire::Languages:: "none";\n'
    )
    assert bootstrap.apt_settings(dump) == (
        ['Acquire::Check-Valid-Until "false";'],
        [
            'Acquire::http::Proxy "http://proxy.example:3128";',
            'Acquire::https::Verify-Peer "true";',
        ],
    )


def test_package_lists_have_comments() -> None:
    assert bootstrap.packages("# all of it\n\nsudo\npython3 # for Ansible\n") == ["sudo", "python3"]


def test_packages_are_counted_as_apt_tells_them() -> None:
    count = bootstrap.PackageCount()
    count.take("Setting up usr-is-merged (1) ...")
    assert str(count) == ""
    for line in (
        "0 upgraded, 58 newly installed, 0 to remove and 0 not upgraded.",
        "Unpacking libgpg-error0:amd64 (1.46-1) ...",
        "Setting up libgpg-error0:amd64 (1.46-1) ...",
        "1 upgraded, 12 newly installed, 0 to remove and 0 not upgraded.",
        "Setting up usr-is-merged (37) ...",
        "Setting up sudo (1.9.13p3-1) ...",
    ):
        count.take(line)
    assert str(count) == "package 3 of 71"


def test_what_apt_stumbled_over_is_told() -> None:
    others = ["Setting up libgpg-error0 ...", "I: cleaning"]
    told = ["E: Unable to locate package nowhere", "E: mmdebstrap failed to run"]
    assert bootstrap.apts_reason([*others, *told], "trixie") == "Unable to locate package nowhere"
    assert bootstrap.apts_reason(others, "trixie") == ""
    full = ["dpkg: error: failed to write: No space left on device", "E: env chroot … failed"]
    assert bootstrap.apts_reason(full, "trixie") == "No space left on device"
    for unknown in (
        "W: GPG error: http://d.example trixie InRelease: … not available: NO_PUBKEY 762F67A0",
        "  Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 4CB5",
    ):
        lines = [unknown, "E: The repository 'http://d.example trixie InRelease' is not signed."]
        why = "debian-archive-keyring of this host lacks keys of trixie: install a newer one"
        assert bootstrap.apts_reason(lines, "trixie") == why


def test_boot_code_knows_where_it_stands() -> None:
    boot, core = b"\xaa" * 512, b"\xbb" * 1500
    first, rest = bootstrap.boot_code(boot, core, 2048)
    # The partition table of the first sector is not ours to write.
    assert len(first) == 440
    assert struct.unpack_from("<Q", first, 0x5C) == (2048,)
    assert first[:0x5C] + first[0x64:] == b"\xaa" * (440 - 8)
    # The first sector of the core loads the rest of it from the next one on.
    assert struct.unpack_from("<Q", rest, 500) == (2049,)
    assert rest[:500] + rest[508:] == b"\xbb" * (1500 - 8)


def write_recipe(folder: Path) -> Path:
    """Write a small recipe."""
    (folder / "files/etc").mkdir(parents=True)
    (folder / "packages").write_text("sudo\n")
    (folder / "files/etc/motd").write_text("hello\n")
    return folder


def test_a_recipe_has_the_same_digest_in_every_checkout(tmp_path: Path) -> None:
    digest = built.recipe(write_recipe(tmp_path / "one"))
    assert digest == built.recipe(write_recipe(tmp_path / "two"))
    assert len(digest) == 10
    assert set(digest) <= set("0123456789abcdef")


def test_whatever_changes_an_image_changes_the_digest(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path)
    motd = folder / "files/etc/motd"
    seen = [built.recipe(folder)]
    motd.write_text("hello!\n")
    seen.append(built.recipe(folder))
    motd.chmod(0o755)
    seen.append(built.recipe(folder))
    motd.rename(folder / "files/motd")
    seen.append(built.recipe(folder))
    seen.append(built.recipe(folder, "2026-11-28T11:00:00+00:00"))
    assert len(set(seen)) == len(seen)


@pytest.fixture
def podmans_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a podman on PATH that says of any image when it was made: what is in this file."""
    program, created = tmp_path / "bin/podman", tmp_path / "created"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "image inspect" ] && cat {created}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return created


@pytest.mark.parametrize(("days", "outcome"), [(0, "ok"), (30, "ok"), (31, "warning")])
def test_an_old_image_is_named(podmans_image: Path, days: int, outcome: str) -> None:
    then = time.time() - days * 24 * 60 * 60 - 1
    podmans_image.write_text(f"{then:.0f}\n")
    box = built.kernel("debian-12").with_name("box.img")
    box.parent.mkdir(parents=True)
    box.touch()
    os.utime(box, (then, then))
    for kind in ("vm", "container"):
        found = checks.age(Host(Context()), kind, "debian-12")
        assert found.outcome == outcome
        assert found.found == f"base image debian-12 ({kind}) is {days} days old"


def test_no_image_has_no_age(podmans_image: Path) -> None:
    for kind in ("vm", "container"):
        assert built.days_old(Host(Context()), kind, "debian-12") is None
    assert not podmans_image.exists()


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_recipes_are_complete(kind: str) -> None:
    folder = built.RECIPES / kind
    names = bootstrap.packages((folder / "packages").read_text())
    assert names == sorted(names)
    assert "openssh-server" in names
    assert (folder / "finish").is_file()
