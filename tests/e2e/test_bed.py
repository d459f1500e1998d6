"""Ordinary users with rootless Podman, systemd and cgroup v2: in a VM that this tool made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from vagrantp import images
from vagrantp.run import Host

from tests.boxes import bed as beds
from tests.boxes import run
from tests.conftest import CONTAINER, MASTER, VM, Project, env_text, inventory
from tests.e2e.conftest import status

LIMITS = {"MEMORY": 300, "CPUS": 1}
FAB = "/srv/master/.venv/bin/fab -r /srv/master"


@dataclass(frozen=True)
class Bed:
    """A running VM and how its users get in."""

    ssh: tuple[str, ...]
    name: str

    def start(self, user: str, command: str, data: bytes = b"") -> subprocess.Popen[bytes]:
        """Start a command in a login session of a user."""
        process = subprocess.Popen(
            [*self.ssh, "-l", user, self.name, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(data)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, user: str, command: str, expected: int = 0, data: bytes = b"") -> str:
        """Run a command in a login session of a user; return its stdout, then stderr."""
        return end(self.start(user, command, data), expected)


def end(process: subprocess.Popen[bytes], expected: int = 0) -> str:
    """Wait for a command; return its stdout, then stderr."""
    out, err = process.communicate(timeout=600)
    text = out.decode() + err.decode()
    assert process.returncode == expected, text
    return text


@pytest.fixture(
    scope="module",
    params=["bookworm", pytest.param("trixie", marks=pytest.mark.soak)],
)
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Make a bed, with this checkout in it and the host set-up done."""
    before, work = inventory(), tmp_path_factory.mktemp("bed")
    assert request.config.cache
    baked = beds.make(request.param, request.config.cache.mkdir("boxes"), work / "box")
    link = Path.home() / ".vagrant.d/boxes" / baked.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(baked)
    name = baked.name.replace("-VAGRANTSLASH-", "/")
    environment = {"XDG_STATE_HOME": str(work / "state"), "XDG_CONFIG_HOME": str(work / "config")}
    folder = work / "bed"
    folder.mkdir()
    app = Project(folder, {**os.environ, **environment})
    app.write({**VM, "BOX": name, "MEMORY": 3072, "CPUS": 2, "DISK": 10})
    try:
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
        full_name = status(app)["instance"]
        config = work / "state/vagrantp" / full_name / "ssh_config"
        made = Bed(("ssh", "-F", str(config)), full_name)
        _fill(app, made)
        yield made
    finally:
        done = app.fab("rm", "--force")
        link.unlink()
        _forget(name)
        assert done.returncode == 0, done.stderr
        assert inventory() == before


def _fill(app: Project, bed: Bed) -> None:
    """Put this checkout and the container image in, and set the host up for every user."""
    files = run("git", "-C", MASTER, "ls-files", "--cached", "--others", "--exclude-standard")
    pack = ("tar", "-C", str(MASTER), "-c", "--owner=root:0", "--mode=go+rX", "-T", "-")
    checkout = subprocess.run(pack, input=files.encode(), check=True, capture_output=True).stdout
    bed.run("one", "sudo tar -C /srv/master -x", data=checkout)
    reference = _container_image()
    image = subprocess.run(["podman", "save", reference], check=True, capture_output=True).stdout
    for user in beds.USERS:
        play = ".venv/bin/ansible-playbook --inventory localhost, playbooks/host.yml"
        done = bed.run(user, f"cd /srv/master && sudo {play}")
        assert "failed=0" in done
        bed.run(user, "podman load --quiet", data=image)
        bed.run(user, "mkdir app")


def _container_image() -> str:
    """Return the container image of this checkout, built on this host where it was not."""
    host = Host(Context())
    return images.ensure_container_image(host, "debian-12")


def _forget(box: str) -> None:
    """Remove what was put into the pool of a box."""
    slug = "vagrantp-" + box.replace("/", "-")
    for line in run("virsh", "-q", "-c", "qemu:///system", "vol-list", images.POOL).splitlines():
        if line.strip().startswith(slug):
            virsh = ("virsh", "-q", "-c", "qemu:///system")
            run(*virsh, "vol-delete", line.split()[0], "--pool", images.POOL)
    for folder in (images.vagrant_home() / "boxes").glob(f"{slug}-*"):
        shutil.rmtree(folder)


def test_two_users_with_the_same_folder_name(bed: Bed) -> None:
    def both(what: str) -> list[str]:
        started = [bed.start(user, f"cd app && {FAB} {what}") for user in beds.USERS]
        return [end(process) for process in started]

    def as_json(user: str, what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(bed.run(user, f"cd app && {FAB} {what} --json"))
        return found

    before = bed.run("one", "/srv/master/tests/inventory --but-images")
    for user, values in zip(beds.USERS, ({}, {"MEMORY": 400}), strict=True):
        text = env_text({**CONTAINER, **LIMITS, **values})
        bed.run(user, "cat > app/.env", data=text.encode())
    for text in both("up"):
        assert "app is running (container, 1 CPU, " in text

    for user, memory in zip(beds.USERS, (300, 400), strict=True):
        verified = as_json(user, "verify")
        assert verified["ok"], verified
        facts = as_json(user, "status")
        assert facts["state"] == "running"
        # by the kernel, not by what Podman says
        listed = bed.run(user, "podman ps --format '{{.Names}} {{.Pid}}'").split()
        assert listed[0] == facts["instance"]
        assert len(listed) == 2  # nothing of the other user's
        group = bed.run(user, f"cut -d: -f3 /proc/{listed[1]}/cgroup").strip()
        limits = bed.run(
            user, f"cd /sys/fs/cgroup/{group} && cat memory.max memory.swap.max cpu.max"
        )
        assert limits.split() == [str(memory * 1024**2), "0", "100000", "100000"]

    inside = f"cd app && {FAB} ssh --command "
    assert bed.run("one", f"{inside} 'echo kept > note; exit 42'", expected=42) == ""
    bed.run("one", f"cd app && {FAB} stop")
    bed.run("one", "sed -i s/MEMORY=300/MEMORY=350/ app/.env")
    assert "MEMORY" not in bed.run("two", f"cd app && {FAB} up")  # running, untouched
    bed.run("one", f"cd app && {FAB} up")
    assert bed.run("one", f"{inside} 'cat note'") == "kept\n"
    assert as_json("one", "verify")["ok"]
    both("rm --force")
    assert bed.run("one", "/srv/master/tests/inventory --but-images") == before
    for user in beds.USERS:
        assert bed.run(user, "podman ps --all --quiet; ls -A app") == ".env\n"
