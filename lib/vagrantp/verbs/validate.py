"""fab validate"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.instance import grants
from vagrantp.instance import record as instances
from vagrantp.settings import saved
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import KEYS
from vagrantp.verbs.tasks import here, verb


@verb
def validate(host: Host, verbose: bool = False) -> None:
    """Check .env and print the resolved settings; create nothing."""
    folder = here()
    settings = grants.load(folder, host.progress.say)
    wanted = instances.new(settings, folder)
    host.progress.about(wanted.full_name, wanted.infra_type)
    show(_text(settings))


def _text(settings: Settings) -> str:
    """Return the resolved settings, one `KEY=value` a line, as a `.env` would have them."""
    lines = [
        f"  {key.name}={saved.as_written(value)}"
        for key in KEYS.values()
        if (value := getattr(settings, key.field)) not in (None, ())
        and key.infra_type in (None, settings.infra_type)
    ]
    return "\n".join([".env is valid", *lines])
