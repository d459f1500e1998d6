"""`rm` always works, removes what is ours and nothing else; a host that misbehaves is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vagrantp.images import built, store
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import VIRSH, remove_container, run, status, until, volumes, wait_for

GARBAGE = ["", "{", "[]", '{"settings": 1, "provider": {}}', "\0\xff"]
NETWORK = Path("/etc/containers/networks/vagrantp.json")


def state_of(app: Project) -> Path:
    """Return the state folder of a project's instance."""
    [folder] = (Path(app.environment["XDG_STATE_HOME"]) / "vagrantp").glob("*-????????")
    return folder


def is_gone(app: Project) -> None:
    """See that `rm` removes it, and that nothing is left of it."""
    done = app.fab("rm", "--force")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" is removed\n")
    assert status(app)["state"] == "absent"
    left = {path.name for path in Path(app.environment["XDG_STATE_HOME"], "vagrantp").iterdir()}
    assert left == {"lock", "metrics.jsonl"}


def test_a_machine_json_that_is_garbage(guests: MakeProject) -> None:
    app = guests("garbage").write(CONTAINER)
    assert app.fab("up").returncode == 0
    name = status(app)["instance"]
    for garbage in GARBAGE:
        (state_of(app) / "machine.json").write_text(garbage)
        found = status(app)
        assert (found["state"], found["changes"]) == ("broken", [])
        for verb in ("up", "ssh", "verify", "provision"):
            done = app.fab(verb)
            assert (done.returncode, done.stdout) == (8, "")
            why = f"{name} is broken: its machine.json is gone or cannot be read\n"
            assert done.stderr.startswith(why)
        [listed] = json.loads(app.fab("ls", "--json").stdout)["instances"]
        assert (listed["instance"], listed["state"]) == (name, "broken")
    done = app.fab("rm")  # it runs, whatever else is wrong
    assert (done.returncode, done.stderr.startswith(f"{name} is running\n")) == (8, True)
    assert status(app)["isolation"] is None
    assert app.fab("stop").returncode == 0
    assert app.fab("stop").stdout == f"{name} is stopped already\n"
    is_gone(app)
    assert app.fab("up").returncode == 0
    (state_of(app) / "machine.json").write_text("{")
    remove_container(name)  # so nothing tells what it was
    is_gone(app)


def test_a_project_folder_that_is_deleted(guests: MakeProject) -> None:
    app = guests("deleted").write(CONTAINER)
    assert app.fab("up").returncode == 0
    elsewhere = guests("elsewhere")
    shutil.rmtree(app.folder)
    [found] = json.loads(elsewhere.fab("ls", "--json").stdout)["instances"]
    name = f"deleted-{id_from(app.folder)}"
    assert found["reason"] == f"its folder is gone: fab rm --name {name}"
    assert elsewhere.fab("rm", "--force", "--name", name).stdout == f"{name} is removed\n"
    app.folder.mkdir()


def test_without_the_podman_network(guests: MakeProject, tmp_path: Path) -> None:
    app = guests("offline").write(CONTAINER)
    assert app.fab("up").returncode == 0
    assert app.fab("stop").returncode == 0
    if run("podman", "ps", "--quiet", "--filter", "network=vagrantp"):
        pytest.skip("somebody else's container is on it")
    record = NETWORK.read_bytes()
    NETWORK.unlink()
    try:
        is_gone(app)
    finally:
        NETWORK.write_bytes(record)


def half_made(app: Project) -> str:
    """Kill `up` of a VM when its domain is defined; return its name."""
    up = app.start("up")
    wait_for("half-", "vm")
    up.kill()
    up.communicate()
    return f"half-{id_from(app.folder)}"


def undefine(name: str) -> None:
    """Take a domain away, running or not, and leave its volumes."""
    subprocess.run([*VIRSH, "destroy", name], capture_output=True, check=False)
    run(*VIRSH, "undefine", name)


@pytest.mark.parametrize("is_state_lost", [False, True], ids=["killed", "state lost"])
def test_a_vm_that_is_half_made(guests: MakeProject, is_state_lost: bool) -> None:
    app = guests("half").write(VM)
    name = half_made(app)
    found = status(app)
    assert (found["state"], found["instance"]) == ("broken", name)
    if is_state_lost:
        shutil.rmtree(state_of(app))
    is_gone(app)


