"""Whether a kernel really runs under KVM here: `/dev/kvm` can be there, answer, and be useless."""

from __future__ import annotations

import json
import os
import platform
import struct
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep, time

from vagrantp.core import documents
from vagrantp.core.errors import ProviderError, cleaned_up_by
from vagrantp.core.libvirt import version, virsh
from vagrantp.core.places import state_root, xdg
from vagrantp.core.system import Host
from vagrantp.images import built, store
from vagrantp.settings.keys import BUILT_IMAGES

DEVICE = Path("/dev/kvm")
TRY_AGAIN = 3600  # seconds after which a failure no longer counts: the host may have been busy
PROBE_SECONDS = {"kvm": 20.0, "qemu": 180.0}  # an idle host takes one, and four by emulation
# Where distributions keep the kernel that runs, if everybody may read it.
HOSTS_KERNELS = ("/boot/vmlinuz-{}", "/lib/modules/{}/vmlinuz")
NO_KERNEL = "there is no kernel to try it with before the first up of a VM"
NOT_TRIED = "not tried yet"  # under --dry


def choose(host: Host, wanted: str) -> str:
    """Return `kvm` or `tcg` for ACCEL. Raises ProviderError for a KVM that does not work."""
    if wanted == "tcg":
        return "tcg"
    why = why_not_kvm(host)
    if wanted == "kvm" and why not in (None, NOT_TRIED):
        raise ProviderError(f"ACCEL=kvm: {why}", "ACCEL=auto takes software emulation instead")
    if wanted == "kvm" or not why:
        return "kvm"
    host.progress.say(f"without KVM, by software emulation, which is slow: {why}")
    return "tcg"


