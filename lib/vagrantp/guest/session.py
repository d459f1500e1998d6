"""What a guest reports about itself over ssh."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

from invoke.runners import Result

from vagrantp.core.errors import ProviderError, VagrantpError
from vagrantp.core.places import SCRIPTS
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.guest import shell
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

# Plain sh and /proc, so that any guest can answer: one `name value` a line.
FACTS = r"""
echo hostname "$(cat /proc/sys/kernel/hostname)"
echo cpus "$(grep -c ^processor /proc/cpuinfo)"
echo memory_kib "$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo addresses $(ip -4 -o address show scope global | awk '{sub("/.*", "", $4); print $4}')
echo gateway $(ip -4 route show default | awk '{print $3; exit}')
echo user "$(id -u) $(id -g)"
echo project "$(awk '$2 == "/project" {print $3, substr($4, 1, 2)}' /proc/mounts)" \
    "$(stat -c %i /project 2>/dev/null)"
echo provisioned "$(cat /var/lib/vagrantp/provisioned 2>/dev/null)"
set -- $(df -Pk / | awk 'NR == 2 {print $1, $2}')
echo root_kib "$2"
# from the root file system through LVM down to the disk; what else is on them is not for it
[ -b "$1" ] || exit 0
cd "/sys/class/block/$(basename "$(readlink -f "$1")")"
beside=0
count() { [ "$1" -ef . ] || beside=$((beside + $(cat "$1/size") / 2)); }
while [ -d slaves ] && [ "$(ls slaves)" ]; do
    for volume in slaves/*/holders/*; do count "$volume"; done
    cd -P "$(ls -d slaves/* | head -n 1)"
done
if [ -e partition ]; then
    for number in ../*/partition; do count "${number%/*}"; done
    cd -P ..
fi
echo beside_kib "$beside"
echo disk_bytes "$(($(cat size) * 512))"
"""
# What these facts must look like; others are free text.
NUMBERS = {
    **dict.fromkeys(("cpus", "memory_kib", "root_kib", "beside_kib", "disk_bytes"), r"\d{1,18}"),
    "user": r"\d{1,10} \d{1,10}",
    "project": r"|\S+ r[ow] \d{1,20}",
}
MAX_FACT = 4096  # characters
BOOT = SCRIPTS / "boot.sh"  # in the seed of a VM of our own image
GROW = SCRIPTS / "grow_root.sh"
ROOT_TIMEOUT = 300  # seconds; to grow a file system to 20 TB takes one under KVM
# Shares of what was promised. The kernel keeps some memory for itself, a file system some disk.
LEAST_MEMORY = 0.75
LEAST_ROOT = 0.90


def wait(
    host: Host,
    ssh: list[str],
    seconds: float,
    end: Callable[[], VagrantpError | None],
    cwd: Path | None = None,
    needs: str = "hostname",
) -> dict[str, str]:
    """Ask a guest for its facts until it answers. `ssh` is the argv that reaches it, from `cwd`.

    `needs`: the one that must be among them. `end` returns why the guest no longer runs, which is
    raised, or None while it does. Raises ProviderError when it has not answered after `seconds`.
    """
    deadline = monotonic() + seconds
    while True:
        facts, why = ask(host, ssh, cwd)
        if needs in facts:
            return facts
        if why_ended := end():
            raise why_ended
        if monotonic() > deadline and facts:
            raise ProviderError(f"it has no {needs} after {seconds:.0f} seconds")
        if monotonic() > deadline:
            raise ProviderError(f"ssh did not answer in {seconds:.0f} seconds: {why}")
        sleep(0.25)


def ask(host: Host, ssh: list[str], cwd: Path | None = None) -> tuple[dict[str, str], str]:
    """Ask a guest for its facts once. Return them, or {} and why there are none.

    A fact that should be a number and is none is left out, as unknown.
    """
    answer = _answer(host, ssh, FACTS, cwd)
    if not answer.ok:
        return {}, (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    lines = [line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line]
    return {name: value for name, value in map(_fact, lines) if _is_sound(name, value)}, ""


def _fact(line: list[str]) -> tuple[str, str]:
    """Return name and value of a fact, with nothing in it that controls a terminal."""
    name, value = line
    return name, "".join(c if c.isprintable() else "?" for c in value[:MAX_FACT].strip())


def _is_sound(name: str, value: str) -> bool:
    return bool(re.fullmatch(NUMBERS.get(name, ".*"), value, re.ASCII))


def run(host: Host, instance: Instance, pid: str, script: str) -> Result:
    """Run a shell script in a running guest, by the connection that is kept for `ssh`.

    `pid`: of its QEMU or first process.
    """
    return _answer(host, ssh.kept_ssh(instance, pid), script, instance.state_dir)


def _answer(host: Host, ssh: list[str], script: str, cwd: Path | None) -> Result:
    """Run a shell script in a guest; return what the script itself prints, and its exit status.

    Shell files of the guest (.bashrc, ~/.ssh/rc) may print before, after and meanwhile. So each of
    the script's lines begins with a random word, and the last one is its status.
    """
    word = secrets.token_hex(16) + " "
    marked = f"{{ ({script}\n); printf '\\n%s\\n' \"$?\"; }} | sed 's/^/{word}/'"
    result = host.ask([*ssh, shell.shell(marked)], timeout=60, cwd=cwd)
    lines = [line.partition(word)[2] for line in result.stdout.split("\n") if word in line]
    status = lines.pop() if lines else ""
    result.stdout = "\n".join(lines)
    if re.fullmatch(r"\d{1,3}", status, re.ASCII):
        result.exited = int(status)
    elif result.ok:
        result.exited, result.stderr = 1, "the user's login shell ran no command"
    return result


def grow(host: Host, ssh: list[str]) -> None:
    """Make the root file system of a guest fill its disk. `ssh` is the argv that reaches it.

    Raises ProviderError when that cannot be done.
    """
    as_root(host, ssh, GROW.read_text(encoding="utf-8"), "growing the root file system")


def as_root(
    host: Host,
    ssh: list[str],
    script: str,
    what: str,
    cwd: Path | None = None,
    timeout: float = ROOT_TIMEOUT,
) -> None:
    """Run a shell script in a guest as root. `what` names it in an error; `timeout` in seconds."""
    argv = [*ssh, shell.as_root(script)]
    host.change(argv, what=what, timeout=timeout, cwd=cwd)


def check(facts: dict[str, str], settings: Settings) -> list[Check]:
    """Compare a guest's facts, {} when it does not answer, with its settings.

    A container sees the host's memory, CPUs and disk: there only the name counts.
    """
    name = facts.get("hostname")
    hostname = compare("hostname", settings.hostname or name, name)
    if settings.infra_type == "container":
        return [hostname]
    disk, cpus = facts.get("disk_bytes"), facts.get("cpus")
    memory, least = int(facts.get("memory_kib", 0)), settings.memory * 1024 * LEAST_MEMORY
    room = settings.disk * 1024**2 - int(facts.get("beside_kib", 0))
    root, least_root = int(facts.get("root_kib", 0)), room * LEAST_ROOT
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
