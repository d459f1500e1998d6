"""Whole commands, in turn with what one would type without vagrantp: `make bench`.

Prints medians and ratios, and writes them to docs/benchmarks.md, with a chart of the stages of `up`
beside it. Leave the machine alone meanwhile. PAIRS=1 makes it short.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pygal
from invoke.context import Context
from vagrantp.core import metrics
from vagrantp.core.libvirt import virsh
from vagrantp.core.process import handle_signals
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.images import built, store
from vagrantp.instance import record as instances
from vagrantp.instance import seed, ssh

from tests.conftest import FAB, MASTER, env_text

HERE = Path(__file__).parent
PAIRS = int(os.environ.get("PAIRS", "5"))
SETTINGS = {"MEMORY": 1024, "CPUS": 2, "DISK": 5}
PATIENCE = 300  # seconds for a command; what takes longer hangs
MANY = 50  # instances for `ls`
SEED = "bench-seed.iso"
SETTLE = "systemctl is-system-running --wait || true"  # what a boot goes on with is over then
INSECURE_KEY = (MASTER / "tests/boxes/plain/insecure.pub").read_text().strip()
# In the container: 1 GB to whoever connects.
SENDER = """
import os, socket
os.truncate(os.open("big", os.O_CREAT | os.O_RDWR), 1024**3)
server = socket.create_server(("", 8000))
while True:
    with server.accept()[0] as client, open("big", "rb") as file:
        client.sendfile(file)
"""
# A VM as one starts it without any of these, until ssh answers. The shell has the variables.
QEMU = """
qemu-img create -q -f qcow2 -F qcow2 -b "$BOX" disk.qcow2 5G
qemu-system-x86_64 -accel "$ACCEL" -cpu "$CPU" -m 1024 -smp 2 \\
    -display none -daemonize -pidfile pid \\
    -drive file=disk.qcow2,if=virtio -drive file=seed.iso,if=virtio,format=raw,readonly=on \\
    -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:"$PORT"-:22
until ssh -F /dev/null -i key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \\
    -o UserKnownHostsFile=/dev/null -o ConnectTimeout=2 -o LogLevel=ERROR \\
    -p "$PORT" vagrant@127.0.0.1 true; do sleep 0.2; done
"""
# What is compared: the row's name, ours, the rival, and the most that ours may take.
ROWS = [
    ("`up`, VM, as users write the Vagrantfile", "vm up", "vagrant up", "0.5 x"),
    ("`up`, VM, `insert_key = false`", "vm up", "vagrant up, insert_key=false", "1.0 x"),
    ("`up`, VM, and QEMU by hand, until ssh answers", "vm up", "QEMU by hand", "1.15 x"),
    ("`up`, container, as users write it", "container up", "vagrant up, docker", "0.35 x"),
    (
        "`up`, container, `insert_key = false`",
        "container up",
        "vagrant up, docker, insert_key=false",
        "",
    ),
    ("`up`, container, and `podman run`", "container up", "podman run and exec", "2.5 s above"),
    ("`up`, VM running already", "vm up again", "vagrant up again", "0.4 s"),
    ("`status`, VM", "vm status", "vagrant status", "0.35 s"),
    ("`ssh --command true`, VM", "vm ssh", "vagrant ssh", "0.2 x"),
    ("`ssh --command true` and OpenSSH", "vm ssh", "ssh", ""),
    ("`ssh --command true` and fab alone", "vm ssh", "fab --version", "0.3 s above"),
    ("`stop`, VM", "vm stop", "vagrant halt", "0.6 x"),
    ("`up`, VM stopped", "vm start", "vagrant up after halt", ""),
    ("`rm`, VM", "vm rm", "vagrant destroy", "0.6 x"),
    ("`validate`, and fab alone", "validate", "fab --version", "0.35 s"),
    ("`ls`, no instance", "ls, none", "podman ps", "0.6 s"),
    (f"`ls`, {MANY} instances", "ls, many", "podman ps, many", "0.6 s"),
    ("`stats` of all times that are kept", "stats", "fab --version", "1 s"),
    ("1 GB through PORTS, container", "1 GB forwarded", "1 GB directly", "1.25 x"),
]
VERSIONS = (
    ("vagrant", "--version"),
    ("vagrant", "plugin", "list"),
    ("virsh", "--version"),
    ("qemu-system-x86_64", "--version"),
    ("podman", "--version"),
)
REPORT = """\
# Benchmarks

