"""Ordinary users with rootless Podman, systemd and cgroup v2: in a VM that this tool made."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from time import monotonic, sleep
from typing import Any

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import built

from tests.boxes import bed as beds
from tests.boxes import run
from tests.conftest import CONTAINER, MASTER, VM, Project, env_text, inventory
from tests.e2e.conftest import forget_box, guest, have_resolver, status
from tests.e2e.test_boxes import is_as_promised
from tests.network import ways

LIMITS = {"MEMORY": 300, "CPUS": 1}
GIB = 1024**3
FAB = "/srv/master/.venv/bin/fab -r /srv/master"


@dataclass(frozen=True)
class Bed:
    """A running VM and how its users get in."""

    ssh: tuple[str, ...]
    name: str
    app: Project

    def run(self, user: str, command: str, expected: int = 0, data: bytes = b"") -> str:
        """Run a command in a login session of a user; return its stdout, then stderr."""
        if user == "root":
            user, command = "one", f"sudo -H sh -c {quote(f'cd; {command}')}"
        argv = [*self.ssh, "-l", user, self.name, command]
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        text = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == expected, text
        return text

    def restart(self) -> None:
        """Restart it from inside, and wait until it answers again."""
        boot = self.run("one", "cat /proc/sys/kernel/random/boot_id")
        login = [*self.ssh, "-l", "one", self.name]
        subprocess.run([*login, "sudo systemctl reboot"], capture_output=True, check=False)
        deadline, found = monotonic() + 300, ""
        while found in ("", boot):
            assert monotonic() < deadline
            sleep(2)
            answer = [*login, "cat /proc/sys/kernel/random/boot_id"]
            found = subprocess.run(answer, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Make a bed of the Debian suite that is asked for, with this checkout in it."""
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
    app.write({**VM, "BOX": name, "MEMORY": 3072, "CPUS": 2, "DISK": 10, "SSH_USER": "av"})
    try:
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
        full_name = status(app)["instance"]
        config = work / "state/vagrantp" / full_name / "ssh_config"
        made = Bed(("ssh", "-F", str(config)), full_name, app)
        _fill(app, made)
        yield made
    finally:
        done = app.fab("rm", "--force")
        link.unlink()
        forget_box(name)
        assert done.returncode == 0, done.stderr
        assert inventory() == before


def _fill(app: Project, bed: Bed) -> None:
    """Let the users log in, and put this checkout in."""
    have_resolver(app)
    for user in beds.USERS:
        keys = f"/home/{user}/.ssh/authorized_keys"
        guest(app, f"sudo install -o {user} -m 600 ~/.ssh/authorized_keys {keys}")
    files = run("git", "-C", MASTER, "ls-files", "--cached", "--others", "--exclude-standard")
    pack = ("tar", "-C", str(MASTER), "-c", "--owner=root:0", "--mode=go+rX", "-T", "-")
    checkout = subprocess.run(pack, input=files.encode(), check=True, capture_output=True).stdout
    bed.run("one", "sudo tar -C /srv/master -x", data=checkout)
    # its users may not write there, and Python would compile all of it anew for every verb
    bed.run("one", "cd /srv/master && sudo .venv/bin/python -m compileall -q lib fabfile.py")


# What host set-up puts there for a user's containers, and this host has from it.
HOOKS = (
    "usr/local/lib/vagrantp",
    "etc/containers/oci/hooks.d/vagrantp.json",
)
HOOKS_DIR = '[engine]\nhooks_dir = ["/etc/containers/oci/hooks.d"]\n'


def _have_hooks(bed: Bed) -> None:
    """Do of the host set-up, which takes minutes there, what a user's container needs."""
    pack = ("tar", "-C", "/", "-c", *HOOKS)
    files = subprocess.run(pack, check=True, capture_output=True).stdout
    bed.run("one", "sudo tar -C / -x", data=files)
    settings = "/etc/containers/containers.conf.d/50-vagrantp.conf"
    bed.run("one", f"sudo install -D /dev/stdin {settings}", data=HOOKS_DIR.encode())


def _set_up(bed: Bed, user: str, *options: str) -> str:
    """Set the bed up for a user, as `make setup` does; return what it says."""
    play = ".venv/bin/ansible-playbook --inventory localhost, playbooks/host.yml"
    said = bed.run(user, f"cd /srv/master && sudo {' '.join([play, *options])}")
    assert "failed=0" in said
    return said


def _give_project(bed: Bed, user: str, **values: object) -> None:
    """Give a user the container image of this checkout and a project `app`."""
    reference = built.ensure_container_image(Host(Context()), built.FIRST)
    image = subprocess.run(["podman", "save", reference], check=True, capture_output=True).stdout
    bed.run(user, "podman load --quiet", data=image)
    text = env_text({**CONTAINER, **LIMITS, **values})
    bed.run(user, "mkdir app; cat > app/.env", data=text.encode())


def _verb(bed: Bed, user: str, what: str, expected: int = 0) -> str:
    accept = " --accept" if what == "up" else ""
    return bed.run(user, f"cd app && {FAB} {what}{accept}", expected)


