"""F13: Podman copies http_proxy of whoever calls `fab up` into containers, password and all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp import images
from vagrantp.run import Host

from tests.conftest import CONTAINER, MakeProject
from tests.e2e.conftest import guest, run, status

URL = "http://u:SECRET@127.0.0.1:9"
PROXIES = {
    f"{case(kind)}": URL
    for kind in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
    for case in (str.lower, str.upper)
}


@pytest.fixture
def image() -> Iterator[str]:
    """Give our base image another name: so it is one to which ssh is added, with no download."""
    name = "localhost/test/proxied:1"
    run("podman", "tag", images.ensure_container_image(Host(Context()), "debian-12"), name)
    yield name
    listing = run("podman", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    ours = [known for known in listing if known.startswith("localhost/vagrantp-localhost-test-")]
    run("podman", "rmi", "--force", *ours)
    run("podman", "untag", name, name)


def test_a_container_and_its_image(guests: MakeProject, image: str) -> None:
    app = guests().write({**CONTAINER, "IMAGE": image})
    up = app.fab("up", **PROXIES)
    assert up.returncode == 0, up.stderr
    everywhere = "sudo cat /proc/[0-9]*/environ; env; sudo env; bash --login -c env"
    seen = guest(app, f"{everywhere}; sudo grep -rs SECRET /etc /root /home /run /var || true")
    assert "PATH=" in seen
    assert "SECRET" not in seen
    inspected = run("podman", "inspect", status(app)["instance"])
    assert "SECRET" not in inspected
    assert "_proxy" not in inspected.lower()
    made = json.loads(inspected)[0]["ImageName"]
    assert made.startswith("localhost/vagrantp-localhost-test-proxied-")
    assert "SECRET" not in run("podman", "image", "inspect", made)
    state = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert not [path for path in files if b"SECRET" in path.read_bytes()]
