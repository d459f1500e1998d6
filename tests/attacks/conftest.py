"""Some attacks need the real thing."""

from tests.e2e.conftest import guests

__all__ = ["guests"]
