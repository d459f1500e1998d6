"""Sets a guest up as PROVISION_SCRIPT says: playbooks from this host, scripts in the guest.

Only the guest records that it was done, at the end: so it is done again if it was interrupted, and
in a new guest of the same project.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.errors import (
    HostLimitError,
    ProviderError,
    cleaning_up_after,
)
from vagrantp.core.places import SCRIPTS
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.guest import agents, cloud_init, plays, session, shell
from vagrantp.guest.facts import Facts
from vagrantp.guest.plays import failure
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings
from vagrantp.settings.files import first_line
from vagrantp.settings.parsers import Provisioner
from vagrantp.settings.saved import as_json, as_written

DONE = "/var/lib/vagrantp/provisioned"
PYTHON = SCRIPTS / "get_python.sh"
PRESET = "preset"  # in machine.json: what the image of the instance brought
TOOLS = Provisioner("ours", Path("agent"))  # of coding agents
SCRIPT = SCRIPTS / "script.sh"
MARK = "${vagrantp?}"  # starts the line in which script.sh reports how a script failed
LAST_LINES = 5  # of a script's output, in the message of its failure


def fingerprint(settings: Settings) -> str:
    """Return a digest of what is to be done, which the guest records once that was done."""
    keys = ["cloud_init", "provision_script", "provision_vars"]
    if settings.agent:  # else it is the digest of versions that did not know it
        keys.append("agent")
    text = json.dumps([as_json(settings)[key] for key in keys])
    return hashlib.sha256(text.encode()).hexdigest()


def is_asked(settings: Settings) -> bool:
    """Say whether there is anything to be done."""
    return bool(_steps(settings) or settings.cloud_init)


def _steps(settings: Settings) -> tuple[Provisioner, ...]:
    """Return the steps of PROVISION_SCRIPT, and before them what AGENT implies."""
    implied = (TOOLS,) if settings.agent and TOOLS not in settings.provision_script else ()
    return *implied, *settings.provision_script


def preset(settings: Settings) -> tuple[Provisioner, ...]:
    """Return the steps that an image can have taken: those of our own at the start.

    None where a person's variables have a part in them.
    """
    if settings.provision_vars or settings.cloud_init:
        return ()
    return tuple(takewhile(lambda step: step.kind == "ours", _steps(settings)))


def preset_name(settings: Settings) -> str:
    """Return in words what is installed by the steps that an image can have taken."""
    steps = preset(settings)
    names = settings.agent if TOOLS in steps and settings.agent else ()
    return ",".join([*(str(step.path) for step in steps), *names])


def _left(host: Host, instance: Instance, settings: Settings) -> tuple[Provisioner, ...]:
    """Return the steps that the image of an instance has not taken."""
    made = instance.machine()
    of_image = made.get("provider", {}).get(PRESET)
    would_be = host.dry and not made and instance.infra_type == "container"
    taken = preset(settings) if would_be or of_image == preset_name(settings) else ()
    return _steps(settings)[len(taken) :]


def is_due(host: Host, instance: Instance, settings: Settings, pid: str) -> bool:
    """Ask a running guest whether something of PROVISION_SCRIPT is still to be done."""
    if not is_asked(settings):
        return False
    done = session.run(host, instance, pid, f"cat {DONE}").stdout.strip()
    return bool(done != fingerprint(settings))


def proof(settings: Settings, found: Facts) -> list[Check]:
    """Return the check that a guest, by its facts, was provisioned as its settings say."""
    if not _steps(settings):
        return []
    asked = ",".join(map(as_written, filter(None, (settings.agent, settings.provision_script))))
    is_done = found.provisioned == fingerprint(settings)
    return [compare("provisioned", asked, asked if is_done else "not done, or something else")]


def check(host: Host, instance: Instance, settings: Settings) -> None:
    """Find mistakes in the playbooks before anything is made for them.

    Gets the roles and collections that they require. Raises ProvisionError; ConfigError where a
    play is not for the guest.
    """
    cloud_init.check(host, instance, settings)
    steps = _steps(settings)
    _require_sandbox(host, steps)
    for step in steps[len(preset(settings)) :]:  # our own are sound
        if step.kind != "script":
            with host.progress.stage("check", step.path.name):
                plays.check(host, instance, settings, step)


def _require_sandbox(host: Host, steps: Sequence[Provisioner]) -> None:
    """Raise ProviderError where there is a playbook, and no sandbox can be made."""
    if any(step.kind != "script" for step in steps):
        host.require_sandbox()


def run(
    host: Host,
    instance: Instance,
    settings: Settings,
    pid: str,
    is_new: bool,
    rejoin: Callable[[], None],
) -> str:
    """Take the steps of PROVISION_SCRIPT in a running guest; return what was done.

    `pid`: of its QEMU or first process; `is_new`: without the steps that its image has taken;
    `rejoin`: waits until it answers again. Raises ProvisionError where a step fails, ProviderError
    where the guest does not answer.
    """
    steps = _left(host, instance, settings) if is_new else _steps(settings)
    _require_sandbox(host, steps)
    host.remove(instance.provision_log)
    host = replace(host, log=instance.provision_log)
    done = [f"{preset_name(settings)} by its image"] if len(steps) < len(_steps(settings)) else []
    if settings.cloud_init and (name := cloud_init.wait(host, instance, pid, rejoin)):
        done.append(name)
    if steps:
        home = require_answer(host, instance, pid)
        _as_root(host, instance, pid, f"rm -f {DONE}", "provisioning")
        done += take(host, instance, settings, pid, steps, home)
    note = f"mkdir -p {Path(DONE).parent} && echo {fingerprint(settings)} > {DONE}"
    _as_root(host, instance, pid, note, "provisioning")
    return ", ".join(done)


def take(
    host: Host,
    instance: Instance,
    settings: Settings,
    pid: str,
    steps: Sequence[Provisioner],
    home: str,
) -> list[str]:
    """Take some steps in a running guest; return what was done. Errors as of `run`.

    `home`: as of `require_answer`, which comes first.
    """
    done = []
    for step in steps:
        with host.progress.stage("provision", step.path.name):
            if step.kind == "script":
                _run_script(host, instance, settings, pid, step)
                counted = ""
            else:
                get = PYTHON.read_text("utf-8")
                _as_root(host, instance, pid, get, "getting Python into the guest")
                counted = plays.run(host, instance, settings, step, home)
            done.append(f"{step.path.name}{counted}")
        if step == TOOLS and settings.agent:
            done.append(_install_agents(host, instance, pid, settings.agent))
    return done


def require_answer(host: Host, instance: Instance, pid: str) -> str:
    """Ask for the folder of who logs in.

    Raises ProviderError where a login runs no command: what follows would wait for ever.
    """
    if host.dry:
        return ""
    answer = session.run(host, instance, pid, "cd && pwd")
    if not answer.ok:
        raise session.unanswered(instance, answer.stderr)
    return answer.stdout.strip()


def _install_agents(host: Host, instance: Instance, pid: str, names: Sequence[str]) -> str:
    """Install coding agents, or their newest versions, for the user who logs in."""
    listed = as_written(tuple(names))
    with host.progress.stage("install", listed):
        try:
            agents.install(host, instance, pid, names)
        except (ProviderError, HostLimitError) as error:
            raise failure(host, f"AGENT={listed}", error.message) from None
    return listed


def _run_script(
    host: Host, instance: Instance, settings: Settings, pid: str, step: Provisioner
) -> None:
    script = SCRIPT.read_text("utf-8")
    path, place = instance.source(step.path), ""
    if settings.mount != "none" and step.path.is_relative_to(instance.folder):
        place = str(contract.PROJECT / step.path.relative_to(instance.folder))
    name, kind, *interpreter = shell.provision_script(path, first_line(path))
    how = [name, kind, place, *interpreter]
    lines: deque[str] = deque(maxlen=LAST_LINES + 1)
    try:
        host.change(
            ssh.kept_ssh(instance, pid, shell.as_root(script, *how)),
            what=str(step),
            timeout=plays.TIMEOUT,
            cwd=instance.state_dir,
            stdin=path,
            note=lines.append,
        )
    except (ProviderError, HostLimitError) as error:  # the guest's own disk may be full
        raise failure(host, step, _why(lines) or error.message) from None
    except BaseException as error:  # an interrupt, which must reach the script in the guest
        with cleaning_up_after(error):
            _as_root(host, instance, pid, script, "ending a script")
        raise


def _as_root(host: Host, instance: Instance, pid: str, script: str, what: str) -> None:
    argv = ssh.kept_ssh(instance, pid)
    session.as_root(host, argv, script, what, instance.state_dir, plays.TIMEOUT)


def _why(lines: Sequence[str]) -> str:
    """Return how a script failed, from what script.sh says at its end."""
    if not lines or not lines[-1].startswith(MARK):
        return ""
    status, _, line = lines[-1].removeprefix(MARK).partition(" ")
    place = f"line {line}: " if line else ""
    last = [f"\n  {text}" for text in [*lines][:-1]]
    return f"{place}exit status {status}{''.join(last)}"
