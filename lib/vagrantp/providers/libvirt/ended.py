"""Why a VM that was started does not run."""

from __future__ import annotations

import re
from pathlib import Path

from vagrantp.core.errors import (
    HostLimitError,
    KvmError,
    ProviderError,
    StateError,
    VagrantpError,
)
from vagrantp.core.libvirt import virsh
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.images.store import POOL
from vagrantp.instance.record import Instance

LOGS = Path("/var/log/libvirt/qemu")


LOG_TAIL = 64 * 1024  # bytes of a log that are looked at


# A line of QEMU's own, neither libvirt's nor a warning.
QEMUS = re.compile(r"^(?!\d{4}-\d\d-\d\d )(?!.*: warning: ).*(qemu-system|kvm)", re.IGNORECASE)


TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")


# virsh's states of a VM that does not run and will not resume. "unknown": QEMU has paused it by
# itself, which it does at an internal error (qemuMonitorVMStatusToPausedReason of libvirt).
ENDED = {
    "paused (unknown)": "was halted by QEMU, at an internal error",
    "paused (I/O error)": "was halted by QEMU, at an error of its disk",
    "paused (crashed)": "has crashed",
    "crashed (panicked)": "has crashed",
    "shut off (crashed)": "is gone: its kernel has panicked, or QEMU has ended",
    "shut off (destroyed)": "was switched off",
    "shut off (shutdown)": "has shut down",
}


def why_ended(host: Host, instance: Instance) -> VagrantpError | None:
    """Return why a VM that was started does not run; None where it does, or never did.

    A KvmError where QEMU has halted it by itself under KVM, or its last words are about KVM.
    """
    name = instance.full_name
    argv = virsh("domstate", "--reason", name)
    answer = host.ask(argv)
    if not answer.ok and "failed to get domain" in answer.stderr:
        return ProviderError(f"libvirt does not know {name} any more")
    found = answer.stdout.strip() if answer.ok else host.answer(argv)  # says why it is not known
    if found == "paused (user)":
        return StateError(f"{name} is paused", "fab up resumes it")
    errors = host.ask(virsh("domblkerror", name)) if found.startswith("paused") else None
    if errors and "no space" in errors.stdout:  # QEMU halts a guest whose disk finds no room
        text = f"{name} was halted: the storage pool {POOL} has no room for what it writes"
        return HostLimitError(text, "make room there")
    if found not in ENDED:
        return None
    last, hint = _last_words(name)
    is_kvms = "kvm" in last.replace(name, "").lower() or found == "paused (unknown)"
    kind = KvmError if is_kvms and is_by_kvm(host, name) else ProviderError
    return kind(f"{name} {ENDED[found]}" + (f": {plain(last)}" if last else ""), hint)


def is_by_kvm(host: Host, name: str) -> bool:
    """Say whether a VM runs, or would run, by KVM."""
    return "<domain type='kvm'" in host.ask(virsh("dumpxml", name)).stdout


def _last_words(name: str) -> tuple[str, str]:
    """Return QEMU's last words in a VM's log, as far as this user may read it, and a hint."""
    log = LOGS / f"{name}.log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            return last_words(file.read().decode(errors="replace")), f"QEMU's log is {log}"
    except PermissionError:
        return "", f"QEMU's log is {log}, for root to read"
    except OSError:
        return "", f"QEMU's log would be {log}"


def last_words(log: str) -> str:
    """Return QEMU's own last line in a log that libvirt keeps, "" if QEMU has printed nothing.

    Each start begins with a line from libvirt and the command line, all of whose lines but the last
    end with a \\.
    """
    last = ""
    for line in log.splitlines():
        if ": starting up libvirt" in line:
            last = ""
        elif QEMUS.search(line) and not line.endswith("\\"):
            last = TIME.sub("", line)
    return last
