"""What a check of this host finds, and how that is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vagrantp.core.errors import (
    ProviderError,
    UnansweredError,
    VagrantpError,
)
from vagrantp.core.places import SET_UP
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host


@dataclass(frozen=True)
class Finding:
    """What a check found. `fix`: a command, or else advice. A failed one ends `up` in `error`."""

    outcome: Literal["ok", "warning", "failed"]
    found: str
    fix: str | None = None
    error: type[VagrantpError] = ProviderError


HostCheck = Callable[[], Finding]


def refuse(host: Host, findings: Iterable[Finding]) -> None:
    """Report warnings, and raise all failures as one error, of the first one's type."""
    failed = []
    for finding in findings:
        if finding.outcome == "warning":
            fix = f" ({finding.fix})" if finding.fix else ""
            host.progress.say(f"warning: {finding.found}{fix}")
        if finding.outcome == "failed":
            failed.append(finding)
    if failed:
        # when libvirt or podman is away, several checks say the same
        texts = dict.fromkeys(str(VagrantpError(each.found, each.fix)) for each in failed)
        raise failed[0].error("\n".join(texts))


def look(check: HostCheck) -> Finding:
    """Return what a check found; an error that it raises is a failure, too."""
    try:
        return check()
    except UnansweredError:  # once is enough
        raise
    except ProviderError as error:
        return Finding("failed", error.message, error.hint or SET_UP)
    except VagrantpError as error:
        return Finding("failed", error.message, error.hint, type(error))


def tools(names: Iterable[str]) -> Finding:
    """Look for programs."""
    missing = [name for name in names if not is_installed(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return Finding("failed", f"{', '.join(missing)} {verb} not installed", SET_UP)
    return Finding("ok", "all there")


def tried(host: Host, found: str) -> Finding:
    """Return the finding of a trial that succeeded, unless --dry held it back."""
    return Finding("warning", "not tried") if host.dry else Finding("ok", found)
