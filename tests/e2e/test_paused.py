"""A guest that somebody has paused: every verb says so, `up` resumes it, `stop` stops it."""

from __future__ import annotations

import shlex
from time import monotonic, sleep, time

import pytest

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import VIRSH, guest, run, status
from tests.e2e.test_ports import ports, said, serve

BOTH = pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])


def pause(name: str, kind: str) -> None:
    """Pause a guest behind our back."""
    run(*(["podman", "pause"] if kind == "container" else [*VIRSH, "suspend"]), name)


# As Docker and Podman set a container's network up.
BRIDGE = """set -e
ip link add br-test type bridge; ip address add 10.99.0.1/24 dev br-test; ip link set br-test up
for number in 1 2 3; do
    ip link add veth$number type veth peer name peer$number
    ip link set veth$number master br-test up
done
systemctl restart systemd-networkd
/usr/lib/systemd/systemd-networkd-wait-online --timeout 60
ip -o address show br-test | grep -c 10.99.0.1/24
ls /sys/class/net/br-test/brif | wc -l"""
ONLINE = """set -e
cat > /etc/systemd/system/online.service <<'END'
[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ip -4 route show default > /var/tmp/online'
[Install]
WantedBy=multi-user.target
END
systemctl --quiet enable online.service"""
VECTORS = "grep -m 1 ^flags /proc/cpuinfo | tr ' ' '\\n' | grep -cxE 'sse4_2|avx|avx2'"


def a_vm_to_work_in(app: Project) -> None:
    """Look for what people expect of a VM, beside what `verify` does."""
    assert guest(app, VECTORS) == "3\n"  # numpy and agents' programs stop without these
    # a restart of networkd takes nothing from containers' links
    assert guest(app, f"sudo sh -c '{BRIDGE}'") == "1\n3\n"
    guest(app, f"sudo sh -c {shlex.quote(ONLINE)}")
    # somebody's dotfiles, and another name: the next start gets in, and says the name
    guest(app, "rm -r ~/.ssh; echo other | sudo tee /etc/hostname; sync")


def is_right(app: Project) -> bool:
    """Say whether a guest's clock is that of this host: seconds are all that it is made for."""
    before = time()
    seen = float(guest(app, "date +%s.%N"))
    return before - 2.5 < seen < time() + 2.5


@BOTH
def test_a_paused_guest(guests: MakeProject, values: dict[str, object]) -> None:
    kind = str(values["INFRA_TYPE"])
    app = guests("paused").write(values)
    assert app.fab("up").returncode == 0
    guest(app, "nohup sleep 1000 >/dev/null 2>&1 & echo $! > pid; sync")
    name = status(app)["instance"]
    if kind == "vm":
        a_vm_to_work_in(app)

    pause(name, kind)
    paused = monotonic()
    found = status(app)
    assert (found["state"], found["memory_mib"]) == ("paused", values["MEMORY"])
    for verb in (["ssh"], ["ssh", "--command", "true"], ["provision"], ["verify"]):
        done = app.fab(*verb)
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr == f"{name} is paused\n  hint: fab up resumes it\n"
    done = app.fab("rm")
    hint = "fab stop first, or remove it with fab rm --force"
    unseen = "work in its git repositories that is not committed or not pushed cannot be listed"
    refusal = f"{name} is paused\n  {unseen}\n  hint: {hint}\n"
    assert (done.returncode, done.stderr) == (8, refusal)

    sleep(max(0.0, 10 - (monotonic() - paused)))  # that its clock would miss

    # up resumes it, with a changed setting, and what ran in it goes on
    done = app.write({**values, "PORTS": "auto:22,auto:9000"}).fab("up")
    assert done.returncode == 0, done.stderr
    assert "  resume: " in done.stderr
    assert (status(app)["state"], status(app)["changes"]) == ("running", [])
    assert guest(app, "kill -0 $(cat pid); cat /proc/$(cat pid)/comm") == "sleep\n"
    while not is_right(app):
        assert monotonic() < paused + 300
    assert app.fab("verify").returncode == 0
    serve(app)
    assert said("127.0.0.1", ports(app)[9000], b"inside") == b"INSIDE"

    # stop stops it, gracefully or not
    for option in ([], ["--force"]):
        pause(name, kind)
        assert app.fab("stop", *option).stdout == f"{name} is stopped\n"
        assert status(app)["state"] == "stopped"
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
    if kind == "vm":
        there = "until [ -s /var/tmp/online ]; do sleep 1; done; cat /var/tmp/online"
        online = guest(app, f"timeout 60 sh -c '{there}'")
        assert online.startswith("default via ")
        assert "the guest was renamed: it is other\n" in done.stderr

    pause(name, kind)
    assert app.fab("rm", "--force").stdout == f"{name} is removed\n"
    assert status(app)["state"] == "absent"


def test_status_reads_a_containers_limits_live(guests: MakeProject) -> None:
    app = guests("live").write(CONTAINER)
    assert app.fab("up").returncode == 0
    run("podman", "update", "--memory=200m", "--cpus=0.5", status(app)["instance"])
    found = status(app)
    assert (found["memory_mib"], found["cpus"]) == (200, 0.5)
