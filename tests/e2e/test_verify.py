"""`verify`: each promise is broken behind the tool's back, and seen to be."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.providers.libvirt import accel
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, NO_LIBVIRT, VM, MakeProject, Project
from tests.e2e.conftest import guest, lets_in, own_key, run, status, volumes

CALLS = Path(__file__).parent.parent / "attacks/calls.py"
CLOSED = {
    **dict.fromkeys(("clone newuser", "unshare newns", "unshare newuser"), "EPERM"),
    **dict.fromkeys(("clone3 newuser", "io_uring_setup", "keyctl session"), "ENOSYS"),
    **dict.fromkeys(("alg", "vsock", "negative family"), "EAFNOSUPPORT"),
    **dict.fromkeys(("inet sctp", "netlink netfilter", "netlink generic"), "EPROTONOSUPPORT"),
    **dict.fromkeys(("clone", "inet ping", "inet stream", "netlink route", "unix pair"), "ok"),
}
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")


def broken(app: Project) -> set[str]:
    """Return the names of the promises that `verify` finds broken."""
    done = app.fab("verify", "--json")
    document = json.loads(done.stdout)
    failed = {check["name"] for check in document["checks"] if check["outcome"] == "FAILED"}
    assert done.returncode == (9 if failed else 0), done.stderr
    assert document["ok"] is not failed
    return failed


def test_promises_of_a_container(guests: MakeProject) -> None:
    app = guests("proof").write(CONTAINER)
    assert app.fab("verify").returncode == 8
    assert app.fab("up").returncode == 0
    name = status(app)["instance"]
    assert broken(app) == set()
    assert [entry.name for entry in app.folder.iterdir()] == [".env"]
    table = app.fab("verify").stdout
    assert re.search(r"^disk +3 GiB +no quota +not enforced$", table, re.MULTILINE)

    run("podman", "update", "--memory=128m", "--memory-swap=128m", name)
    assert broken(app) == {"memory"}
    run("podman", "update", "--memory=256m", "--memory-swap=256m", "--cpus=2", name)
    assert broken(app) == {"cpus"}
    run("podman", "update", "--cpus=1", name)
    assert broken(app) == set()

    machine = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name / "machine.json"
    record = machine.read_text()
    first_id = json.loads(record)["provider"]["first_id"]
    assert first_id == int(guest(app, "cat /proc/self/uid_map").split()[1])
    assert "unshare failed" in guest(app, "sudo unshare --user true 2>&1; true")
    machine.write_text(record.replace(str(first_id), str(first_id + 65536)))
    assert broken(app) == {"user namespace"}
    machine.write_text(record)

    for who in ("", "sudo "):
        answers = json.loads(guest(app, f"{who}python3 -c {shlex.quote(CALLS.read_text())}"))
        assert {name: answers[name] for name in CLOSED} == CLOSED
    configuration = Path(run("podman", "inspect", "--format", "{{.OCIConfigPath}}", name).strip())
    given = configuration.read_text()
    configuration.write_text(given.replace('"keyctl"', '"getpid"'))
    assert broken(app) == {"system calls"}
    configuration.write_text(given)

    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", name).strip()
    inside = ("nsenter", f"--target={pid}", "--net", "--uts")
    run(*inside, "hostname", "someone-else")
    assert broken(app) == {"hostname"}
    run(*inside, "hostname", "proof")
    app.write({**CONTAINER, "MEMORY": 300})
    assert "memory" in broken(app)
    app.write({**CONTAINER, "INFRA_TYPE": "vm"})
    assert "type" in broken(app)
    app.write(CONTAINER)
    run(*inside, "ip", "address", "flush", "dev", "eth0")
    assert broken(app) == {"hostname", "address", "ssh"}  # what is not known is not promised


def claim_kvm(monkeypatch: pytest.MonkeyPatch, app: Project, cache: Path) -> bool:
    """Let `up` take it that KVM works, where no guest starts with it; return whether it is so here.

    Under another KVM that does not work, a guest starts and its kernel never comes up.
    """
    host = Host(Context())
    if not accel.DEVICE.exists() or "start failed" not in (accel.why_not_kvm(host) or ""):
        return False
    app.environment["XDG_CACHE_HOME"] = str(cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    accel.remember(host, None)
    return True


def test_promises_of_a_vm(
    guests: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Random(1)
    # a name as long as one may be, with a digit first, which DHCP servers do not like
    called = f"3{''.join(draw.choices('abc-0123', k=61))}d"
    memory = draw.randrange(500, 900)
    mac = "52:54:00:" + ":".join(f"{draw.randrange(256):02x}" for _ in range(3))
    drawn = {"MEMORY": memory, "CPUS": 2, "NAME": called, "MAC": mac.upper(), "AUTOSTART": "yes"}
    key = own_key(tmp_path)
    asked = {**VM, **drawn, "SSH_USER": "av", "SSH_KEY": f"'{key}.pub'"}
    app = guests("proof").write(asked)
    claims = claim_kvm(monkeypatch, app, tmp_path)
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    name = status(app)["instance"]
    domain = ET.fromstring(run(*VIRSH, "dumpxml", "--inactive", name))
    if claims:  # it was created with KVM, that failed, and it boots all the same
        assert re.search("^  KVM failed: .+; going on by emulation$", done.stderr, re.MULTILINE)
        assert domain.get("type") == "qemu"
        cpu = domain.find("cpu")
        assert cpu is not None and cpu.get("mode") == "maximum"
        assert accel.why_not_kvm(Host(Context()))  # which is known now
    assert broken(app) == set()
    assert [entry.name for entry in app.folder.iterdir()] == [".env"]

    lets_in(app, key)

    # the domain is what was drawn
    assert domain.findtext("name") == f"{called}-{id_from(app.folder)}" == name
    assert domain.findtext("memory") == domain.findtext("currentMemory") == str(memory * 1024)
    assert domain.findtext("vcpu") == "2"
    [card] = domain.findall("devices/interface")
    assert [each.attrib for each in card if each.tag in ("mac", "source", "model")] == [
        {"address": mac},
        {"network": "vagrantp"},
        {"type": "virtio"},
    ]
    assert re.search(r"^Autostart: +enable$", run(*VIRSH, "dominfo", name), re.MULTILINE)

    # its disk grows while it runs, with the file system; and never shrinks
    app.write({**asked, "DISK": 4})
    change = {"key": "DISK", "old": "3", "new": "4", "applies": "at once"}
    assert status(app)["changes"] == [change]
    boot = guest(app, "cat /proc/sys/kernel/random/boot_id")
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert "  DISK: 3 → 4 at once\n" in done.stderr
    assert guest(app, "cat /proc/sys/kernel/random/boot_id") == boot
    assert broken(app) == set()
    assert status(app)["disk_gib"] == 4
    refused = app.write(asked).fab("up")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert "  DISK: 4 → 3 (a disk grows, and never shrinks)\n" in refused.stderr
    app.write({**asked, "DISK": 4})
    assert broken(app) == set()

    run(*VIRSH, "setmem", name, "300M", "--live")
    assert "memory in use" in broken(app)
    run(*VIRSH, "setmem", name, f"{memory}M", "--live")
    guest(app, "echo 0 | sudo tee /sys/devices/system/cpu/cpu1/online; sudo hostname other")
    assert broken(app) == {"cpus in the guest", "hostname"}
    guest(app, f"echo 1 | sudo tee /sys/devices/system/cpu/cpu1/online; sudo hostname {called}")

    # somebody else made the disk larger, and the file system did not follow
    app.write({**asked, "DISK": 5})
    run(*VIRSH, "blockresize", name, "vda", "5G")
    assert broken(app) == {"root file system"}
    assert app.fab("up").returncode == 0
    assert broken(app) == set()
    run(*VIRSH, "blockresize", name, "vda", "6G")
    assert broken(app) == {"disk", "disk in the guest"}
    guest(app, "sudo systemctl stop ssh.socket ssh.service; true")
    assert {"ssh", "address", "hostname"} <= broken(app)

    # QEMU halts it, as it does at an internal error
    run(*VIRSH, "qemu-monitor-command", name, '{"execute": "stop"}')
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    assert f"{name} was halted by QEMU, at an internal error" in done.stderr
    assert "  hint: fab stop --force, then fab up; QEMU's log is /" in done.stderr

    # a libvirt that lost its domains, and not the disks
    assert app.fab_amid(NO_LIBVIRT, "ssh").returncode == 5
    run(*VIRSH, "undefine", name)
    run(*VIRSH, "destroy", name)
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (8, "")
    lost = f"{name} is lost: libvirt no longer has it, but still has its disk"
    assert f"{lost}\n  hint: fab rm, then fab up\n" in done.stderr
    assert f"{name}.img" in volumes()


@pytest.mark.soak
def test_a_root_file_system_that_does_not_fill_its_disk(
    guests: MakeProject, tmp_path: Path
) -> None:
    app = guests("proof").write(VM)
    assert app.fab("up").returncode == 0
    guest(app, "sudo systemctl mask vagrantp-grow; sync")  # it would at the next boot
    assert app.fab("stop").returncode == 0
    _shrink_root(status(app)["instance"], tmp_path)
    assert app.fab("up").returncode != 0  # it says so, too
    assert broken(app) == {"root file system"}


def _shrink_root(name: str, folder: Path) -> None:
    """Make the file system of a stopped VM smaller than its partition: to 1 GiB."""
    volume = f"{name}.img"
    disk, part, shrunk = folder / "disk.raw", folder / "part.raw", folder / "shrunk.qcow2"
    path = run(*VIRSH, "vol-path", volume, "--pool", "default").strip()
    run("qemu-img", "convert", "-O", "raw", path, str(disk))
    table = run("parted", "--script", "--machine", str(disk), "unit", "s", "print")
    start, size = re.findall(r"^2:(\d+)s:\d+s:(\d+)s:ext4:", table, re.MULTILINE)[0]
    where = (f"skip={start}", f"count={size}")
    run("dd", f"if={disk}", f"of={part}", "bs=512", "conv=sparse", *where)
    run("e2fsck", "-fy", str(part))
    run("resize2fs", str(part), "1G")
    run("dd", f"if={part}", f"of={disk}", "bs=512", "conv=notrunc", f"seek={start}")
    run("qemu-img", "convert", "-O", "qcow2", str(disk), str(shrunk))
    upload = (*VIRSH, "vol-upload", volume, str(shrunk), "--pool", "default")
    subprocess.run(upload, check=True, capture_output=True)