Written by `make bench` on {date}: medians of {pairs} runs, each in turn with its rival on a
machine that did nothing else; in brackets the fastest and the slowest.
{emulation}{hung}

{rows}

![Stages of `up`, in seconds](benchmarks.svg)

At its largest, vagrantp's own process took {memory} MB of memory during `up`, beside Vagrant's.
Measured times are kept for some {operations} operations; older ones go.

Rivals run the same image with the same memory, CPUs and disk; `tests/bench/` has their
Vagrantfiles. vagrantp's `up` also reads back, from inside, that all is as promised.

## What bounds the rows that are above their limit

Profiled on 26 November 2026, by strace and the stages of metrics.jsonl:

- `up`, VM, beside QEMU by hand: Vagrant needs 2.7 s until it starts the domain, most of it to load
  Ruby's code.
- `up`, container: Vagrant takes 1.1 s for one `podman run` of 0.3 s, and as much to load itself,
  most of it while the host is checked (since 28 November). `podman info` takes 0.2 s.
- `rm`, VM: QEMU takes 1.4 to 2.1 s to end under emulation, killed or not, in Vagrant's `destroy` as
  in ours; libvirt takes 0.4 s to change the network's DHCP entry.
- `status`, VM: Python and fabric take 0.15 s, our own modules 0.08 s, and the rest is what proves
  that it is true: two calls of virsh and a look at the packet filter.

On {host}:

