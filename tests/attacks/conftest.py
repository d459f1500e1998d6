"""Attacks need the real thing, too."""

from tests.e2e.conftest import guests

__all__ = ["guests"]
