"""Sets a guest up as PROVISION_SCRIPT says: playbooks from this host, scripts in the guest.

Only the guest records that it was done, at the end: so it is done again if it was interrupted, and
in a new guest of the same project.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from vagrantp.core import relay
from vagrantp.core.errors import (
    ConfigError,
    HostLimitError,
    ProviderError,
    ProvisionError,
    cleaning_up_after,
)
from vagrantp.core.places import MASTER, SCRIPTS
from vagrantp.core.process import is_installed
from vagrantp.core.progress import Check, compare
from vagrantp.core.sandbox import Sandbox
from vagrantp.core.system import Host
from vagrantp.core.text import last_line, plain
from vagrantp.guest import events, facts, galaxy, playbooks, session, shell
from vagrantp.guest.events import Events, Failure
from vagrantp.guest.facts import Facts
from vagrantp.guest.playbooks import Playbook
from vagrantp.images import store
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings import env
from vagrantp.settings.env import Settings
from vagrantp.settings.files import first_line
from vagrantp.settings.parsers import Provisioner
from vagrantp.settings.saved import as_json, as_written

LOCALHOST = "plays for localhost set up the guest"  # as play.py prints it
DONE = "/var/lib/vagrantp/provisioned"
CONNECT_TIMEOUT = 10  # seconds
STEP_TIMEOUT = 4 * 3600  # seconds for a playbook or script: some compile
PYTHON = SCRIPTS / "get_python.sh"
SCRIPT = SCRIPTS / "script.sh"
SEEN = "/var/lib/vagrantp/cloud-init.json"  # its result, once we have it
# The exit status is ignored, as the result says more.
CLOUD_INIT = f"""
command -v cloud-init >/dev/null || {{ echo "error: the guest has no cloud-init" >&2; exit 1; }}
cloud-init status --wait >/dev/null || true
mkdir -p /var/lib/vagrantp
cp /run/cloud-init/result.json {SEEN}
"""
MARK = "${vagrantp?}"  # starts the line in which script.sh reports how a script failed
LAST_LINES = 5  # of a script's output, in the message of its failure


def fingerprint(settings: Settings) -> str:
    """Return a digest of what is to be done, which the guest records once that was done."""
    keys = ("cloud_init", "provision_script", "provision_vars")
    text = json.dumps([as_json(settings)[key] for key in keys])
    return hashlib.sha256(text.encode()).hexdigest()


def is_asked(settings: Settings) -> bool:
    """Say whether there is anything to be done."""
    return bool(settings.provision_script or settings.cloud_init)


def is_due(host: Host, instance: Instance, settings: Settings, pid: str) -> bool:
    """Ask a running guest whether something of PROVISION_SCRIPT is still to be done."""
    if not is_asked(settings):
        return False
    done = session.run(host, instance, pid, f"cat {DONE}").stdout.strip()
    return bool(done != fingerprint(settings))


def proof(settings: Settings, found: Facts) -> list[Check]:
    """Return the check that a guest, by its facts, was provisioned as its settings say."""
    if not settings.provision_script:
        return []
    asked = as_written(settings.provision_script)
    is_done = found.provisioned == fingerprint(settings)
    return [compare("provisioned", asked, asked if is_done else "not done, or something else")]


def check(host: Host, instance: Instance, settings: Settings) -> None:
    """Find mistakes in the playbooks before anything is made for them.

    Gets the roles and collections that they require. Raises ProvisionError; ConfigError where a
    play is not for the guest.
    """
    theirs = settings.cloud_init and instance.source(settings.cloud_init)
    # A template is a Jinja program, and no sandbox is safe for that: it runs in the guest only.
    if theirs and is_installed("cloud-init") and not env.is_template(theirs):
        argv = ["cloud-init", "schema", "--config-file", str(theirs)]
        done = host.ask(argv, sandbox=Sandbox(reads=[theirs]))
        if not done.ok:
            raise ProvisionError(f"{settings.cloud_init}: {last_line(done.stderr + done.stdout)}")
    steps = [step for step in settings.provision_script if step.kind != "script"]
    if steps:
        host.require_sandbox()
    for step in steps:
        with host.progress.stage("check", step.path.name):
            _check_playbook(host, instance, settings, step)


def _check_playbook(host: Host, instance: Instance, settings: Settings, step: Provisioner) -> None:
    playbook = _playbook(host, instance, settings, step)
    with host.scratch(store.cache()) as folder:
        host.write(folder / "events", "")
        seen = playbooks.sandbox(playbook, folder)
        try:
            host.change(
                playbooks.check(playbook),
                what=str(step),
                timeout=300,
                explain=_complaint,
                sandbox=seen,
            )
        except ProviderError as error:
            _refuse(events.read(folder / "events"))
            raise ProvisionError(error.message) from None


def run(host: Host, instance: Instance, settings: Settings, pid: str) -> str:
    """Take every step of PROVISION_SCRIPT in a running guest; return what was done.

    `pid`: of its QEMU or first process. Raises ProvisionError where a step fails,
    ProviderError where the guest does not answer.
    """
    host.remove(instance.provision_log)
    host = replace(host, log=instance.provision_log)
    _require_answer(host, instance, pid)
    _as_root(host, instance, pid, f"rm -f {DONE}", "provisioning")
    done = []
    if settings.cloud_init and (name := _await_cloud_init(host, instance, pid)):
        done.append(name)
    for step in settings.provision_script:
        with host.progress.stage("provision", step.path.name):
            take = _run_script if step.kind == "script" else _run_playbook
            done.append(f"{step.path.name}{take(host, instance, settings, pid, step)}")
    note = f"mkdir -p {Path(DONE).parent} && echo {fingerprint(settings)} > {DONE}"
    _as_root(host, instance, pid, note, "provisioning")
    return ", ".join(done)


def _require_answer(host: Host, instance: Instance, pid: str) -> None:
    """Raise ProviderError where a login runs no command: what follows would wait for ever."""
    if host.dry:
        return
    answer = session.run(host, instance, pid, "true")
    if not answer.ok:
        raise ProviderError(f"the guest does not answer: {last_line(answer.stderr)}")


def _run_playbook(
    host: Host, instance: Instance, settings: Settings, pid: str, step: Provisioner
) -> str:
    playbook = _playbook(host, instance, settings, step)
    _as_root(host, instance, pid, PYTHON.read_text("utf-8"), "getting Python into the guest")
    with _playground(host, instance, settings) as folder:
        host.progress.done(lambda: _at_task(events.read(folder / "events")))

        def report(line: str) -> None:
            if line == LOCALHOST:
                host.progress.say(f"{step.path.name}: {line}")

        try:
            host.change(
                playbooks.run(playbook),
                what=str(step),
                timeout=STEP_TIMEOUT,
                note=report,
                explain=_complaint,
                sandbox=playbooks.sandbox(playbook, folder, instance),
            )
        except (ProviderError, HostLimitError) as error:
            found = events.read(folder / "events")
            _refuse(found)
            why = error.message.removeprefix(f"{step} failed: ")
            raise _failure(
                host, step, _where(found.failures[-1]) if found.failures else why
            ) from None
        found = events.read(folder / "events")
    if found.for_nobody:
        raise _failure(host, step, found.for_nobody[0])
    return f" ({found.ok} ok, {found.changed} changed)" if found.has_ended else ""


@contextmanager
def _playground(host: Host, instance: Instance, settings: Settings) -> Iterator[Path]:
    """Yield a folder with what a playbook's sandbox has of a guest, and a relay that reaches it.

    What the module fetch has brought moves to the instance's `fetched`, and its path is printed.
    """
    user, address, port = _login(host, instance, settings)
    with host.scratch(instance.state_dir) as folder:
        host.write(folder / "events", "")
        host.write(folder / "connection.json", playbooks.connection(instance, user))
        host.write(folder / "ssh_config", playbooks.ssh_config(instance, user))
        host.make_dir(folder / "fetched")
        if host.dry:
            yield folder
            return
        reach = partial(socket.create_connection, (address, port), CONNECT_TIMEOUT)
        try:
            with relay.serve(folder / "ssh", reach):
                yield folder
        finally:
            if host.adopt(folder / "fetched", instance.fetched):
                host.progress.say(f"fetched into {instance.fetched}")


def _refuse(found: Events) -> None:
    """Raise ConfigError where play.py has refused the playbook."""
    if found.refused:
        raise ConfigError("\n".join(found.refused))


def _name(settings: Settings) -> str:
    """Return what the inventory calls the guest."""
    return settings.hostname or settings.name


def _variables(instance: Instance, settings: Settings) -> Path | None:
    return settings.provision_vars and instance.source(settings.provision_vars)


def _login(host: Host, instance: Instance, settings: Settings) -> tuple[str, str, int]:
    """Return who logs in, at which address and port, as the ssh_config says: a box has its user."""
    if host.dry:
        return settings.ssh_user, "", 22
    words = instance.ssh_config.read_text("utf-8").split()
    user, address, port = (words[words.index(key) + 1] for key in ("User", "HostName", "Port"))
    return user, address, int(port)


def _run_script(
    host: Host, instance: Instance, settings: Settings, pid: str, step: Provisioner
) -> str:
    script = SCRIPT.read_text("utf-8")
    path = instance.source(step.path)
    how = shell.provision_script(path, first_line(path))
    lines: deque[str] = deque(maxlen=LAST_LINES + 1)
    try:
        host.change(
            ssh.kept_ssh(instance, pid, shell.as_root(script, *how)),
            what=str(step),
            timeout=STEP_TIMEOUT,
            cwd=instance.state_dir,
            stdin=path,
            note=lines.append,
        )
    except (ProviderError, HostLimitError) as error:  # the guest's own disk may be full
        raise _failure(host, step, _why(lines) or error.message) from None
    except BaseException as error:  # an interrupt, which must reach the script in the guest
        with cleaning_up_after(error):
            _as_root(host, instance, pid, script, "ending a script")
        raise
    return ""


def _await_cloud_init(host: Host, instance: Instance, pid: str) -> str:
    """Wait for the end of cloud-init's first run, once. Raises ProvisionError where it failed."""
    name = "cloud-init"
    seen = session.run(host, instance, pid, f"cat {SEEN}")
    if seen.ok:
        return ""
    with host.progress.stage("provision", name):
        _as_root(host, instance, pid, CLOUD_INIT, name)
    if host.dry:
        return name
    answer = session.run(host, instance, pid, f"cat {SEEN}")
    errors = facts.cloud_init_errors(answer.stdout) if answer.ok else [last_line(answer.stderr)]
    if errors:
        tail = "sudo -n tail /var/log/cloud-init-output.log"
        said = session.run(host, instance, pid, tail).stdout
        last = [f"\n  {plain(line)}" for line in said.strip().splitlines()[-LAST_LINES:]]
        raise _failure(host, name, "; ".join(errors) + "".join(last))
    return name