{versions}
"""
Times = dict[str, list[float]]


def main() -> None:
    """Run all rounds, print and write the table, leave nothing."""
    handle_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        vm, container = (_project(work, kind) for kind in ("vm", "container"))
        for folder in (vm, container):  # builds and uploads images
            _fab("before", folder, "up")
            _fab("before", folder, "rm", "--force")
        memory = max(map(_memory_of_up, (vm, container)))
        accel = _machine(vm)["accel"]
        for folder in (vm, container):
            _fab("before", folder, "rm", "--force")
        driver = {"kvm": "kvm", "tcg": "qemu"}[accel]
        state, operations = _measured(work)
        hung = 0
        with _bare_vm(work, driver) as bare_vm, _bare_container(work) as bare_container:
            for _ in range(PAIRS):
                _round_of_containers(times, container, bare_container)
                hung += _until_whole(times, vm, bare_vm)
                _round_of_qemu(times, work, accel)
                argv = (FAB, "-r", MASTER, "stats")
                _timed("stats", work, *argv, times=times, XDG_STATE_HOME=str(state))
            with _many(container):
                for _ in range(PAIRS):
                    _fab("ls, many", work, "ls", times=times)
                    _timed("podman ps, many", work, "podman", "ps", "--all", times=times)
        chart = _chart({"VM": vm, "container": container})
    report = _report(times, accel, memory, operations, hung)
    print(report)
    (MASTER / "docs/benchmarks.md").write_text(report, encoding="utf-8")
    (MASTER / "docs/benchmarks.svg").write_bytes(chart)


@dataclass(frozen=True)
class Bare:
    """A folder with a Vagrantfile, and the environment for `vagrant` there."""

    folder: Path
    environment: dict[str, str]


def _until_whole(times: Times, folder: Path, bare: Bare) -> int:
    """Take the times of a round of VMs; return how often one was done again, as a guest hung in it.

    Under emulation, a guest with two CPUs hangs in its boot now and then, whoever started it.
    """
    for hung in range(PAIRS):
        own: Times = defaultdict(list)
        try:
            _round_of_vms(own, folder, bare)
        except subprocess.TimeoutExpired as error:
            print(f"it hung, and is done again: {error}", flush=True)
            _fab("after", folder, "rm", "--force")
            _vagrant("after", bare, "destroy", "--force")
            continue
        for name, seconds in own.items():
            times[name] += seconds
        return hung
    raise SystemExit("a guest hung in every round")


def _round_of_vms(times: Times, folder: Path, bare: Bare) -> None:
    _fab("vm up", folder, "up", times=times)
    _fab("settle", folder, "ssh", "--command", SETTLE)
    _fab("vm up again", folder, "up", times=times)
    _fab("vm status", folder, "status", times=times)
    _fab("vm ssh", folder, "ssh", "--command", "true", times=times)
    instance = instances.remembered(folder)
    assert instance
    _timed("ssh", folder, *ssh.ssh(instance, "true"), times=times)
    _fab("validate", folder, "validate", times=times)
    _timed("fab --version", folder, FAB, "--version", times=times)
    _fab("vm stop", folder, "stop", times=times)
    _fab("vm start", folder, "up", times=times)
    _fab("vm rm", folder, "rm", "--force", times=times)
    _vagrant("vagrant up", bare, "up", times=times)
    _vagrant("settle", bare, "ssh", "--command", SETTLE)
    _vagrant("vagrant up again", bare, "up", times=times)
    _vagrant("vagrant status", bare, "status", times=times)
    _vagrant("vagrant ssh", bare, "ssh", "--command", "true", times=times)
    _vagrant("vagrant halt", bare, "halt", times=times)
    _vagrant("vagrant up after halt", bare, "up", times=times)
    _vagrant("vagrant destroy", bare, "destroy", "--force", times=times)
    _vagrant("vagrant up, insert_key=false", bare, "up", times=times, INSERT_KEY="no")
    _vagrant("after", bare, "destroy", "--force")


def _round_of_containers(times: Times, folder: Path, bare: Bare) -> None:
    _fab("container up", folder, "up", times=times)
    command = f"setsid python3 -c {shlex.quote(SENDER)} </dev/null >/dev/null 2>&1 & sleep 1"
    _fab("sender", folder, "ssh", "--command", command)
    made = _machine(folder)
    _received(times, "1 GB directly", str(made["address"]), 8000)
    _received(times, "1 GB forwarded", "127.0.0.1", made["forwards"][0]["host"])
    _fab("after", folder, "rm", "--force")
    _vagrant("vagrant up, docker", bare, "up", times=times)
    _vagrant("after", bare, "destroy", "--force")
    _vagrant("vagrant up, docker, insert_key=false", bare, "up", times=times, INSERT_KEY="no")
    _vagrant("after", bare, "destroy", "--force")
    seed, image = bare.environment["SEED"], bare.environment["IMAGE"]
    run = f"podman run --detach --name bench --volume {seed}:/run/vagrantp-seed:ro {image}"
    script = f"{run} && podman exec bench true"
    _timed("podman run and exec", folder, "sh", "-ec", script, times=times)
    _timed("after", folder, "podman", "rm", "--force", "--time", "0", "bench")
    _fab("ls, none", folder, "ls", times=times)
    _timed("podman ps", folder, "podman", "ps", "--all", times=times)


def _round_of_qemu(times: Times, work: Path, accel: str) -> None:
    """Start the same image by hand, for a key of its own."""
    box = built.ensure_box(Host(Context()), built.FIRST)
    with tempfile.TemporaryDirectory(dir=work) as name, socket.create_server(("", 0)) as free:
        folder, port = Path(name), free.getsockname()[1]
        _run(*ssh.keygen(folder / "key", "bench"))
        files = _seed(folder / "seed", (folder / "key.pub").read_text()).iterdir()
        _run(*seed.iso(folder / "seed.iso", [session.BOOT, session.GROW, *files]))
        free.close()
        image = store.vagrant_home() / "boxes" / box.name / store.VERSION / "libvirt/box.img"
        cpu = "host" if accel == "kvm" else "max"
        environment = {"BOX": str(image), "ACCEL": accel, "CPU": cpu, "PORT": str(port)}
        try:
            _timed("QEMU by hand", folder, "sh", "-ec", QEMU, times=times, **environment)
        finally:
            if (folder / "pid").exists():
                os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


@contextmanager
def _many(folder: Path) -> Iterator[None]:
    """Have containers that `ls` shows, never started: it asks Podman for all of them alike."""
    image = built.ensure_container_image(Host(Context()), built.FIRST)
    facts = {"name": "bench", "folder": folder, "uid": os.getuid(), "version": instances.VERSION}
    names = {f"bench-{number:08x}": f"{number:08x}" for number in range(MANY)}
    try:
        for name, identity in names.items():
            labels = [f"--label=vagrantp.{k}={v}" for k, v in {**facts, "id": identity}.items()]
            _run("podman", "create", "--name", name, *labels, image)
        shown = json.loads(_run(str(FAB), "-r", str(MASTER), "ls", "--json"))["instances"]
        assert {one["instance"] for one in shown} >= set(names)
        yield
    finally:
        _run("podman", "rm", "--force", "--ignore", *names)


def _measured(work: Path) -> tuple[Path, int]:
    """Return a state folder with all the measured times that are ever kept, and their number."""
    state = work / "state"
    stages = [{"name": name, "seconds": 1.5, "outcome": "ok"} for name in ("create", "check")]
    row = {"type": "vm", "verb": "up", "stages": stages, "seconds": 3.25, "outcome": "ok"}
    facts = {"time": "2026-01-01T00:00:00Z", "project": "/home/me/projects/app", "exit_code": 0}
    line = json.dumps({**facts, "instance": "app-0a1b2c3d", **row}) + "\n"
    count = metrics.MAX_BYTES // len(line)
    file = state / "vagrantp" / metrics.path().name
    file.parent.mkdir(parents=True, mode=0o700)
    for one in (file, file.with_name(f"{file.name}.1")):
        one.write_text(line * count)
    return state, 2 * count


def _memory_of_up(folder: Path) -> int:
    """Return the peak of what the process of `fab up` has in memory, in MB."""
    kib = 0
    with subprocess.Popen([FAB, "-r", MASTER, "up"], cwd=folder, stdin=subprocess.DEVNULL) as up:
        while up.poll() is None:
            text = Path(f"/proc/{up.pid}/status").read_text()
            kib = max([kib, *map(int, re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE))])
            time.sleep(0.1)
    if up.returncode:
        raise SystemExit(f"fab up failed in {folder}")
    return kib // 1000


def _chart(folders: dict[str, Path]) -> bytes:
    """Draw what `up` from nothing spent its seconds on: the median of each stage."""
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in folders}
    for operation in map(json.loads, metrics.path().read_text().splitlines()[-1000:]):
        for name, folder in folders.items():
            stages = {stage["name"]: stage["seconds"] for stage in operation["stages"]}
            if operation["project"] == str(folder) and "create" in stages:
                stages["the rest"] = operation["seconds"] - sum(stages.values())
                for stage, seconds in stages.items():
                    found[name][stage].append(seconds)
    chart = pygal.HorizontalStackedBar(js=[], height=260, print_values=True, legend_at_bottom=True)
    chart.x_labels = list(found)
    longest = max(sum(map(median, stages.values())) for stages in found.values())

    def where_it_fits(seconds: float) -> str:
        return f"{seconds:.1f} s" if seconds > longest / 12 else ""

    for stage in dict.fromkeys(stage for stages in found.values() for stage in stages):
        values = [median(stages[stage] or [0]) for stages in found.values()]
        chart.add(stage, [{"value": value, "formatter": where_it_fits} for value in values])
    drawn: bytes = chart.render()
    return drawn


def _received(times: Times, name: str, address: str, port: int) -> None:
    start, count = time.monotonic(), 0
    with socket.create_connection((address, port)) as client:
        while data := client.recv(1024**2):
            count += len(data)
    if count != 1024**3:
        raise SystemExit(f"{name}: {count} bytes came")
    times[name].append(time.monotonic() - start)


def _project(work: Path, kind: str) -> Path:
    folder = work / f"bench-{kind}"
    folder.mkdir()
    ports = {"PORTS": "auto:8000"} if kind == "container" else {}
    (folder / ".env").write_text(env_text({"INFRA_TYPE": kind, **SETTINGS, **ports}))
    return folder


def _machine(folder: Path) -> dict[str, Any]:
    instance = instances.remembered(folder)
    assert instance
    provider: dict[str, Any] = instance.machine()["provider"]
    return provider


@contextmanager
def _bare_vm(work: Path, driver: str) -> Iterator[Bare]:
    """Give bare Vagrant the same box, and a seed as ours, for Vagrant's insecure key."""
    folder = work / "bare-vm"
    folder.mkdir()
    shutil.copy(HERE / "Vagrantfile", folder)
    box = built.ensure_box(Host(Context()), built.FIRST)
    image = store.vagrant_home() / "boxes" / box.name / store.VERSION / "libvirt"
    home = work / "home"
    link = home / "boxes/bench-VAGRANTSLASH-debian/0/libvirt"
    link.parent.mkdir(parents=True)
    link.symlink_to(image)
    files = [session.BOOT, session.GROW, *_seed(work / "seed").iterdir()]
    _run(*seed.iso(work / SEED, files))
    size = str((work / SEED).stat().st_size)
    pool = ("--pool", store.POOL)
    _run(*virsh("vol-create-as", store.POOL, SEED, size, "--format", "raw"))
    bare = Bare(folder, {"VAGRANT_HOME": str(home), "DRIVER": driver})
    try:
        _run(*virsh("vol-upload", SEED, str(work / SEED), *pool))
        _vagrant("before", bare, "up")  # uploads the box
        _vagrant("before", bare, "destroy", "--force")
        yield bare
    finally:
        _vagrant("after", bare, "destroy", "--force")
        for line in _run(*virsh("vol-list", *pool)).splitlines():
            if line.split() and line.split()[0].startswith(("bench-VAGRANTSLASH-", SEED)):
                _run(*virsh("vol-delete", line.split()[0], *pool))


