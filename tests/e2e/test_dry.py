"""`--dry`: what would be done, on a host that can do it; nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CONTAINER, FAB, MASTER, VM, MakeProject, inventory
from tests.contract.test_cli import VAGRANTP, run


@pytest.mark.parametrize("values", [VM, CONTAINER], ids=["vm", "container"])
def test_dry_changes_nothing(
    project: MakeProject, tmp_path: Path, values: dict[str, object]
) -> None:
    app = project().write(values)
    before, listed = sorted(tmp_path.rglob("*")), inventory()
    for verb in (["up"], ["stop"], ["rm"], ["rm", "--force"], ["ssh"], ["status"], ["validate"]):
        done = app.fab("--dry", *verb)
        assert "Traceback" not in done.stderr
        if verb == ["up"]:
            assert done.returncode == 0, done.stderr
            assert "would run vagrant up --no-provision --no-destroy-on-error\n" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    assert inventory() == listed


def test_the_console_script(project: MakeProject, tmp_path: Path) -> None:
    app = project().write(CONTAINER)
    before = sorted(tmp_path.rglob("*"))
    by_fab = run(app, FAB, "-r", MASTER, "--dry", "up")
    assert run(app, VAGRANTP, "--dry", "up") == by_fab
    assert "would run vagrant up --no-provision --no-destroy-on-error\n" in by_fab[0]
    assert sorted(tmp_path.rglob("*")) == before
