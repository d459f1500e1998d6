"""What a box made for Vagrant says of its disk: it is somebody else's, and may say anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.images import boxes, store

from tests.unit.test_disk_images import MBR, qcow2


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the box test/odd; a disk that is not its own lies beside it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = store.vagrant_home() / "boxes/test-VAGRANTSLASH-odd/1/libvirt"
    folder.mkdir(parents=True)
    (folder / "box.img").write_bytes(qcow2())
    (folder.parent / "other.img").write_bytes(qcow2())
    (folder / "link.img").symlink_to("../other.img")
    (folder / "loop.img").symlink_to("loop.img")
    (folder / "inside.img").symlink_to("box.img")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "Vagrantfile").touch()
    virsh = tmp_path / "bin/virsh"  # of an empty pool
    virsh.parent.mkdir()
    virsh.write_text("#!/bin/sh\n")
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{virsh.parent}:{os.environ['PATH']}")
    return folder


def ensure() -> store.Box:
    return boxes.ensure(Host(Context(), dry=True), "test/odd", None, 5)


def disks(*paths: object) -> str:
    return json.dumps({"disks": [{"path": path} for path in paths]})


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        *((disks(path), "plain name") for path in ("../other.img", "/etc/passwd", "a/b", "..", "")),
        *(
            (disks(path), "plain name")
            for path in (7, None, ["box.img"], "a\0b", "\ud800", "x" * 999)
        ),
        ('{"disks": {"path": "box.img"}}', "plain name"),
        ('{"disks": ["box.img"]}', "plain name"),
        ('{"disks": 7}', "plain name"),
        *((disks(name), f"no file {name}") for name in ("none.img", "link.img", "loop.img")),
        *((disks(name), f"no file {name}") for name in ("fifo", "folder")),
        (disks("box.img", "box.img"), "2 disks"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("9" * 10_000, "JSON"),
        ("\xff", "JSON"),
        (" " * 1_100_000, "1 MB at most"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_refused(box: Path, metadata: str, why: str) -> None:
    (box / "metadata.json").write_bytes(metadata.encode("latin-1"))
    with pytest.raises(ProviderError, match=why):
        ensure()


def test_metadata_that_is_a_fifo(box: Path) -> None:
    os.mkfifo(box / "metadata.json")
    with pytest.raises(ProviderError, match="regular"):
        ensure()


@pytest.mark.parametrize(
    "metadata", ["{}", "[]", "7", '{"disks": []}', disks("box.img"), disks("inside.img")]
)
def test_what_is_used(box: Path, metadata: str, capsys: pytest.CaptureFixture[str]) -> None:
    (box / "metadata.json").write_text(metadata)
    assert ensure().virtual_size == 5 << 30
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    linked = {Path(words[2]).name for words in lines if words[1] == "link"}
    assert {"Vagrantfile", "folder"} <= linked
    assert not {"box.img", "link.img"} & linked  # made by qemu-img; leads out of the box
    moved = [(Path(words[2]).name, Path(words[4]).name) for words in lines if words[1] == "move"]
    assert ("box.img", "box.img") in moved
    (box / "box.img").write_bytes(MBR)
    assert ensure().virtual_size == 512