@contextmanager
def _bare_container(work: Path) -> Iterator[Bare]:
    """Give bare Vagrant the same image, with podman for docker as Debian's podman-docker has it."""
    folder, seed = work / "bare-container", _seed(work / "container-seed")
    folder.mkdir()
    docker = work / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\nexec podman "$@"\n')
    docker.chmod(0o755)
    shutil.copy(HERE / "Vagrantfile.container", folder / "Vagrantfile")
    yield Bare(
        folder,
        {
            "VAGRANT_HOME": str(work / "home"),
            "PATH": f"{docker.parent}:{os.environ['PATH']}",
            "IMAGE": built.ensure_container_image(Host(Context()), built.FIRST),
            "SEED": str(seed),
        },
    )


def _seed(folder: Path, key: str = INSECURE_KEY) -> Path:
    """Make what a guest of our image starts with, for a key: by default Vagrant's insecure one."""
    folder.mkdir()
    _run(*ssh.keygen(folder / "ssh_host_ed25519_key", "bench"))
    (folder / "hostname").write_text("bench\n")
    (folder / "user.sh").write_text(seed.user_script("vagrant", key))
    return folder


def _fab(name: str, folder: Path, *arguments: str, times: Times | None = None) -> None:
    _timed(name, folder, FAB, "-r", MASTER, *arguments, times=times)