def test_a_vm_whose_parts_were_taken_away(guests: MakeProject) -> None:
    """Domain, network, and the volume of its box: by hand, behind our back."""
    app = guests("half").write(VM)
    name = half_made(app)
    (state_of(app) / "machine.json").write_text("{")
    undefine(name)
    box = max(volume for volume in volumes() if volume.startswith(f"vagrantp-{built.FIRST}-"))
    path = Path(run(*VIRSH, "vol-path", "--pool", store.POOL, box).strip())
    path.rename(path.with_suffix(".aside"))
    xml = run(*VIRSH, "net-dumpxml", "vagrantp", "--inactive")
    run(*VIRSH, "net-destroy", "vagrantp")
    try:
        is_gone(app)
        assert f"{name}.img" not in volumes()
        again = run(*VIRSH, "net-dumpxml", "vagrantp", "--inactive")
        entry = f"vagrantp-{name[-8:]}"
        assert entry in xml and entry not in again
    finally:
        path.with_suffix(".aside").rename(path)
        run(*VIRSH, "pool-refresh", store.POOL)
        run(*VIRSH, "net-start", "vagrantp")


def test_a_foreign_volume_of_our_name_is_never_touched(guests: MakeProject) -> None:
    app = guests("foreign").write(VM)
    volume = f"foreign-{id_from(app.folder)}.img"
    run(*VIRSH, "vol-create-as", store.POOL, volume, "1M")
    try:
        done = app.fab("up")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"a volume {volume} is in the pool {store.POOL}, and not this p" in done.stderr
        assert app.fab("rm", "--force").stdout == f"nothing to remove for {app.folder}\n"
        assert volume in volumes()
    finally:
        run(*VIRSH, "vol-delete", "--pool", store.POOL, volume)


def test_a_foreign_podman_network_of_our_name_is_never_touched(guests: MakeProject) -> None:
    app = guests("foreign").write(CONTAINER)
    record = NETWORK.read_text()
    theirs = json.dumps({**json.loads(record), "network_interface": "podman99"})
    NETWORK.write_text(theirs)
    try:
        done = app.fab("up")
        assert (done.returncode, done.stdout) == (6, "")
        text = "vagrantp did not make the podman network vagrantp"
        assert done.stderr == f"{text}\n  hint: podman network rm vagrantp\n"
        assert NETWORK.read_text() == theirs
        assert not [*Path(app.environment["XDG_STATE_HOME"], "vagrantp").glob("foreign-*")]
    finally:
        NETWORK.write_text(record)


@contextmanager
def small(folder: Path, size: str) -> Iterator[None]:
    """Have a small file system at a folder for a moment."""
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "none", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


def test_a_state_folder_that_is_full(guests: MakeProject) -> None:
    """With room for nothing, for the keys, for machine.json, for all but what Vagrant writes."""
    app = guests("full").write(CONTAINER)
    root = Path(app.environment["XDG_STATE_HOME"], "vagrantp")
    root.mkdir(parents=True)
    codes = []
    for pages in range(2, 39, 9):
        with small(root, f"{4 * pages}k"):
            root.chmod(0o700)
            done = app.fab("up")
            codes.append(done.returncode)
            if done.returncode:
                assert (done.returncode, done.stdout) == (4, ""), (pages, done.stderr)
                assert "No space left on device" in done.stderr, (pages, done.stderr)
                assert "Traceback" not in done.stderr
                assert {path.name for path in root.iterdir()} <= {"lock", "metrics.jsonl"}
                assert status(app)["state"] == "absent"
            assert app.fab("rm", "--force").returncode == 0
    assert codes[0] == 4 and codes[-1] == 0, codes
    assert app.fab("up").returncode == 0


HALTED = "was halted: the storage pool default has no room for what it writes"


@contextmanager
def small_pool() -> Iterator[Path]:
    """Have little room in the storage pool; what is in there is out of sight meanwhile."""
    pool = Path(re.findall("<path>(.*)</path>", run(*VIRSH, "pool-dumpxml", store.POOL))[0])
    try:
        with small(pool, "1800M"):
            run(*VIRSH, "pool-refresh", store.POOL)
            yield pool
    finally:
        run(*VIRSH, "pool-refresh", store.POOL)


def fill(pool: Path) -> Path:
    """Leave 1 MB of room; return what takes the rest."""
    path = pool / "filling"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(pool).free - 1024**2)
    return path


