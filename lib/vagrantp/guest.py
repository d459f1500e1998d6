"""What a guest says of itself over ssh."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Literal

from vagrantp.config import Settings
from vagrantp.errors import ProviderError
from vagrantp.instance import Instance
from vagrantp.report import Check, compare
from vagrantp.run import Host

# Plain sh and /proc, so that any guest can answer: one `name value` a line.
FACTS = r"""
echo hostname "$(cat /proc/sys/kernel/hostname)"
echo cpus "$(grep -c ^processor /proc/cpuinfo)"
echo memory_kib "$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo disk_bytes "$(($(cat /sys/block/vda/size 2>/dev/null || echo 0) * 512))"
echo addresses $(ip -4 -o address show scope global | awk '{sub("/.*", "", $4); print $4}')
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
        facts, why = ask(host, ssh)
        if facts:
            return facts
        if not is_running():
            raise ProviderError("it stopped before ssh answered", "fab up --verbose shows more")
        if monotonic() > deadline:
            raise ProviderError(f"ssh did not answer in {seconds:.0f} seconds: {why}")
        sleep(0.25)


def ask(host: Host, ssh: list[str]) -> tuple[dict[str, str], str]:
    """Ask a guest for its facts once. Return them, or {} and why there are none."""
    answer = host.ask([*ssh, FACTS], timeout=60)
    if not answer.ok:
        return {}, (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    return dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line), ""


def check(facts: dict[str, str], instance: Instance, settings: Settings) -> list[Check]:
    """Compare a guest's facts, {} when it does not answer, with its settings.

    A container sees the host's memory, CPUs and disk: there only the name counts.
    """
    hostname = compare("hostname", instance.name, facts.get("hostname"))
    if settings.infra_type == "container":
        return [hostname]
    disk, cpus = facts.get("disk_bytes"), facts.get("cpus")
    memory, least = int(facts.get("memory_kib", 0)), settings.memory * 1024 * LEAST_MEMORY
    root, least_root = int(facts.get("root_kib", 0)), settings.disk * 1024**2 * LEAST_ROOT
    return [
        _at_least("memory in the guest", memory, int(least)),
        compare("cpus in the guest", settings.cpus, cpus and int(cpus)),
        compare("disk in the guest", settings.disk * 1024**3, disk and int(disk), "bytes"),
        _at_least("root file system", root, int(least_root)),
        hostname,
    ]


def _at_least(name: str, found: int, least: int) -> Check:
    outcome: Literal["ok", "FAILED"] = "ok" if found >= least else "FAILED"
    return Check(name, f"{least} KiB at least", f"{found} KiB" if found else "nothing", outcome)
