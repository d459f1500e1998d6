"""Takes the steps of a plan (instance/plan.py), each by a function of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vagrantp.core.errors import StateError
from vagrantp.core.system import Host
from vagrantp.guest import provision as guest_provision
from vagrantp.instance import plan
from vagrantp.instance.found import Found
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings.env import Settings
from vagrantp.verbs.steps import apply, create, peek, provision, remove, start, stop

Sure = Callable[[str], bool]  # asks a person


def take(
    host: Host,
    steps: Sequence[plan.Step],
    found: Found,
    is_sure: Sure = lambda _: False,
    settings: Settings | None = None,
    wanted: Instance | None = None,
) -> str:
    """Take the steps that lead from an instance as it was found; return what the last one says.

    `settings` and `wanted`, an instance to be made: for steps that make or change one.
    Raises StateError where a step refuses, or `is_sure` does.
    """
    instance, said = found.instance, ""
    for step in steps:
        match step:
            case plan.Refuse(message, hint):
                raise StateError(message, hint)
            case plan.Confirm(in_use):
                text = "\n  ".join([in_use, *peek.lost_with(host, found)])
                if not is_sure(text):
                    raise StateError(text, "fab stop first, or remove it with fab rm --force")
            case plan.Remove(why):
                if why:
                    host.progress.say(why)
                remove.remove(host, instance)
            case plan.Do.RESUME:
                with host.progress.stage("resume"):
                    provider_for(instance.infra_type).resume(host, instance)
            case plan.Stop(force):
                stop.stop(host, instance, force)
            case _ if settings:
                is_filled = plan.Provision("never") not in steps
                said = _make(host, step, instance, settings, wanted or instance, is_filled)
    return said


def _make(
    host: Host,
    step: plan.Step,
    instance: Instance,
    settings: Settings,
    wanted: Instance,
    is_filled: bool,
) -> str:
    """Take a step that makes or changes an instance as `settings` have it.

    `is_filled`: a new one may start from an image that has what our own playbooks install.
    """
    match step:
        case plan.Do.REMOVE_LEFTOVERS:
            remove.remove_leftovers(host, wanted)
        case plan.Do.CHECK_PLAYBOOKS:
            guest_provision.check(host, wanted, settings)
        case plan.Do.CREATE:
            create.create(host, wanted, settings, is_filled)
        case plan.Do.ADOPT:
            provider_for(instance.infra_type).adopt(host, instance)
        case plan.Start():
            start.start(host, instance, settings, step)
        case plan.Apply():
            apply.apply(host, instance, settings, step)
        case plan.Record(changes):
            apply.record_applied(host, instance, settings, changes)
        case plan.Provision(when):
            return provision.provision(host, wanted, settings, when)
    return ""