@pytest.mark.soak
def test_a_pool_that_gets_full(guests: MakeProject) -> None:
    app = guests("half").write(VM)
    with small_pool() as pool:
        up = app.start("up")  # the base image is not there, and is put there
        wait_for("half-", "vm")
        fill(pool)
        _, err = up.communicate(timeout=300)
        assert up.returncode == 4, err
        assert HALTED in err or "No space left on device" in err
        assert [path.name for path in pool.glob("half-*")] == []
        assert status(app)["state"] == "absent"


@pytest.mark.soak
def test_a_pool_that_gets_full_later(guests: MakeProject) -> None:
    app = guests("half").write(VM)
    with small_pool() as pool:
        done = app.fab("up")
        assert done.returncode == 0, done.stderr
        filling = fill(pool)
        app.start("ssh", "--command", "dd if=/dev/zero of=big bs=1M count=900; sync")
        until(lambda: status(app)["state"] != "running", 120)
        done = app.fab("up")
        assert (done.returncode, HALTED in done.stderr) == (4, True), done.stderr
        filling.unlink()
        run(*done.stderr.rpartition("then: ")[2].split())
        assert app.fab("verify").returncode == 0
        is_gone(app)


def hanging(tmp_path: Path, tool: str, when: str) -> Callable[[Project], Project]:
    """Return what puts a program of that name on a project's PATH: it hangs with `when` in argv."""
    folder = tmp_path / "hanging"
    folder.mkdir()
    real = shutil.which(tool)
    script = f'case " $* " in *" {when} "*) exec sleep 1000;; esac\nexec {real} "$@"\n'
    (folder / tool).write_text(f"#!/bin/sh\n{script}")
    (folder / tool).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return lambda app: Project(app.folder, {**app.environment, "PATH": path})


def test_a_podman_that_hangs_is_left_by_ctrl_c(guests: MakeProject, tmp_path: Path) -> None:
    app = hanging(tmp_path, "podman", "ps")(guests("hangs").write(CONTAINER))
    for number in (signal.SIGINT, signal.SIGTERM):
        up = app.start("up")
        time.sleep(2)
        up.send_signal(number)
        _, err = up.communicate(timeout=30)
        assert up.returncode == 130, err
        assert "Traceback" not in err


@contextmanager
def without_libvirt() -> Iterator[None]:
    """Have libvirt's daemon stopped for a moment; guests run on."""
    units = [f"libvirtd{kind}" for kind in (".socket", "-ro.socket", "-admin.socket", ".service")]
    if is_systemd := Path("/run/systemd/system").exists():
        run("systemctl", "stop", *units)
    else:
        pid = run("pidof", "libvirtd").strip()
        run("kill", pid)
        run("tail", f"--pid={pid}", "--follow", "/dev/null")
    try:
        yield
    finally:
        run(*(["systemctl", "start", *units] if is_systemd else ["libvirtd", "--daemon"]))


@pytest.mark.soak
def test_a_libvirt_that_stops_in_the_middle(guests: MakeProject) -> None:
    app = guests("half").write(VM)
    up = app.start("up")
    wait_for("half-", "vm")
    with without_libvirt():
        _, err = up.communicate(timeout=120)
        assert up.returncode == 5, err
        assert "Traceback" not in err
        assert re.search(r"^vagrant up failed: .+\n  hint: the full log is /", err, re.MULTILINE)
        assert "  cleaning up failed, too: libvirt does not answer" in err
        for verb in ("up", "stop", "rm", "status"):
            done = app.fab(verb)
            assert (done.returncode, done.stdout) == (5, "")
            assert done.stderr.startswith("libvirt does not answer: ")
        [found] = json.loads(app.fab("ls", "--json").stdout)["instances"]
        assert found["reason"].startswith("unknown: libvirt does not answer")
    is_gone(app)


@pytest.mark.soak  # for as long as the limits are
@pytest.mark.parametrize("when", ["ps", "info", "start"])
def test_a_podman_that_hangs_is_given_up(guests: MakeProject, tmp_path: Path, when: str) -> None:
    app = guests("hangs").write(CONTAINER)
    if when == "start":
        assert app.fab("up").returncode == 0
        assert app.fab("stop").returncode == 0
    start = time.monotonic()
    done = hanging(tmp_path, "podman", when)(app).fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    assert f"podman did not finish in 60 seconds: podman {when}" in done.stderr
    assert "  hint: " in done.stderr
    assert time.monotonic() - start < 75
    assert app.fab("rm", "--force").returncode == 0
