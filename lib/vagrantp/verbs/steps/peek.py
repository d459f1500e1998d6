"""Looks into a running guest, for seconds at most: it may be hung, or tell lies."""

from __future__ import annotations

from vagrantp.core.errors import ProviderError, StateError
from vagrantp.core.system import Host
from vagrantp.guest import facts, repositories, session
from vagrantp.instance.found import UP, Found
from vagrantp.instance.record import Instance
from vagrantp.net import ports
from vagrantp.providers import provider_for
from vagrantp.verbs.steps.find import refuse_others

TIMEOUT = 5  # seconds
LONG_TIMEOUT = 10  # of repositories.sh, which takes six at most
UNSEEN = "work in its git repositories that is not committed or not pushed cannot be listed"
NOT_ALL = "not all of its git repositories were looked at"


def sessions(host: Host, found: Found) -> tuple[str, ...] | None:
    """Return the names of an instance's sessions of agents; None where it does not say.

    Only a running one that has AGENT is asked.
    """
    settings = found.instance.settings
    if settings is None or not settings.agent or found.live not in UP:
        return ()
    if found.live == "paused":
        return None
    printed = _said(host, found, facts.SESSIONS_SCRIPT)
    return None if printed is None else facts.sessions(printed)


def lost_with(host: Host, found: Found) -> list[str]:
    """Return in words what would be lost with an instance that is up: sessions, and work in git."""
    if found.live != "running":
        return [UNSEEN]
    printed = _said(host, found, facts.SESSIONS_SCRIPT)
    if printed is None:
        return [UNSEEN]
    names = facts.sessions(printed)
    lines = [f"its sessions: {', '.join(names)}"] if names else []
    if names is None:
        lines = ["its sessions cannot be listed"]
    printed = _said(host, found, repositories.SCRIPT, LONG_TIMEOUT)
    if printed is None:
        return [*lines, UNSEEN]
    work, is_whole = repositories.work(printed)
    return [*lines, *work, *([] if is_whole else [NOT_ALL])]


def why_silent(host: Host, instance: Instance, pid: str) -> list[str]:
    """Return why nothing answers at each port of a running guest; see ports.why_silent."""
    if not _may_ask(instance):
        return [""] * len(ports.forwards(instance))
    return ports.why_silent(host, instance, pid)


def _may_ask(instance: Instance) -> bool:
    """Say whether a folder is ours alone: its settings of ssh could run anything here."""
    try:
        refuse_others(instance.id)
    except StateError:
        return False
    return True


def _said(host: Host, found: Found, script: str, timeout: float = TIMEOUT) -> str | None:
    """Return what a shell script prints in a running guest; None where it does not answer."""
    if not _may_ask(found.instance):
        return None
    try:
        pid = provider_for(found.instance.infra_type).pid(host, found.instance)
        answer = session.run(host, found.instance, pid, script, timeout) if pid else None
    except ProviderError:
        return None
    return answer.stdout if answer and answer.ok else None
