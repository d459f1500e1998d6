"""CLOUD_INIT: a person's #cloud-config, checked on this host and awaited in the guest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vagrantp.core.errors import ProviderError, UnansweredError
from vagrantp.core.places import SCRIPTS
from vagrantp.core.sandbox import Sandbox
from vagrantp.core.system import Host
from vagrantp.core.text import last_line, plain
from vagrantp.guest import facts, plays, session
from vagrantp.guest.plays import failure
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings import cloud_config
from vagrantp.settings.env import Settings

NAME = "cloud-init"
SEEN = "/var/lib/vagrantp/cloud-init.json"  # its result, once we have it: of cloud_init.sh
SAID = "/var/lib/vagrantp/cloud-init.said"
SCRIPT = SCRIPTS / "cloud_init.sh"
CHECKER = Path("/usr/bin/cloud-init")  # of this host, if it has one
UNKNOWN = "Additional properties are not allowed"
BOOT = "cat /proc/sys/kernel/random/boot_id"
MAX_LOST = 3  # times that a connection breaks off without a reboot
MAX_BOOTS = 10
LAST_LINES = 5  # of its output, in the message of its failure
MAX_SAID = 20  # lines


def check(host: Host, instance: Instance, settings: Settings) -> None:
    """Have the cloud-init of this host, where it has one, check CLOUD_INIT against its schema.

    What it finds are warnings, as they are for cloud-init itself: the guest's may be newer, and
    modules take more than their schema says.
    """
    theirs = settings.cloud_init and instance.source(settings.cloud_init)
    # A template is a Jinja program, and no sandbox is safe for that: it runs in the guest only.
    if not theirs or not CHECKER.exists() or cloud_config.is_template(theirs):
        return
    argv = [str(CHECKER), "schema", "--config-file", str(theirs)]
    done = host.ask(argv, sandbox=Sandbox(reads=[theirs]))
    if not done.ok:
        for error in schema_errors(done.stderr + done.stdout):
            host.progress.say(f"warning: {settings.cloud_init}: {error}, says cloud-init here")


def schema_errors(said: str) -> list[str]:
    """Return what is wrong in a #cloud-config by `cloud-init schema`.

    Where a key has several forms, what is unknown in it is an error by each: it is here once.
    """
    found = re.search(r"schema errors: (.*)", said)
    if not found:
        return [last_line(said)]
    errors = [plain(one) for one in re.split(r", (?=[\w.-]+: )", found[1])]
    places = {one.partition(":")[0] for one in errors if UNKNOWN in one}
    return [one for one in errors if UNKNOWN in one or one.partition(":")[0] not in places]


def wait(host: Host, instance: Instance, pid: str, rejoin: Callable[[], None]) -> str:
    """Wait for the end of cloud-init's first run, once, over reboots; return its name, or "".

    `rejoin`: waits until the guest answers, or raises why it has ended. Raises ProvisionError where
    cloud-init failed.
    """
    if session.run(host, instance, pid, f"cat {SEEN}").ok:
        return ""
    with host.progress.stage("provision", NAME):
        _wait(host, instance, pid, rejoin)
    if host.dry:
        return NAME
    said = session.run(host, instance, pid, f"cat {SAID}").stdout
    for line in said.strip().splitlines()[:MAX_SAID]:
        host.progress.say(f"warning: CLOUD_INIT: {plain(line)}")
    answer = session.run(host, instance, pid, f"cat {SEEN}")
    errors = facts.cloud_init_errors(answer.stdout) if answer.ok else [last_line(answer.stderr)]
    if errors:
        tail = "sudo -n tail /var/log/cloud-init-output.log"
        said = session.run(host, instance, pid, tail).stdout
        last = [f"\n  {plain(line)}" for line in said.strip().splitlines()[-LAST_LINES:]]
        raise failure(host, NAME, "; ".join(errors) + "".join(last))
    return NAME


def _wait(host: Host, instance: Instance, pid: str, rejoin: Callable[[], None]) -> None:
    """Run the script that waits; where a reboot cuts it off, again."""
    script, lost, boots = SCRIPT.read_text("utf-8"), 0, 0
    boot = _boot(host, instance, pid, rejoin)
    while True:
        try:
            argv = ssh.kept_ssh(instance, pid)
            session.as_root(host, argv, script, NAME, instance.state_dir, plays.TIMEOUT)
            return
        except UnansweredError:
            raise
        except ProviderError as error:
            _rejoin(host, instance, rejoin)
            now = _boot(host, instance, pid, rejoin)
            lost, boots = (lost + 1, boots) if now == boot else (0, boots + 1)
            if lost == MAX_LOST or boots == MAX_BOOTS:
                raise error from None
            if now != boot:
                host.progress.say("cloud-init rebooted the guest")
            boot = now


def _boot(host: Host, instance: Instance, pid: str, rejoin: Callable[[], None]) -> str:
    """Return the id of the guest's boot. Raises ProviderError where a login runs no command."""
    if host.dry:
        return ""
    answer = session.run(host, instance, pid, BOOT)
    if not answer.ok:  # it may be going down
        _rejoin(host, instance, rejoin)
        answer = session.run(host, instance, pid, BOOT)
    if not answer.ok:
        raise ProviderError(f"the guest does not answer: {last_line(answer.stderr)}")
    return answer.stdout


def _rejoin(host: Host, instance: Instance, rejoin: Callable[[], None]) -> None:
    ssh.close_connections(host, instance)
    try:
        rejoin()
    except UnansweredError:
        raise
    except ProviderError as error:
        hint = "power_state or runcmd in CLOUD_INIT may say so; fab up starts it, and goes on"
        raise type(error)(error.message, error.hint or hint) from None
