"""What a guest reports about itself over ssh."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

from invoke.runners import Result

from vagrantp.core.errors import FloodError, ProviderError, VagrantpError
from vagrantp.core.places import SCRIPTS
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.core.text import last_line
from vagrantp.guest import facts, shell
from vagrantp.guest.facts import Facts
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

TIMEOUT = 60  # seconds, of a question
MAX_ANSWER = 1024**2  # bytes that a guest may print at once
BOOT = SCRIPTS / "boot.sh"  # in the seed of a VM of our own image
GROW = SCRIPTS / "grow_root.sh"
REFUSED_SECONDS = 3  # for a guest that is still starting
ROOT_TIMEOUT = 300  # seconds; to grow a file system to 20 TB takes one under KVM
# What ssh(1) says.
HOST_KEY_CHANGED = "Host key verification failed"
KEY_REFUSED = "Permission denied (publickey"
# Shares of what was promised. The kernel keeps some memory for itself, a file system some disk.
LEAST_MEMORY = 0.75
LEAST_ROOT = 0.90


def wait(
    host: Host,
    ssh: list[str],
    seconds: float,
    end: Callable[[], VagrantpError | None],
    cwd: Path | None = None,
    needs_gateway: bool = False,
    refusal: Callable[[str], VagrantpError | None] = lambda _: None,
) -> Facts:
    """Ask a guest for its facts until it answers. `ssh` is the argv that reaches it, from `cwd`.

    `needs_gateway`: until it has one, too. `end` returns why the guest no longer runs, which is
    raised, or None while it does; `refusal` the same for what ssh says, if no more waiting helps.
    Raises ProviderError when it has not answered after `seconds`; FloodError when it prints more
    than MAX_ANSWER.
    """
    deadline, refused_since = monotonic() + seconds, float("inf")
    while True:
        answer = _answer(host, ssh, facts.SCRIPT, cwd)
        found = facts.parse(answer.stdout)
        if answer.ok and (found.gateway or not needs_gateway):
            return found
        if why_ended := end():
            raise why_ended
        why_refused = None if answer.ok else refusal(answer.stderr)
        refused_since = min(refused_since, monotonic()) if why_refused else float("inf")
        if why_refused and monotonic() > refused_since + REFUSED_SECONDS:
            raise why_refused
        if monotonic() > deadline and answer.ok:
            raise ProviderError(f"it has no gateway after {seconds:.0f} seconds")
        if monotonic() > deadline:
            why = last_line(answer.stderr)
            raise ProviderError(f"ssh did not answer in {seconds:.0f} seconds: {why}")
        sleep(0.25)


def why_refused(instance: Instance, said: str) -> ProviderError | None:
    """Return why an instance will never let us in, by what ssh says; None where it may still.

    A new one may be setting its keys up.
    """
    if not instance.is_complete():
        return None
    if HOST_KEY_CHANGED in said:
        what = f"shows another host key than that in {instance.known_hosts}"
    elif KEY_REFUSED in said:
        what = f"refuses the key {instance.key}.pub"
    else:
        return None
    way_in = "fab status shows its console"
    if instance.infra_type == "container":
        way_in = f"podman exec --interactive --tty {instance.full_name} sh leads into it"
    hint = f"put the key back ({way_in}); or fab rm, then fab up"
    return ProviderError(f"{instance.full_name} {what}", hint)


def unanswered(instance: Instance, said: str) -> VagrantpError:
    """Return the error for an instance whose ssh says this in place of an answer."""
    why = ProviderError(f"the guest does not answer: {last_line(said)}")
    return why_refused(instance, said) or why


def ask(host: Host, ssh: list[str], cwd: Path | None = None) -> tuple[Facts, str]:
    """Ask a guest for its facts once. Return them, and why there are none, "" where it answered."""
    answer = tolerant(host, ssh, facts.SCRIPT, cwd)
    return (facts.parse(answer.stdout), "") if answer.ok else (Facts(), last_line(answer.stderr))


def run(host: Host, instance: Instance, pid: str, script: str, timeout: float = TIMEOUT) -> Result:
    """Run a shell script in a running guest, by the connection that is kept for `ssh`.

    `pid`: of its QEMU or first process; `timeout` in seconds. One that prints more than MAX_ANSWER
    has failed. Raises UnansweredError.
    """
    return tolerant(host, ssh.kept_ssh(instance, pid), script, instance.state_dir, timeout)


def tolerant(
    host: Host, ssh: list[str], script: str, cwd: Path | None, timeout: float = TIMEOUT
) -> Result:
    """Run a shell script in a guest that `ssh` reaches, from `cwd`.

    One that prints more than MAX_ANSWER has failed.
    """
    try:
        return _answer(host, ssh, script, cwd, timeout)
    except FloodError as error:
        return Result(exited=1, stderr=error.message)


def _answer(
    host: Host, ssh: list[str], script: str, cwd: Path | None, timeout: float = TIMEOUT
) -> Result:
    """Run a shell script in a guest; return what the script itself prints, and its exit status.

    Shell files of the guest (.bashrc, ~/.ssh/rc) may print before, after and meanwhile. So each of
    the script's lines begins with a random word, and the last one is its status.
    """
    word = secrets.token_hex(16) + " "
    marked = f"{{ ({script}\n); printf '\\n%s\\n' \"$?\"; }} | sed 's/^/{word}/'"
    argv = [*ssh, shell.shell(marked)]
    try:
        result = host.ask(argv, timeout=timeout, cwd=cwd, at_most=MAX_ANSWER)
    except FloodError:
        raise FloodError("the guest printed more than 1 MB when it was asked") from None
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


def check(found: Facts, settings: Settings) -> list[Check]:
    """Compare a guest's facts with its settings.

    A container sees the host's memory, CPUs and disk: there only the name counts.
    """
    name = found.hostname
    hostname = compare("hostname", settings.hostname or name or "any", name)
    if settings.infra_type == "container":
        return [hostname]
    least = settings.memory * 1024 * LEAST_MEMORY
    room = settings.disk * 1024**2 - (found.beside_kib or 0)
    return [
        _at_least("memory in the guest", found.memory_kib, int(least)),
        compare("cpus in the guest", settings.cpus, found.cpus),
        compare("disk in the guest", settings.disk * 1024**3, found.disk_bytes, "bytes"),
        _at_least("root file system", found.root_kib, int(room * LEAST_ROOT)),
        hostname,
    ]


def _at_least(name: str, found: int | None, least: int) -> Check:
    outcome: Literal["ok", "FAILED"] = "ok" if (found or 0) >= least else "FAILED"
    return Check(name, f"{least} KiB at least", f"{found} KiB" if found else "nothing", outcome)
