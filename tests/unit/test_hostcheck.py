"""How what a check finds is told."""

from __future__ import annotations

import pytest
from vagrantp.core.errors import ConflictError, ProviderError, UnansweredError
from vagrantp.host import finding


def refusing(error: Exception) -> finding.HostCheck:
    """Return a check that ends in an error."""

    def check() -> finding.Finding:
        raise error

    return check


def test_an_error_is_a_finding() -> None:
    found = finding.look(refusing(ConflictError("taken", "take another")))
    assert (found.outcome, found.found, found.fix) == ("failed", "taken", "take another")
    assert found.error is ConflictError
    assert finding.look(refusing(ProviderError("away"))).error is ProviderError


def test_what_does_not_answer_is_not_asked_again() -> None:
    with pytest.raises(UnansweredError):
        finding.look(refusing(UnansweredError("podman did not finish in 60 seconds")))
