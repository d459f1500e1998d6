"""NESTED=yes: containers in a container, and what they cannot do either."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

import pytest

from tests import network
from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import guest, run, status
from tests.e2e.test_verify import CALLS, CLOSED, broken
from tests.e2e.test_work import BROWSER
from tests.network.ways import PROBE, Probe, named, never, to_host, to_internet, to_lan

NESTED = {**CONTAINER, "NESTED": "yes"}
OPENED = ("clone newuser", "unshare newuser")
MOST = 512  # of each kind of namespace, for each user
# User namespaces that a user can have at once: each stays while its file is open.
COUNT = """
import ctypes, os
libc, kept = ctypes.CDLL(None), []
for _ in range(600):
    (ours, say), (hear, theirs) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.write(say, b"%d" % (libc.unshare(0x10000000) == 0))
        os.read(hear, 1)
        os._exit(0)
    if os.read(ours, 1) == b"1":
        kept.append(os.open(f"/proc/{child}/ns/user", os.O_RDONLY))
    for file in (ours, say, hear, theirs):
        os.close(file)
    os.waitpid(child, 0)
print(len(kept))
"""
# What docs/howto.md says, with an image of the guest's own files.
PODMAN = """
set -e
export DEBIAN_FRONTEND=noninteractive
sudo apt-get update
sudo apt-get install --yes --no-install-recommends \
    podman crun uidmap passt slirp4netns fuse-overlayfs
sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap
sudo setcap cap_setuid=ep /usr/bin/newuidmap
sudo setcap cap_setgid=ep /usr/bin/newgidmap
cd /
all="bin etc lib lib64 sbin tmp usr/bin usr/lib usr/lib64 usr/sbin"
sudo tar -c $all | podman import - localhost/own
"""


def test_containers_can_be_made(guests: MakeProject, nestable: None) -> None:
    app = guests("nest").write(NESTED)
    assert app.fab("up").returncode == 0
    name = status(app)["instance"]
    assert broken(app) == set()
    for who in ("", "sudo "):
        answers = json.loads(guest(app, f"{who}python3 -c {quote(CALLS.read_text())}"))
        expected = {**CLOSED, **dict.fromkeys(OPENED, "ok"), "unshare newns": "EPERM"}
        assert {name: answers[name] for name in expected} == expected
    more = "echo 9999 > /proc/sys/user/max_user_namespaces"
    assert "denied" in guest(app, f"sudo sh -c {quote(more)} 2>&1; true")
    made = int(guest(app, f"python3 -c {quote(COUNT)}"))
    assert MOST - 5 < made <= MOST

    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", name).strip()
    none = ("sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces")
    run("nsenter", f"--target={pid}", "--user", *none)
    assert broken(app) == {"nested"}
    assert "a user namespace: No space left" in app.fab("verify").stdout
    assert app.fab("stop").returncode == 0
    assert app.fab("up").returncode == 0
    assert broken(app) == set()

    app.write(CONTAINER)
    assert broken(app) == {"nested"}
    done = app.fab("up")
    assert done.returncode == 8
    assert "  NESTED: yes → no\n  hint: these need a new instance" in done.stderr


@pytest.mark.soak
def test_rootless_podman_reaches_no_more(
    guests: MakeProject, nestable: None, tmp_path: Path
) -> None:
    app = guests("nest").write({**NESTED, "MEMORY": 1024})
    assert app.fab("up").returncode == 0
    guest(app, PODMAN)
    pod = "podman run --rm --interactive localhost/own"
    assert guest(app, f"{pod} id -u") == "0\n"
    address = status(app)["address"]
    gateway = f"{address.rpartition('.')[0]}.1"
    with (
        network.lan(tmp_path) as lan,
        network.internet(tmp_path) as internet,
        network.echo_of_host(tmp_path),
    ):
        before = lan.packets()
        closed = [*to_lan(), *to_host(gateway), *never()]
        assert _opened(app, pod, closed) == set()
        assert lan.packets() == before
        inside = {one for one in named(to_internet()) if not one.startswith("icmp")}
        assert _opened(app, pod, to_internet()) - {f"icmp {network.SERVER} 0"} == inside
        assert internet.received.read_text()
    assert broken(app) == set()


@pytest.mark.soak
def test_a_browser_has_its_own_sandbox(guests: MakeProject, nestable: None) -> None:
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install chromium"
    for name, values, works in ("nest", NESTED, True), ("plain", CONTAINER, False):
        app = guests(name).write({**values, "MEMORY": 1024})
        assert app.fab("up").returncode == 0
        guest(app, f"sudo sh -c {quote(f'apt-get -q update && {install}')} >/dev/null")
        done = app.fab("ssh", "--command", f"{BROWSER} || grep sandbox /tmp/chromium.log")
        assert (">42<" in done.stdout) is works, done.stdout
        assert ("No usable sandbox!" in done.stdout) is not works, done.stdout


def _opened(app: Project, pod: str, probes: Iterable[Probe]) -> set[str]:
    """Try ways out from a container in the guest; return the open ones."""
    ways = [(name, *probe) for name, probe in named(probes).items()]
    command = f"{pod} python3 -c {quote(PROBE)}"
    done = app.fab("ssh", "--command", command, stdin=json.dumps(ways).encode())
    assert done.returncode == 0, done.stderr
    return {name for name, outcome in json.loads(done.stdout).items() if outcome == "open"}
