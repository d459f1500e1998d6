"""F13: Podman copies http_proxy of whoever calls `fab up` into containers, password and all.

tests/e2e/test_oci_images.py holds the same for an image that ssh is added to, and
tests/e2e/test_cloud_images.py for a VM.
"""

from __future__ import annotations

from pathlib import Path

from tests.conftest import CONTAINER, PROXIES, MakeProject
from tests.e2e.conftest import guest, run, status


def test_a_container(guests: MakeProject) -> None:
    app = guests().write(CONTAINER)
    up = app.having(**PROXIES).fab("up")
    assert up.returncode == 0, up.stderr
    seen = guest(app, "sudo cat /proc/[0-9]*/environ; env; sudo env; bash --login -c env")
    assert "PATH=" in seen
    assert "SECRET" not in seen
    inspected = run("podman", "inspect", status(app)["instance"])
    assert "_proxy" not in inspected.lower().replace("--http-proxy=false", "")
    state = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert not [path for path in files if b"SECRET" in path.read_bytes()]
