"""Images that have what our own playbooks install: made once, for containers of any project."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, MakeProject, Project, inventory
from tests.e2e.conftest import guest, run, status, until

MOMENTS = int(os.environ.get("VAGRANTP_CHAOS", "20"))
BUILDER = "vagrantp-build-"


def filled() -> list[str]:
    """Return the images that have what our own playbooks install."""
    listing = run("podman", "images", "--format", "{{.Repository}}:{{.Tag}} {{.Labels}}")
    return [line.split()[0] for line in listing.splitlines() if "vagrantp.preset" in line]


@pytest.fixture
def images() -> Iterator[None]:
    """Remove the images that a test has made."""
    before = filled()
    yield
    for name in {*filled()} - {*before}:
        run("podman", "image", "rm", name)


def authorities(app: Project) -> Project:
    """Give a project this host's own authorities: registries may be behind one."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    found = re.findall(r"-----BEGIN.+?-----END CERTIFICATE-----\n", bundle, re.DOTALL)
    (app.folder / "ca.pem").write_text("".join(found[-20:]))
    return app


def builders() -> list[str]:
    """Return the builders that there are, at work or not."""
    names = run("podman", "ps", "--all", "--format", "{{.Names}}").split()
    return [name for name in names if name.startswith(BUILDER)]


def killed(app: Project, wait: float, number: int) -> None:
    """Kill an `up` so many seconds after it has begun to make an image; then call `rm`."""
    before = inventory()
    process = app.start("up")
    until(lambda: bool(builders()) or process.poll() is not None, 120)
    time.sleep(wait)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert "Traceback" not in said, said
    assert app.fab("rm", "--force").returncode == 0
    assert [line for line in inventory() if line not in before] == []
    assert builders() == []


def test_a_killed_build_leaves_nothing(guests: MakeProject, images: None) -> None:
    app = guests().write({**CONTAINER, "PROVISION_SCRIPT": "agent", "SSH_USER": "killed"})
    for wait, number in ((0, signal.SIGKILL), (4, signal.SIGKILL), (3, signal.SIGINT)):
        killed(app, wait, number)


@pytest.mark.soak
def test_killed_at_any_moment(guests: MakeProject, images: None) -> None:
    app = authorities(guests())
    values = {**CONTAINER, "AGENT": "claude", "CA_CERTS": "ca.pem", "MEMORY": 2048}
    app.write(values)
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    kept = run("podman", "inspect", "--format", "{{.ImageName}}", status(app)["instance"]).strip()
    assert app.fab("rm", "--force").returncode == 0
    # Once more, on top of itself: all steps are taken, and each is short.
    app.write({**values, "IMAGE": kept})
    start = time.monotonic()
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - start
    for moment in range(MOMENTS):
        assert app.fab("rm", "--force").returncode == 0
        for name in {*filled()} - {kept}:
            subprocess.run(["podman", "image", "rm", name], capture_output=True, check=False)
        killed(app, seconds * moment / MOMENTS, signal.SIGKILL)


@pytest.mark.soak
def test_two_projects_of_one_image(guests: MakeProject, images: None) -> None:
    values = {**CONTAINER, "AGENT": "claude", "CA_CERTS": "ca.pem", "SSH_USER": "av"}
    before = filled()
    one, two = authorities(guests("one")), authorities(guests("two"))
    (two.folder / "site.yml").write_text(
        "- hosts: all\n  become: true\n  tasks: [command: touch /etc/own]\n"
    )
    processes = [
        app.write({**values, "PROVISION_SCRIPT": script}).start("up", "--accept")
        for app, script in ((one, "agent"), (two, "agent,site.yml"))
    ]
    for process in processes:
        _, said = process.communicate(timeout=1800)
        assert process.returncode == 0, said
        assert "agent,claude by its image" in said
    assert len({*filled()} - {*before}) == 1
    guest(two, "ls /etc/own")
    guest(one, "! ls /etc/own")
    for app in (one, two):
        assert "Claude Code" in guest(app, "claude --version")
        assert app.fab("verify").returncode == 0

    own = (
        "sudo cat /etc/ssh/ssh_host_*_key /etc/machine-id /var/lib/dbus/machine-id ~/.ssh/* || true"
    )
    first, second = (set(filter(None, guest(app, own).splitlines())) for app in (one, two))
    shared = {line for line in first & second if not line.startswith("-----")}
    # the first lines of any two keys of this kind are alike
    assert not [line for line in shared if "ssh-ed25519" in line or len(line) == 32], shared
    for app in (one, two):
        logs = guest(
            app,
            "sudo find /tmp /var/tmp ~/.npm ~/.cache -type f 2>/dev/null || true",
        )
        assert logs == ""
        assert BUILDER not in guest(
            app, "sudo grep -rs vagrantp-build /etc /var/lib /home /root || true"
        )

    # all of it once more, in one's own container
    done = one.fab("provision")
    assert done.returncode == 0, done.stderr
    assert "by its image" not in done.stderr
    assert status(one)["state"] == "running"


@pytest.mark.soak
def test_certificates_of_one_project_are_in_no_others_image(
    guests: MakeProject, images: None
) -> None:
    app = authorities(guests())
    values = {**CONTAINER, "PROVISION_SCRIPT": "base"}
    assert app.write({**values, "CA_CERTS": "ca.pem"}).fab("up").returncode == 0
    assert app.fab("rm", "--force").returncode == 0
    done = app.write(values).fab("up")
    assert done.returncode == 0, done.stderr
    assert "fill an image" in done.stderr
    guest(app, "! ls /etc/ssl/vagrantp.pem")