def _runs_by_itself(bed: Bed, user: str) -> None:
    """Wait until a user's project runs, which starts with its host."""
    deadline = monotonic() + 300
    while "running" not in _verb(bed, user, "status"):
        assert monotonic() < deadline
        sleep(5)


def _is_as_promised(bed: Bed, user: str, memory: int) -> None:
    verified = json.loads(_verb(bed, user, "verify --json"))
    assert verified["ok"], verified
    # by the kernel, not by what Podman says
    listed = bed.run(user, "podman ps --format '{{.Names}} {{.Pid}}'").split()
    assert listed[0] == verified["instance"]
    assert len(listed) == 2  # nothing of another user's
    group = bed.run(user, f"cut -d: -f3 /proc/{listed[1]}/cgroup").strip()
    files = "memory.max memory.swap.max cpu.max"
    limits = bed.run(user, f"cd /sys/fs/cgroup/{group} && cat {files}").split()
    assert limits == [str(memory * 1024**2), "0", "100000", "100000"]


def _tried(bed: Bed, user: str) -> dict[str, Any]:
    """Try the ways out of the container; return those that are open, and what came to the LAN."""
    probe = f"cd app && {FAB} ssh --command 'cat > /tmp/probe.py'"
    bed.run(user, probe, data=ways.PROBE.encode())
    script = f"cd app && {FAB} ssh --command 'sudo python3 /tmp/probe.py'"
    inside = f"sudo -u {user} -i sh -c {quote(script)}"
    text = bed.run(user, f"cd /srv/master && sudo python3 -m tests.network {inside}")
    return dict(json.loads(text))


INTERNET, LAN = ({*ways.named(to())} for to in (ways.to_internet, ways.to_lan))
BY_ICMP = {name for name in LAN | INTERNET if name.startswith("icmp")}  # slirp4netns has none


def _is_closed(bed: Bed, user: str) -> None:
    """See that a container reaches the internet, and nothing else."""
    found = _tried(bed, user)
    assert ({*found["opened"]} - BY_ICMP, found["came"]) == (INTERNET - BY_ICMP, [])


def _can_be_opened(bed: Bed, user: str) -> None:
    """See that the same ways are open with LAN_ACCESS=yes, and closed again without."""
    bed.run(user, "echo LAN_ACCESS=yes >> app/.env")
    assert "LAN open" in _verb(bed, user, "up")
    opened = {*_tried(bed, user)["opened"]}
    # slirp4netns takes ports of its own choice
    assert opened >= {n for n in LAN | INTERNET if n not in BY_ICMP and "{" not in n}, opened
    assert opened <= LAN | INTERNET, opened
    bed.run(user, "sed -i /LAN_ACCESS/d app/.env")
    assert "LAN blocked" in _verb(bed, user, "up")
    _is_closed(bed, user)


def _is_a_sound_host(bed: Bed) -> None:
    """Let `doctor` try this suite's libvirt, vagrant-libvirt, QEMU, Podman and nft."""
    doctor = json.loads(bed.run("one", f"{FAB} doctor --json 2>/dev/null; true"))
    outcomes = {check["name"]: check["outcome"] for check in doctor["checks"]}
    tried = ("libvirt", "vagrant-libvirt", "vm", "podman", "cgroup controllers", "container")
    assert {outcomes[name] for name in tried} == {"ok"}, doctor


@pytest.mark.parametrize("bed", ["bookworm"], indirect=True)
def test_a_box_without_cloud_init(bed: Bed) -> None:
    assert guest(bed.app, "id -un; sudo -n id -un") == "av\nroot\n"
    is_as_promised(bed.app, disk=10)  # a box made for Vagrant, with its root file system on LVM


@pytest.mark.parametrize("bed", ["bookworm"], indirect=True)
def test_a_container_of_an_ordinary_user(bed: Bed) -> None:
    _have_hooks(bed)
    _give_project(bed, "one", PORTS="8080:8000,8080:8000/udp", MOUNT="rw")
    assert "app is running (container, 1 CPU, 300.0 MiB memory" in _verb(bed, "one", "up")
    _is_as_promised(bed, "one", memory=300)  # its ports among the rest
    assert _verb(bed, "one", "ssh --command 'id -un; exit 42'", expected=42) == "vagrant\n"
    _is_closed(bed, "one")
    tries = "touch roots; chmod u+s roots; mknod dev c 1 3"
    made = f"cd /project; touch mine HEAD; sudo sh -c {quote(tries)}; ls"
    assert _verb(bed, "one", f"ssh --command {quote(made)} 2>/dev/null") == "mine\nroots\n"
    assert bed.run("one", "cd app; stat -c '%U %A' mine roots").split() == [
        *("one", "-rw-rw-r--", "one", "-rw-r--r--")  # Debian 13's users have a umask of 0002
    ]
    _verb(bed, "one", "rm --force")
    left = bed.run("one", "podman ps --all --quiet; ls ~/.local/state/vagrantp; ls -A app")
    assert left.split() == ["grants", "lock", "metrics.jsonl", ".env", "mine", "roots"]
    assert "bindfs" not in bed.run("one", "ps -u one -o comm")