def _as_root(host: Host, instance: Instance, pid: str, script: str, what: str) -> None:
    argv = ssh.kept_ssh(instance, pid)
    session.as_root(host, argv, script, what, instance.state_dir, STEP_TIMEOUT)


def _failure(host: Host, step: Provisioner | str, why: str) -> ProvisionError:
    return ProvisionError(
        f"provisioning failed: {step}: {why}",
        f"the instance stays up for a look (fab ssh); fab up continues. The full log is {host.log}",
    )


def _why(lines: Sequence[str]) -> str:
    """Return how a script failed, from what script.sh says at its end."""
    if not lines or not lines[-1].startswith(MARK):
        return ""
    status, _, line = lines[-1].removeprefix(MARK).partition(" ")
    place = f"line {line}: " if line else ""
    last = [f"\n  {text}" for text in [*lines][:-1]]
    return f"{place}exit status {status}{''.join(last)}"


def _where(failure: Failure) -> str:
    """Return where and why a playbook failed."""
    place = f" ({failure.place})" if failure.place else ""
    return f'play "{failure.play}", task "{failure.task}"{place}: {failure.message}'


def _at_task(found: Events) -> str:
    return "task {} of {}".format(*found.task) if found.task else ""


def _complaint(lines: list[str]) -> str:
    """Pick what matters out of Ansible's output: its error, and where it found it."""
    start = next(
        (n for n, line in enumerate(lines) if line.startswith(("[ERROR]", "ERROR!"))), None
    )
    if start is None:
        return lines[-1] if lines else ""
    text = lines[start].partition(" ")[2].removeprefix(": ")
    origin = next((line for line in lines[start:] if line.startswith("Origin: ")), "")
    return f"{text} ({origin.removeprefix('Origin: ')})" if origin else text


def _playbook(host: Host, instance: Instance, settings: Settings, step: Provisioner) -> Playbook:
    """Return a playbook with what belongs to it; gets the roles that it requires."""
    is_ours = step.kind == "ours"
    path = MASTER / f"playbooks/{step.path}.yml" if is_ours else instance.source(step.path)
    path = Path(os.path.realpath(path))
    return Playbook(
        path,
        playbooks.root_of(instance.folder, path),
        _name(settings),
        _variables(instance, settings),
        galaxy.ensure(host, path.parent, instance.source),
    )
