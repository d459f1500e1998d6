"""CA_CERTS: the certificate authorities that a guest trusts besides its own."""

from __future__ import annotations

import hashlib
import shlex

from voluptuous import Invalid

from vagrantp.core.errors import ConfigError
from vagrantp.core.places import SCRIPTS
from vagrantp.instance import grants
from vagrantp.instance.record import Instance
from vagrantp.settings import files
from vagrantp.settings.env import Settings

TRUST = SCRIPTS / "trust.sh"


def of(instance: Instance, settings: Settings) -> list[str]:
    """Return the certificates in CA_CERTS as PEM, each once; of files that may be read, only.

    Raises ConfigError.
    """
    found: dict[str, None] = {}
    granted = grants.paths(grants.remembered(instance.folder)) if settings.ca_certs else set()
    for path in settings.ca_certs:
        real = instance.source(path)
        is_own = real == path and "ca_certs" in grants.own_fields(settings)
        try:
            text = files.content(files.Base(instance.folder, granted if is_own else None), real)
            found |= dict.fromkeys(files.authorities(text) if text is not None else ())
        except Invalid as why:
            raise ConfigError(f"{path}: CA_CERTS {why}") from None
    return [*found]


def script(certificates: list[str]) -> str:
    """Return a script that has a guest trust exactly these, besides its own. It runs as root."""
    authorities = shlex.quote("\n".join(certificates))
    return f"authorities={authorities}\n" + TRUST.read_text(encoding="utf-8")


def digest(certificates: list[str]) -> str:
    """Return the SHA-256 of the file in which a guest has them."""
    return hashlib.sha256("".join(f"{one}\n" for one in certificates).encode()).hexdigest()
