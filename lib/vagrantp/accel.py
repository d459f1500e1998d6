"""Whether a guest really runs under KVM here: `/dev/kvm` can be there, answer, and be useless."""

from __future__ import annotations

import json
import os
import platform
import xml.etree.ElementTree as ET
from pathlib import Path
from time import monotonic, sleep, time

from vagrantp import commands
from vagrantp.config import xdg
from vagrantp.errors import ProviderError
from vagrantp.instance import state_root
from vagrantp.run import Host

DEVICE = Path("/dev/kvm")
TRY_AGAIN = 3600  # seconds after which a failure counts no more: the host may have been busy
PROBE_SECONDS = {"kvm": 5.0, "qemu": 60.0}  # a working KVM needs less than one, emulation two


def choose(host: Host, wanted: str) -> str:
    """Return `kvm` or `tcg` for ACCEL. Raises ProviderError for a KVM that does not work."""
    if wanted == "tcg":
        return "tcg"
    why = why_not_kvm(host)
    if why and wanted == "kvm":
        raise ProviderError(f"ACCEL=kvm: {why}", "ACCEL=auto takes software emulation instead")
    if why:
        host.progress.say(f"without KVM, by software emulation, which is slow: {why}")
    return "tcg" if why else "kvm"


def why_not_kvm(host: Host, *, afresh: bool = False) -> str | None:
    """Return why KVM does not work here, or None.

    Tried once for a kernel, QEMU and /dev/kvm, once an hour where it failed, or `afresh`.
    """
    if not DEVICE.exists():
        return "/dev/kvm is not there: switch virtualization on in the firmware"
    versions = host.answer(commands.virsh("version"))
    host_now = [platform.release(), platform.node(), versions, oct(DEVICE.stat().st_mode)]
    cache = xdg("CACHE", ".cache") / "kvm.json"
    try:
        known = json.loads(cache.read_text())
        is_old = known["why_not"] and time() - cache.stat().st_mtime > TRY_AGAIN
        if known["host"] == host_now and not afresh and not is_old:
            return known["why_not"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if host.dry:
        host.change(["virsh", "create", "kvm-probe.xml"], what="trying KVM", timeout=1)
        return "not tried yet"
    with host.progress.stage("try KVM", "(once)"):
        why = why_not(host, "kvm")
    host.make_dir(cache.parent)
    host.write(cache, json.dumps({"host": host_now, "why_not": why}))
    return why


def why_not(host: Host, kind: str) -> str | None:
    """Return why no guest runs by `kind`, `kvm` or `qemu` (software emulation), or None.

    Tried with one that has nothing to boot: its firmware runs in full, resets, and that ends it.
    """
    name = f"vagrantp-{kind}-probe-{os.getpid()}"
    with host.scratch(state_root()) as folder:
        file = folder / "probe.xml"
        host.write(file, probe(name, kind))
        try:
            host.change(commands.virsh("create", str(file)), what="a guest", timeout=60)
        except ProviderError as error:
            return error.message
        try:
            deadline = monotonic() + PROBE_SECONDS[kind]
            while monotonic() < deadline:
                if not host.ask(commands.virsh("domstate", name)).ok:
                    return None
                sleep(0.1)
            return f"a guest does not run under it: no end in {PROBE_SECONDS[kind]:.0f} seconds"
        finally:
            if host.ask(commands.virsh("domstate", name)).ok:
                host.change(commands.virsh("destroy", name), what="ending the trial", timeout=60)


def probe(name: str, kind: str) -> str:
    """Return the XML of a transient guest that resets as soon as its firmware has run."""
    domain = ET.Element("domain", type=kind)
    ET.SubElement(domain, "name").text = name
    ET.SubElement(domain, "memory", unit="MiB").text = "64"
    if kind == "kvm":
        ET.SubElement(domain, "cpu", mode="host-model")
    operating_system = ET.SubElement(domain, "os")
    ET.SubElement(operating_system, "type").text = "hvm"
    # SeaBIOS finds nothing to boot and resets after this many milliseconds
    ET.SubElement(operating_system, "bios", rebootTimeout="0")
    ET.SubElement(domain, "on_reboot").text = "destroy"
    ET.SubElement(domain, "features").append(ET.Element("acpi"))
    ET.SubElement(domain, "devices").append(ET.Element("memballoon", model="none"))
    return ET.tostring(domain, encoding="unicode")
