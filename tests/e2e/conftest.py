"""Real VMs and containers. Whatever a test does, nothing of it is left on the host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vagrantp.providers.podman import nested

from tests.certificates import ONE, TWO
from tests.conftest import MakeProject, Project, inventory

# From outside, as a person sees it: tests/attacks runs against older versions, too.
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
POOL = "default"
GUARD = "/usr/local/lib/vagrantp/guard"
VAGRANT_HOME = Path.home() / ".local/share/vagrantp/vagrant"
CACHE = Path.home() / ".cache/vagrantp"


def run(*argv: str) -> str:
    """Return what a host command prints; fail when it does."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def remove_container(name: str) -> None:
    """Remove a container behind our back; Podman 4.3 may report an error, and removes it."""
    argv = ("podman", "rm", "--force", "--time", "0", name)
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        run(*argv)


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(app: Project) -> dict[str, Any]:
    """Return `fab status --json`."""
    done = app.fab("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def guest(app: Project, command: str) -> str:
    """Return what a command prints in the guest; fail when it does."""
    done = app.fab("ssh", "--command", command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def own_key(folder: Path) -> Path:
    """Make a key pair of the person's; the public one is in `.pub`."""
    key = folder / "own key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "it's me", "-f", str(key))
    return key


def lets_in(app: Project, key: Path) -> None:
    """See that `av` logs in, by the person's key as well, and becomes root without a password."""
    assert guest(app, "id -un; sudo -n id -un") == "av\nroot\n"
    name = status(app)["instance"]
    ours = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name / "ssh_config"
    config = key.with_name("config")
    config.write_text(re.sub("IdentityFile.*", f'IdentityFile "{key}"', ours.read_text()))
    assert run("ssh", "-F", str(config), name, "id -un") == "av\n"


def trusts_them(app: Project, wanted: list[str]) -> None:
    """See that a guest trusts these certificates, in commands, logins and under sudo."""
    names = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"]
    names += ["CURL_CA_BUNDLE", "GIT_SSL_CAINFO"]
    said = guest(app, "env; sudo env; bash -lc env; sudo bash -lc env")
    found = dict(line.split("=", 1) for line in said.splitlines() if line.split("=")[0] in names)
    counts = [said.count(f"\n{name}=") for name in names]
    assert (sorted(found), counts) == ((sorted(names), [4] * 6) if wanted else ([], [0] * 6))
    for path in {*found.values(), "/etc/ssl/certs/ca-certificates.crt"}:
        text = guest(app, f"cat {path}")
        assert [pem for pem in (ONE, TWO) if pem in text] == wanted
    assert app.fab("verify").returncode == 0


def restart_libvirt() -> None:
    """Let libvirt's daemon end and begin, as an upgrade of its package does."""
    if Path("/run/systemd/system").exists():
        run("systemctl", "try-restart", "libvirtd.service", "virtqemud.service")
        return
    pid = run("pidof", "libvirtd").strip()
    run("kill", pid)
    run("tail", f"--pid={pid}", "--follow", "/dev/null")
    run("libvirtd", "--daemon")


def leave_lost_rules() -> None:
    """End what would put lost rules of the packet filter back before anybody sees that."""
    pid = Path("/run/vagrantp/watch.lock").read_text()
    if Path("/run/systemd/system").exists():
        run("systemctl", "stop", "vagrantp-watch.service")
    else:  # not KILL, after which another one takes over
        run("kill", "-TERM", pid)
    run("tail", f"--pid={pid}", "--follow", "/dev/null")


def rules_come_back() -> None:
    """Wait until lost rules are in force again, by nobody's doing."""
    argv = (GUARD, "check")
    until(lambda: not subprocess.run(argv, capture_output=True, check=False).returncode, 10)


def wait_for(prefix: str, kind: str) -> None:
    """Wait until there is a domain or container of that name, half-made."""
    vms, containers = (*VIRSH, "list", "--name"), ("podman", "ps", "-a", "--format", "{{.Names}}")
    until(lambda: prefix in run(*(vms if kind == "vm" else containers)), 120)


def have_resolver(app: Project) -> None:
    """Give a guest whose image has a fixed resolver, on a LAN perhaps, that of its network."""
    gateway = "$(ip route show default | cut -d ' ' -f 3)"
    guest(app, f"echo nameserver {gateway} | sudo tee /etc/resolv.conf")


def volumes() -> list[str]:
    """Return the names of all volumes in the pool of the base images."""
    listing = run(*VIRSH, "vol-list", "--pool", POOL)
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def forget_box(name: str) -> None:
    """Remove what `up` made of a Vagrant box: its volume and its folder of links."""
    ours = "vagrantp-" + name.replace("/", "-") + "-"
    for volume in volumes():
        if volume.startswith(ours):
            run(*VIRSH, "vol-delete", volume, "--pool", POOL)
    for folder in (VAGRANT_HOME / "boxes").glob(f"{ours}*"):
        shutil.rmtree(folder)


@pytest.fixture
def guests(project: MakeProject) -> Iterator[MakeProject]:
    """Make projects whose instances are removed, and compare the host with what it was before."""
    before, made = inventory(), []

    def make(*arguments: str) -> Project:
        made.append(project(*arguments))
        return made[-1]

    yield make
    for app in made:
        done = app.fab("rm", "--force")
        assert done.returncode == 0, done.stderr
    assert inventory() == before


@pytest.fixture
def nestable() -> Iterator[None]:
    """Open the devices that NESTED=yes needs to everybody for a while, as udev does."""
    before = {device: Path(device).stat().st_mode & 0o777 for device in nested.DEVICES}
    for device in before:
        Path(device).chmod(0o666)
    yield
    for device, mode in before.items():
        Path(device).chmod(mode)