@pytest.mark.soak
@pytest.mark.parametrize("bed", ["bookworm", "trixie"], indirect=True)
def test_two_users_with_the_same_folder_name(bed: Bed) -> None:
    def both(what: str) -> list[str]:
        with ThreadPoolExecutor() as pool:
            return [*pool.map(lambda user: _verb(bed, user, what), beds.USERS)]

    inventory = "/srv/master/tests/inventory --but-images"
    memory = dict(zip(beds.USERS, (300, 400), strict=True))
    for user in beds.USERS:
        _set_up(bed, user)
        _give_project(bed, user, MEMORY=memory[user], AUTOSTART="yes" if user == "two" else "no")
    _is_a_sound_host(bed)
    before = bed.run("one", f"sudo {inventory}; {inventory}")
    for text in both("up"):
        assert "app is running (container, 1 CPU, " in text
    for user in beds.USERS:
        _is_as_promised(bed, user, memory[user])

    _can_be_opened(bed, "one")
    assert _verb(bed, "one", "ssh --command 'echo kept > note; exit 42'", expected=42) == ""
    _verb(bed, "one", "stop")
    bed.run("one", "sed -i s/MEMORY=300/MEMORY=350/ app/.env")
    assert "is running already" in _verb(bed, "two", "up")
    _verb(bed, "one", "up")
    assert _verb(bed, "one", "ssh --command 'cat note'") == "kept\n"
    _is_as_promised(bed, "one", memory=350)
    _is_as_promised(bed, "two", memory=400)

    bed.restart()
    _runs_by_itself(bed, "two")
    _is_as_promised(bed, "two", memory=400)
    assert "stopped" in _verb(bed, "one", "status")
    both("rm --force")
    assert bed.run("one", f"sudo {inventory}; {inventory}") == before
    for user in beds.USERS:
        assert bed.run(user, "podman ps --all --quiet; ls -A app") == ".env\n"


@pytest.mark.soak
@pytest.mark.parametrize("bed", ["bookworm"], indirect=True)
def test_a_container_keeps_to_its_disk(bed: Bed) -> None:
    """Root's, with Podman's storage on XFS: the kernel of a test machine may have no quotas.

    Verify is asked for all else, too: it is the one container of root's on systemd and cgroup v2.
    """
    asked = "--extra-vars container_store=3"
    _set_up(bed, "one", asked)
    assert "changed=0" in _set_up(bed, "one", asked)
    doctor = bed.run("root", f"{FAB} doctor; true")
    assert re.search("^ok +container storage .*; DISK is enforced$", doctor, re.MULTILINE), doctor
    before = bed.run("root", "/srv/master/tests/inventory --but-images")
    _give_project(bed, "root", DISK=1, AUTOSTART="yes")
    assert "300.0 MiB memory, 1 GiB disk)" in _verb(bed, "root", "up")

    def disk(expected: int = 0) -> dict[str, str]:
        text = _verb(bed, "root", "verify --json 2>/dev/null", expected)
        return next(check for check in json.loads(text)["checks"] if check["name"] == "disk")

    def size(command: str) -> int:
        return int(_verb(bed, "root", f"ssh --command {quote(command)} 2>/dev/null"))

    # a file of the bed's has it match every card
    bed.run("root", "systemctl restart systemd-networkd")
    kept = {"promised": f"{GIB} bytes", "found": f"{GIB} bytes", "outcome": "ok"}
    assert disk() == {"name": "disk", **kept}
    assert size("df --block-size=1 --output=size / | tail -n 1") == GIB
    fill = "head -c 3G /dev/zero | sudo tee /full > /dev/null; stat -c %s /full"
    assert GIB * 0.5 < size(fill) < GIB

    behind = "xfs_quota -x -c 'limit -p bsoft=2g bhard=2g {}' /var/lib/containers/storage"
    written = "podman inspect --format {{.GraphDriver.Data.UpperDir}} $(podman ps --quiet)"
    project = bed.run("root", f"xfs_io -r -c lsproj $({written})").rpartition("=")[2].strip()
    bed.run("root", behind.format(project))
    assert json.loads(_verb(bed, "root", "status --json"))["disk_gib"] == 2
    assert disk(expected=9)["outcome"] == "FAILED"
    bed.restart()
    _runs_by_itself(bed, "root")
    _verb(bed, "root", "stop")
    _verb(bed, "root", "up")
    assert disk()["outcome"] == "ok"

    bed.run("root", "sed -i s/DISK=1/DISK=2/ app/.env")
    assert "DISK: 1 → 2 at once" in _verb(bed, "root", "up")
    assert disk()["found"] == f"{2 * GIB} bytes"
    assert GIB < size(fill) < 2 * GIB
    _verb(bed, "root", "rm --force")
    assert bed.run("root", "/srv/master/tests/inventory --but-images") == before