def _vagrant(
    name: str, bare: Bare, *arguments: str, times: Times | None = None, **environment: str
) -> None:
    environment = {**bare.environment, **environment}
    _timed(name, bare.folder, "vagrant", *arguments, times=times, **environment)


def _timed(
    name: str, cwd: Path, *argv: object, times: Times | None = None, **environment: str
) -> None:
    """Run a command that must succeed; keep its seconds under `name` where there are `times`."""
    start = time.monotonic()
    done = subprocess.run(
        [*map(str, argv)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"{name}: {argv} failed:\n{done.stdout}")
    if times is not None:
        times[name].append(seconds)
    command = " ".join(map(str, argv[-3:])).splitlines()[0]
    print(f"{seconds:8.2f} s  {name}: {command}", flush=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _report(times: Times, accel: str, memory: int, operations: int, hung: int) -> str:
    rows = ["| what | vagrantp | rival | ratio | at most |", "| --- | --- | --- | --- | --- |"]
    for what, ours, rival, limit in ROWS:
        ratio = median(times[ours]) / median(times[rival])
        cells = (what, _cell(times[ours]), f"{rival}: {_cell(times[rival])}", f"{ratio:.2f}", limit)
        rows.append(f"| {' | '.join(cells)} |")
    emulation = (
        "The VMs run under software emulation: their figures do not carry over to KVM."
        if accel == "tcg"
        else "The VMs run under KVM."
    )
    versions = [f"{argv[0]}: {_run(*argv).splitlines()[0].strip()}" for argv in VERSIONS]
    return REPORT.format(
        date=time.strftime("%d %B %Y"),
        pairs=PAIRS,
        emulation=emulation,
        rows="\n".join(rows),
        memory=memory,
        operations=operations,
        hung=f"\n{hung} rounds were done again, as a guest hung in its boot." if hung else "",
        host=f"{os.cpu_count()} CPUs, Linux {platform.release()}",
        versions="\n".join(f"- {version}" for version in versions),
    )


def _cell(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
