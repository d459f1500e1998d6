"""What THREATS names, tried for real: by a guest, an image, the author of a folder."""

from tests.e2e.conftest import guests, nestable

__all__ = ["guests", "nestable"]
