"""What galaxy.py and fetch.py do with files: pure, without a sandbox."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
from vagrantp.core.files import make_plain
from vagrantp.guest import fetch


def test_a_folder_that_others_filled_becomes_plain(tmp_path: Path) -> None:
    folder, outside = tmp_path / "it", tmp_path / "outside"
    (folder / "deep/er").mkdir(parents=True)
    outside.write_text("mine")
    outside.chmod(0o640)
    for name, mode in (("plain", 0o600), ("tool", 0o6777), ("deep/er/none", 0)):
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
    for name, target in (
        *(("in", "plain"), ("deep/er/up", "../../tool"), ("dangling", "none"), ("to-dir", "deep")),
        *(("out", "../outside"), ("absolute", str(folder / "plain")), ("root", "/")),
        *(("loop", "loop"), ("deep/by-way", "er/up/../../../../outside"), ("chain", "out")),
        ("by-dir", "to-dir/../../outside"),
    ):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(folder / "socket"))
    (folder / ("d/" * 80)).mkdir(parents=True)
    (folder / "deep").chmod(0o2000)
    make_plain(folder)
    assert (folder / ("d/" * 64)).is_dir()
    assert not (folder / ("d/" * 65)).exists()
    shutil.rmtree(folder / "d")
    found = {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*")}
    links = {name for name, mode in found.items() if stat.S_ISLNK(mode)}
    assert links == {"in", "deep/er/up", "dangling", "to-dir"}
    assert {name: stat.S_IMODE(mode) for name, mode in found.items() if name not in links} == {
        **{"deep": 0o755, "deep/er": 0o755},
        **{"plain": 0o644, "tool": 0o755, "deep/er/none": 0o644},
    }
    assert stat.S_IMODE(outside.stat().st_mode) == 0o640


def test_how_much_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/loop").symlink_to(tmp_path)
    (tmp_path / "large").write_bytes(bytes(1024 * 1024))
    monkeypatch.setattr(fetch, "MAX_FILES", 3)
    monkeypatch.setattr(fetch, "MAX_BYTES", 2 * 1024 * 1024)
    assert not fetch.is_too_much(tmp_path)
    (tmp_path / "folder/empty").touch()
    assert fetch.is_too_much(tmp_path)
    (tmp_path / "folder/empty").unlink()
    (tmp_path / "large").write_bytes(bytes(3 * 1024 * 1024))
    assert fetch.is_too_much(tmp_path)