def why_not_kvm(host: Host, *, retry: bool = False) -> str | None:
    """Return why KVM does not work here, or None.

    The result is kept until kernel, QEMU, libvirt or /dev/kvm change, a failure for an hour.
    `retry`: try it in any case, but build no base image for its kernel.
    """
    if not DEVICE.exists():
        return "/dev/kvm is not there: switch virtualization on in the firmware"
    this_host, cache = _this_host(host), _cache()
    try:
        known = documents.json_file(cache)
        is_old = known["why_not"] and time() - cache.stat().st_mtime > TRY_AGAIN
        if known["host"] == this_host and not retry and not is_old:
            return known["why_not"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if host.dry:
        host.change(["virsh", "start", "kvm-probe"], what="trying KVM", timeout=1)
        return NOT_TRIED
    if kernel() is None and not retry:
        try:
            built.ensure_box(host, built.FIRST)
        except ProviderError as error:
            return f"there is no kernel to try it with: {error.message}"
    tried_with = kernel()
    if tried_with is None:
        return NO_KERNEL
    with host.progress.stage("try KVM", "(once)"):
        why = why_not(host, "kvm", tried_with)
    remember(host, why)
    return why


def remember(host: Host, why_not: str | None) -> None:
    """Write down why KVM does not work here, None where it does."""
    host.make_dir(_cache().parent)
    host.write(_cache(), json.dumps({"host": _this_host(host), "why_not": why_not}))


def _cache() -> Path:
    return xdg("CACHE", ".cache") / "kvm.json"


def _this_host(host: Host) -> list[str]:
    """Return what a result depends on. The first word invalidates older trials, of firmware."""
    versions = version(host)
    return ["kernel", platform.release(), platform.node(), versions, oct(DEVICE.stat().st_mode)]


def kernel() -> Path | None:
    """Return a kernel to try with: a base image's, or this host's; None for neither."""
    release = platform.release()
    own = (built.kernel(image) for image in BUILT_IMAGES)
    places = (*own, *(Path(place.format(release)) for place in HOSTS_KERNELS))
    return next((place for place in places if os.access(place, os.R_OK)), None)


def why_not(host: Host, kind: str, kernel: Path | None) -> str | None:
    """Return why no kernel runs by `kind`, `kvm` or `qemu` (software emulation), or None.

    The kernel boots, and its first process powers the machine off, which nothing else does. Without
    one the guest has nothing to boot: its firmware runs in full, resets, and that ends it.
    """
    name = f"vagrantp-{kind}-probe-{os.getuid()}"
    what = "a kernel" if kernel else "a guest"
    lock = host.lock(store.cache(), name, f"another trial of {kind}")
    with lock, host.scratch(state_root()) as f:
        remove(host, name)
        with cleaned_up_by(lambda: remove(host, name)):
            files = []
            if kernel:
                host.write(f / "initrd", initrd())
                files = [_into_pool(host, name, file) for file in (kernel, f / "initrd")]
            host.write(f / "probe.xml", probe(name, kind, files))
            try:
                _virsh(host, "define", str(f / "probe.xml"))
                _virsh(host, "start", name)
            except ProviderError as error:
                return f"{what} does not run under it: {error.message}"
            deadline = monotonic() + PROBE_SECONDS[kind]
            while monotonic() < deadline:
                state = host.answer(virsh("domstate", "--reason", name)).strip()
                if state == "shut off (shutdown)":
                    return None
                if not state.startswith(("running", "in shutdown")):
                    return f"{what} does not run under it: it ended as {state}"
                sleep(0.1)
            return f"{what} does not run under it: no end in {PROBE_SECONDS[kind]:.0f} seconds"


def _into_pool(host: Host, name: str, file: Path) -> str:
    """Put a file into the pool, as QEMU cannot read our private folder. Return its path there."""
    volume = f"{name}-{'initrd' if file.name == 'initrd' else 'kernel'}"
    size = str(file.stat().st_size)
    _virsh(host, "vol-create-as", store.POOL, volume, size, "--format", "raw")
    _virsh(host, "vol-upload", volume, str(file), "--pool", store.POOL)
    return host.answer(virsh("vol-path", volume, "--pool", store.POOL)).strip()


def remove(host: Host, name: str) -> None:
    """Remove what a trial has made, finished or killed."""
    state = host.ask(virsh("domstate", name))
    if state.ok:
        if state.stdout.strip() != "shut off":
            with suppress(ProviderError):  # it may end just now
                _virsh(host, "destroy", name)
        _virsh(host, "undefine", name)
    for volume in store.volumes_in_pool(host):
        if volume in (f"{name}-kernel", f"{name}-initrd"):
            _virsh(host, "vol-delete", volume, "--pool", store.POOL)


def _virsh(host: Host, *arguments: str) -> None:
    host.change(virsh(*arguments), what=f"virsh {arguments[0]}", timeout=60)


def probe(name: str, kind: str, files: list[str]) -> str:
    """Return the XML of a guest that ends by itself. `files`: kernel and initrd; or none.

    Without a kernel, a reset ends it. With one, a reset is no success: it may be a triple fault.
    """
    domain = ET.Element("domain", type=kind)
    ET.SubElement(domain, "name").text = name
    ET.SubElement(domain, "memory", unit="MiB").text = "256"
    if kind == "kvm":
        ET.SubElement(domain, "cpu", mode="host-model")
    operating_system = ET.SubElement(domain, "os")
    ET.SubElement(operating_system, "type").text = "hvm"
    for tag, file in zip(("kernel", "initrd"), files, strict=False):
        ET.SubElement(operating_system, tag).text = file
    # SeaBIOS finds nothing to boot and resets after this many milliseconds
    ET.SubElement(operating_system, "bios", rebootTimeout="0")
    ET.SubElement(domain, "on_reboot").text = "restart" if files else "destroy"
    ET.SubElement(domain, "features").append(ET.Element("acpi"))
    ET.SubElement(domain, "devices").append(ET.Element("memballoon", model="none"))
    return ET.tostring(domain, encoding="unicode")


def initrd() -> bytes:
    """Return an initramfs whose first process powers the machine off.

    A cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel) of one
    file, an ELF program of one segment (elf(5)) at 4 MiB.
    """
    code = (
        b"\xb8\xa9\x00\x00\x00"  # mov eax, 169: reboot(2) of x86-64
        b"\xbf\xad\xde\xe1\xfe"  # mov edi, LINUX_REBOOT_MAGIC1
        b"\xbe\x69\x19\x12\x28"  # mov esi, LINUX_REBOOT_MAGIC2
        b"\xba\xdc\xfe\x21\x43"  # mov edx, LINUX_REBOOT_CMD_POWER_OFF
        b"\x0f\x05"  # syscall
        b"\xeb\xfe"  # jmp to itself: the end of a first process is a panic
    )
    at, headers = 0x400000, 64 + 56
    size = headers + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, at + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, at, at, size, size, 4096)  # to load, read, run
    return _cpio("init", 0o100755, header + segment + code) + _cpio("TRAILER!!!", 0, b"")


def _cpio(name: str, mode: int, content: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return b"".join(part + b"\0" * (-len(part) % 4) for part in (head, content))
