"""BOX as a cloud image: a file, a URL, a name of the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.boxes import cloud
from tests.conftest import PROXIES, VM, MakeProject
from tests.e2e.conftest import forget_box, guest, run, volumes


@contextmanager
def serving(files: dict[str, bytes], dies: int = 0) -> Iterator[tuple[str, list[int]]]:
    """Serve files; give the URL and a list of where each answer began.

    The first `dies` connections break off in the middle.
    """
    starts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files[self.path]
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            starts.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", '"1"')
            self.end_headers()
            end = start + (len(data) - start) // 2 if len(starts) <= dies else len(data)
            self.wfile.write(data[start:end])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", starts
    finally:
        server.shutdown()
        server.server_close()


USER_DATA = """\
#cloud-config
hostname: mine
write_files:
  - {path: /etc/mine, content: "a file of mine"}
runcmd:
  - touch /etc/ran
"""
PLAYBOOK = "- hosts: all\n  become: true\n  tasks: [{command: touch /etc/played}]\n"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a cloud image, and forget what became of it."""
    file = tmp_path_factory.mktemp("image") / "some.qcow2"
    cloud.build(file)
    before = volumes()
    yield file
    forget_box("some")
    assert volumes() == before


def test_an_image_from_a_server_that_dies_twice(image: Path, guests: MakeProject) -> None:
    data = image.read_bytes()
    app = guests("it's from afar")
    cache = {"XDG_CACHE_HOME": str(image.parent / "cache")}
    right, wrong = hashlib.sha256(data).hexdigest(), "0" * 64
    (app.folder / "user-data").write_text(USER_DATA)
    (app.folder / "site.yml").write_text(PLAYBOOK)
    more = {"CLOUD_INIT": "user-data", "PROVISION_SCRIPT": "site.yml"}
    asked = {**VM, "DISK": 4, "SSH_USER": "av", **more}
    with serving({"/some.qcow2": data}, dies=2) as (url, starts):
        box = f"{url}/some.qcow2"
        app.write({**asked, "BOX": box, "IMAGE_SHA256": wrong})
        up = app.having(**cache).fab("up")
        assert up.returncode == 2
        assert f"has the checksum {right}, not {wrong}" in up.stderr
        half = len(data) // 2
        assert starts == [0, half, half + (len(data) - half) // 2]
        assert not [*(image.parent / "cache/vagrantp/images").glob("*")]

        app.write({**asked, "BOX": box, "IMAGE_SHA256": right})
        up = app.having(**cache, **PROXIES).fab("up")
        assert up.returncode == 0, up.stderr
        seen = guest(app, "sudo sh -c 'cat /proc/[0-9]*/environ; grep -rs SECRE[T] /etc'; env")
        assert "SECRET" not in seen
        assert guest(app, "id -un; sudo -n id -un") == "av\nroot\n"
        assert guest(app, "cat /etc/mine; hostname") == "a file of minemine\n"
        assert guest(app, "ls /etc/ran /etc/played").count("\n") == 2
        verify = app.fab("verify")
        assert verify.returncode == 0, verify.stdout

        # once downloaded it is there
        assert app.fab("rm", "--force").returncode == 0
        served = len(starts)
        assert "would run" in app.having(**cache).fab("up", "--dry").stdout
        assert len(starts) == served


def test_a_file_and_its_checksum(image: Path, guests: MakeProject) -> None:
    app = guests("it's here")
    (app.folder / "some.qcow2").write_bytes(b"no image")
    app.write({**VM, "BOX": "./some.qcow2"})
    up = app.fab("up")
    assert up.returncode == 2
    assert "it has no partition table" in up.stderr
    (app.folder / "some.qcow2").write_bytes(image.read_bytes())
    app.write({**VM, "BOX": "./some.qcow2", "IMAGE_SHA256": "0" * 64})
    up = app.fab("up")
    assert (up.returncode, "has the checksum" in up.stderr) == (2, True)
    raw = app.folder / "some.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(raw))
    app.write({**VM, "BOX": "./some.raw"})
    assert "would run qemu-img convert -f raw -O qcow2 " in app.fab("up", "--dry").stdout


def test_a_mirror_without_https(image: Path, guests: MakeProject) -> None:
    """One that anybody in between can exchange is refused."""
    app = guests("it's known")
    config = Path(app.environment["XDG_CONFIG_HOME"]) / "vagrantp"
    config.mkdir(parents=True)
    with serving({}) as (url, starts):
        mirror = f'[fedora]\nurl = "{url}/some.img"\nchecksums = "{url}/CHECKSUM"\n'
        (config / "catalogue.toml").write_text(mirror)
        app.write({**VM, "BOX": "fedora"})
        up = app.fab("up", XDG_CACHE_HOME=str(image.parent / "cache"))
        app.write({**VM, "BOX": f"{url}/some.img"})
        unchecked = app.fab("up")
    assert (up.returncode, unchecked.returncode, starts) == (2, 2, [])
    assert "[fedora] must not be http without a checksum by https" in up.stderr
    assert ".env:" in unchecked.stderr
    assert "hint: use https, or give IMAGE_SHA256" in unchecked.stderr
