"""KVM that is none, and guests that end while `up` waits for them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from pathlib import Path

import pytest
from vagrantp import accel
from vagrantp.config import id_from

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import VIRSH, guest, run, status, volumes, wait_for

RUNNING = Path("/run/libvirt/qemu")
needs_device = pytest.mark.skipif(not accel.DEVICE.exists(), reason="there is no /dev/kvm")
# Software emulation in the place of KVM, for virsh's eyes; with `firmware` it gets no kernel.
KVM = r"""#!/bin/sh
for word in "$@"; do
    case $word in */probe.xml)
        sed -i 's/type="kvm"/type="qemu"/; s/<cpu [^>]*>//' "$word"
        [ {what} = kernel ] || sed -i 's/<kernel>.*<.initrd>//' "$word" ;;
    esac
done
exec {virsh} "$@"
"""


def with_kvm(app: Project, folder: Path, what: str) -> Project:
    """Return a project whose KVM runs `what`, a kernel or firmware only, and was never tried."""
    virsh = next(p for d in os.environ["PATH"].split(":") if (p := Path(d, "virsh")).exists())
    (folder / "virsh").write_text(KVM.format(what=what, virsh=virsh))
    (folder / "virsh").chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder)}
    return Project(app.folder, app.environment | path)


@needs_device
def test_a_kvm_that_runs_firmware_and_no_kernel(guests: MakeProject, tmp_path: Path) -> None:
    app = with_kvm(guests("app"), tmp_path, "firmware").write({**VM, "ACCEL": "kvm"})
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    told = "ACCEL=kvm: a kernel does not run under it: no end in 20 seconds\n"
    assert told in done.stderr
    assert status(app)["state"] == "absent"
    assert not [name for name in volumes() if "probe" in name]
    start = time.monotonic()
    assert told in app.fab("up").stderr  # it remembers
    assert time.monotonic() - start < 10


@needs_device
def test_a_kvm_that_runs_a_kernel(guests: MakeProject, tmp_path: Path) -> None:
    app = with_kvm(guests("app"), tmp_path, "kernel")
    for is_killed in (True, False):  # the second one removes what is left of the first
        doctor = app.start("doctor", "--json")
        if is_killed:
            wait_for("vagrantp-kvm-probe-", "vm")
            doctor.kill()
        out, err = doctor.communicate(timeout=120)
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert checks["kvm"]["found"] == "a kernel runs under it", err
    assert checks["vm"]["found"] == "a kernel runs under QEMU"
    assert json.loads((tmp_path / "vagrantp/kvm.json").read_text())["why_not"] is None
    assert not [name for name in volumes() if "probe" in name]


def pid_of(name: str) -> int:
    """Wait for a VM's QEMU; return its process id."""
    deadline = time.monotonic() + 60
    while not (file := RUNNING / f"{name}.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(file.read_text())


@pytest.mark.parametrize("how", ["killed", pytest.param("halted", marks=pytest.mark.soak)])
def test_a_vm_that_ends_while_up_waits(guests: MakeProject, how: str) -> None:
    app = guests("ends").write({**VM, "ACCEL": "tcg"})
    name = f"ends-{id_from(app.folder)}"
    up = app.start("up")
    wait_for("ends-", "vm")
    pid = pid_of(name)
    if how == "killed":
        os.kill(pid, signal.SIGTERM)
        told = f"{name} has shut down: qemu-system-x86_64: terminating on signal 15 from pid "
    else:  # as QEMU does it to itself
        run(*VIRSH, "qemu-monitor-command", name, '{"execute": "stop"}')
        told = f"{name} was halted by QEMU, at an internal error"
    start = time.monotonic()
    _, err = up.communicate(timeout=120)
    assert time.monotonic() - start < 40  # under load; 10 of it for ssh, 5 to take it back
    assert up.returncode == 5, err
    assert told in err
    assert f"QEMU's log is /var/log/libvirt/qemu/{name}.log" in err
    assert status(app)["state"] == "absent"
    assert f"{name}.img" not in volumes()


def test_a_container_that_ends_at_once(guests: MakeProject) -> None:
    app = guests("ends").write(CONTAINER)
    assert app.fab("up").returncode == 0
    dying = "#!/bin/sh\necho first >&2; printf 'so long \\033]0;x\\007\\n\\n'; exit 7\n"
    guest(app, f"printf %s {shlex.quote(dying)} | sudo tee /usr/local/sbin/vagrantp-entry")
    assert app.fab("stop").returncode == 0
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    name = status(app)["instance"]
    said = r"so long \x1b]0;x\x07"
    assert f"{name} ended with exit status 7, and said last: {said}\n" in done.stderr
