"""What a guest says of itself over ssh."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from vagrantp.config import Settings
from vagrantp.errors import ProviderError
from vagrantp.instance import Instance
from vagrantp.run import Host

# Plain sh and /proc, so that any guest can answer: one `name value` a line.
FACTS = r"""
echo hostname "$(cat /proc/sys/kernel/hostname)"
echo cpus "$(grep -c ^processor /proc/cpuinfo)"
echo memory_kib "$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo disk_bytes "$(($(cat /sys/block/vda/size 2>/dev/null || echo 0) * 512))"
echo root_kib "$(df -Pk / | awk 'NR == 2 {print $2}')"
"""
# Shares of what was promised. The kernel keeps some memory for itself, a file system some disk.
LEAST_MEMORY = 0.75
LEAST_ROOT = 0.90


def wait(
    host: Host, ssh: list[str], seconds: float, is_running: Callable[[], bool]
) -> dict[str, str]:
    """Ask a guest for its facts until it answers. `ssh` is the argv that reaches it.

    Raises ProviderError when it stops meanwhile, or has not answered after `seconds`.
    """
    deadline = monotonic() + seconds
    while True:
        answer = host.ask([*ssh, FACTS], timeout=60)
        if answer.ok:
            return dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)
        why = answer.stderr.strip().splitlines()
        if not is_running():
            raise ProviderError("it stopped before ssh answered", "fab up --verbose shows more")
        if monotonic() > deadline:
            raise ProviderError(
                f"ssh did not answer in {seconds:.0f} seconds: {why[-1] if why else 'no reason'}"
            )
        sleep(0.25)


def check(facts: dict[str, str], instance: Instance, settings: Settings) -> list[str]:
    """Compare a guest's facts with its settings; return what differs.

    A container sees the host's memory, CPUs and disk: there only the name counts.
    """
    problems = []
    if facts["hostname"] != instance.name:
        problems.append(f"hostname: promised {instance.name}, the guest says {facts['hostname']}")
    if settings.infra_type == "container":
        return problems
    disk = settings.disk * 1024**3
    if int(facts["cpus"]) != settings.cpus:
        problems.append(f"CPUS: promised {settings.cpus}, the guest sees {facts['cpus']}")
    if not LEAST_MEMORY <= int(facts["memory_kib"]) / (settings.memory * 1024) <= 1:
        problems.append(
            f"MEMORY: promised {settings.memory} MB, the guest sees {facts['memory_kib']} KiB"
        )
    if int(facts["disk_bytes"]) != disk:
        problems.append(f"DISK in bytes: promised {disk}, the guest sees {facts['disk_bytes']}")
    if int(facts["root_kib"]) * 1024 < disk * LEAST_ROOT:
        problems.append(f"root file system: promised {disk} bytes, has {facts['root_kib']} KiB")
    return problems
