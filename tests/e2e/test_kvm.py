"""KVM that is none, and guests that end while `up` waits for them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from vagrantp.providers.libvirt import accel
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, VM, MakeProject
from tests.e2e.conftest import VIRSH, guest, run, status, until, volumes

RUNNING = Path("/run/libvirt/qemu")
needs_device = pytest.mark.skipif(not accel.DEVICE.exists(), reason="there is no /dev/kvm")
# In the place of KVM: software emulation, for virsh's eyes, which gets no kernel.
FIRMWARE = r"""#!/bin/sh
for word in "$@"; do
    case $word in */probe.xml)
        sed -i 's/type="kvm"/type="qemu"/; s/<cpu [^>]*>//; s/<kernel>.*<.initrd>//' "$word" ;;
    esac
done
exec {virsh} "$@"
"""


@needs_device
def test_a_kvm_that_runs_firmware_and_no_kernel(guests: MakeProject, tmp_path: Path) -> None:
    (tmp_path / "virsh").write_text(FIRMWARE.format(virsh=shutil.which("virsh")))
    (tmp_path / "virsh").chmod(0o755)
    app = guests("app").write({**VM, "ACCEL": "kvm"})
    path = f"{tmp_path}:{app.environment['PATH']}"
    app.environment.update(PATH=path, XDG_CACHE_HOME=str(tmp_path))  # it was never tried
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    told = "ACCEL=kvm: a kernel does not run under it: no end in 20 seconds\n"
    assert told in done.stderr
    assert status(app)["state"] == "absent"
    assert not [name for name in volumes() if "probe" in name]
    again = app.fab("up").stderr  # it remembers
    assert told in again
    assert "try KVM" not in again


def running(name: str) -> int:
    """Wait until a VM runs; return the process id of its QEMU."""
    argv = (*VIRSH, "domstate", name)
    until(lambda: b"running" in subprocess.run(argv, capture_output=True, check=False).stdout, 120)
    return int((RUNNING / f"{name}.pid").read_text())


@pytest.mark.parametrize("how", ["killed", pytest.param("halted", marks=pytest.mark.soak)])
def test_a_vm_that_ends_while_up_waits(guests: MakeProject, how: str) -> None:
    app = guests("ends").write({**VM, "ACCEL": "tcg"})
    name = f"ends-{id_from(app.folder)}"
    up = app.start("up")
    pid = running(name)
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
    dying = "#!/bin/sh\nprintf 'so long \\033]0;x\\007\\n\\n'; exit 7\n"
    guest(app, f"printf %s {shlex.quote(dying)} | sudo tee /usr/local/sbin/vagrantp-entry")
    assert app.fab("stop").returncode == 0
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    name = status(app)["instance"]
    said = r"so long \x1b]0;x\x07"
    assert f"{name} ended with exit status 7, and said last: {said}\n" in done.stderr
