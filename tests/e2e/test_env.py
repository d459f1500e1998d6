"""A `.env` that is refused leaves nothing on the host."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MakeProject, inventory
from tests.contract.test_env import recorded, run
from tests.unit import samples

__all__ = ["recorded"]


def test_what_is_refused(project: MakeProject, recorded: tuple[dict[str, str], Path]) -> None:
    environment, log = recorded
    listed = inventory()
    for above in ("DISK=1tb", "PORTS=8080:80,x,http:80", "FIXED_IP=10.0.0.0/24"):
        app = project(above[:4]).write(samples.env_of(above))
        text = samples.expected(above, dict(samples.ROWS)[above]) + "\n"
        for done in run(app, "up", "validate", **environment):
            assert (done.returncode, done.stdout, done.stderr) == (2, "", text)
    assert not log.exists()
    assert inventory() == listed
