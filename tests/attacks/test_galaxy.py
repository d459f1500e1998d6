"""What a requirements.yml fetches stays in the sandbox, and comes out as plain files.

The internet is a proxy on the loopback, which is every server of it at once.
"""

from __future__ import annotations

import io
import os
import ssl
import stat
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socket import socket

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProvisionError
from vagrantp.core.system import Host
from vagrantp.guest import galaxy

from tests.e2e.conftest import run
from tests.unit.test_relay import server

# What a role's author may put into an archive: name, type, mode, link.
PARTS = (
    ("role/meta/main.yml", tarfile.REGTYPE, 0o644, ""),
    ("role/tasks/main.yml", tarfile.REGTYPE, 0o600, ""),
    ("role/files/tool", tarfile.REGTYPE, 0o6777, ""),
    ("role/files/same", tarfile.SYMTYPE, 0o777, "tool"),
)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that every server has; `asked` beside it gets what the proxy was asked for."""
    served, key, certificate = tmp_path / "served", tmp_path / "key", tmp_path / "certificate"
    served.mkdir()
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=example.com"),
        *("-addext", "subjectAltName=DNS:*.example.com", "-keyout", str(key)),
        *("-out", str(certificate)),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    handler = partial(Quiet, directory=str(served))

    def answer(client: socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        with (tmp_path / "asked").open("ab") as asked:
            asked.write(head.splitlines()[0] + b"\n")
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with context.wrap_socket(client, server_side=True) as wrapped:
            handler(wrapped, ("127.0.0.1", 0), None)  # type: ignore[arg-type]  # it needs none

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in galaxy.AUTHORITIES:
        monkeypatch.setenv(name, str(certificate))
    with server(answer) as (host, port):
        monkeypatch.setenv("https_proxy", f"http://{host}:{port}")
        yield served


def fetched(tmp_path: Path, requirements: str) -> Path:
    """Fetch what a requirements.yml asks for."""
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    (folder / "requirements.yml").write_text(requirements)
    found = galaxy.ensure(Host(Context(), log=tmp_path / "log"), folder / "site.yml", folder)
    assert found
    return found


def test_a_role_comes_out_as_plain_files(internet: Path, tmp_path: Path) -> None:
    with tarfile.open(internet / "role.tar.gz", "w:gz") as archive:
        for name, kind, mode, link in PARTS:
            part = tarfile.TarInfo(name)
            part.type, part.mode, part.linkname = kind, mode, link
            text = b"{}" if name.endswith(".yml") else b""
            part.size = len(text)
            archive.addfile(part, io.BytesIO(text))
    requirements = "- src: https://www.example.com/role.tar.gz\n"
    found = fetched(tmp_path, requirements)
    assert (found / "roles/role/meta/main.yml").is_file()
    assert (found / "roles/role/files/same").resolve() == found / "roles/role/files/tool"
    for path in found.rglob("*"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.getuid(), os.getgid())
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) in (0o644, 0o755), path
    asked = (tmp_path / "asked").read_text()
    assert fetched(tmp_path, requirements) == found
    assert (tmp_path / "asked").read_text() == asked  # once is enough


def test_a_collection_by_url(internet: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "roles/it/tasks").mkdir(parents=True)
    (source / "roles/it/tasks/main.yml").write_text("[]")
    (source / "README.md").touch()
    (source / "galaxy.yml").write_text(
        "{namespace: mine, name: own, version: 1.0.0, authors: [me], readme: README.md}"
    )
    build = ("-m", "ansible", "galaxy", "collection", "build", f"--output-path={internet}")
    run(sys.executable, *build, str(source))
    found = fetched(tmp_path, "collections: ['https://www.example.com/mine-own-1.0.0.tar.gz']")
    assert (found / "ansible_collections/mine/own/roles/it/tasks/main.yml").is_file()


@pytest.mark.parametrize(
    ("dependency", "problem"),
    [
        ("git+file:///etc", "transport 'file' not allowed"),
        ("git+https://10.0.0.1/x.git", "CONNECT tunnel failed, response 403"),
        ("https://127.0.0.1/x.tar.gz", "403 127.0.0.1 is not on the internet"),
    ],
)
def test_a_role_by_git_whose_dependency_is_not_on_the_internet(
    internet: Path, tmp_path: Path, dependency: str, problem: str
) -> None:
    work = tmp_path / "work"
    (work / "meta").mkdir(parents=True)
    (work / "meta/main.yml").write_text(f"dependencies: [{{src: '{dependency}', name: x}}]")
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    run("git", "init", "-q", str(work))
    run("git", "-C", str(work), "add", ".")
    run("git", "-C", str(work), *identity, "commit", "-qm", "role")
    run("git", "clone", "-q", "--bare", str(work), str(internet / "role.git"))
    run("git", "-C", str(internet / "role.git"), "update-server-info")
    with pytest.raises(ProvisionError) as error:
        fetched(tmp_path, "roles: [{src: 'git+https://git.example.com/role.git', name: it}]")
    assert problem in error.value.message
    assert "it was installed successfully" in (tmp_path / "log").read_text()
    assert {*(tmp_path / "asked").read_text().splitlines()} == {
        "CONNECT git.example.com:443 HTTP/1.1"
    }
    assert not [*(tmp_path / "cache/vagrantp/galaxy").iterdir()]
