"""What a host lacks when an instance is there already. The rest is in tests/contract."""

from __future__ import annotations

from tests.conftest import CONTAINER, MakeProject
from tests.e2e.conftest import status


def test_a_stopped_instance_is_not_started_with_more_memory_than_there_is(
    guests: MakeProject,
) -> None:
    app = guests("greedy").write(CONTAINER)
    assert app.fab("up").returncode == 0
    assert app.fab("stop").returncode == 0
    app.write({**CONTAINER, "MEMORY": 16 * 1024 * 1024})
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (4, "")
    assert "MEMORY=16777216 is more than this host's" in done.stderr
    assert (status(app)["state"], status(app)["memory_mib"]) == ("stopped", CONTAINER["MEMORY"])
    assert app.write(CONTAINER).fab("up").returncode == 0
