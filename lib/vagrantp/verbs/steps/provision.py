"""Provisions a running instance where that is due."""

from __future__ import annotations

from functools import partial

from vagrantp.core.errors import cleaned_up_by
from vagrantp.core.system import Host
from vagrantp.guest import provision as guest
from vagrantp.instance import ssh
from vagrantp.instance.plan import When
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings.env import Settings
from vagrantp.verbs.steps import check as checking


def provision(host: Host, instance: Instance, settings: Settings, when: When) -> str:
    """Provision a running instance where that is due; return what was done, "" for nothing."""
    if not guest.is_asked(settings):
        return ""
    pid = provider_for(instance.infra_type).pid(host, instance)
    is_due = when == "always" or not pid or guest.is_due(host, instance, settings, pid)
    if is_due and when == "never":
        host.progress.say("not provisioned, as you said; fab provision does it")
    if not is_due or when == "never":
        return ""
    rejoin = partial(checking.rejoin, host, instance)
    # sshd knows the groups of a user as of the login
    with cleaned_up_by(lambda: ssh.close_connections(host, instance, "stop")):
        done = guest.run(host, instance, settings, pid, when != "always", rejoin)
    if not host.dry:
        host.progress.say(f"provisioned: {done}")
    return done
