"""The real `fab` binary in a folder of its own: exact stdout, stderr, exit status."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, FAB, MASTER, NOT_BUILT, VERBS, VM, MakeProject
from tests.contract.conftest import TYPES


def test_help_lists_the_verbs_and_nothing_else(project: MakeProject) -> None:
    listing = project().fab("--list").stdout
    verbs = [line.split()[0] for line in listing.splitlines() if line.startswith("  ")]
    assert verbs == (VERBS)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.slow
def test_every_verb_has_help(project: MakeProject, verb: str) -> None:
    done = project().fab("--help", verb)
    assert done.returncode == 0
    assert "Docstring:\n  none" not in done.stdout


def test_validate_prints_the_resolved_settings(
    project: MakeProject, tripwires: tuple[str, Path]
) -> None:
    path, called = tripwires
    app = project('it\'s my "app"').write(VM)
    done = app.fab("validate", PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        ".env is valid\n"
        "  INFRA_TYPE=vm\n"
        "  MEMORY=512\n"
        "  CPUS=2\n"
        "  DISK=3\n"
        "  NAME=it-s-my-app\n"
        "  BOX=debian-13\n"
        "  ACCEL=auto\n"
        "  LAN_ACCESS=no\n"
        "  NETWORK_TYPE=default\n"
        "  SSH_USER=vagrant\n"
        "  MOUNT=none\n"
        "  PROTECT=yes\n"
        "  AUTOSTART=no\n"
    )
    assert not called.exists()
    assert [entry.name for entry in app.folder.iterdir()] == [".env"]


@pytest.mark.parametrize("verb", ["up", "validate"])
def test_without_env(project: MakeProject, tripwires: tuple[str, Path], verb: str) -> None:
    path, called = tripwires
    app = project()
    done = app.fab(verb, PATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f".env: not found in {app.folder}\n  hint: fab init writes one\n")
    assert not called.exists()


@pytest.mark.parametrize("verb", ["up", "validate"])
def test_all_mistakes_at_once(project: MakeProject, tripwires: tuple[str, Path], verb: str) -> None:
    path, called = tripwires
    app = project().write("INFRA_TYPE=vm\nMEMORY=-5\nDISK=5\nSECRET=hunter2\nLAN_ACCESS=yes\n")
    done = app.fab(verb, PATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        '.env:2: MEMORY must be a whole number of MB above 0, got "-5"\n'
        "  hint: MEMORY=2048 gives the guest 2 GB\n"
        ".env: missing required key CPUS (whole number)\n"
    )
    assert not called.exists()


@pytest.mark.parametrize("values", TYPES)
def test_verbs_without_an_instance(project: MakeProject, values: dict[str, object]) -> None:
    app = project().write(values)
    for verb in (["ssh"], ["ssh", "--command", "true"], ["stop"]):
        done = app.fab(*verb)
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr == (f"there is no instance for {app.folder}\n  hint: fab up makes it\n")
    done = app.fab("rm")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"nothing to remove for {app.folder}\n"
    status = json.loads(app.fab("status", "--json").stdout)
    assert status == {"schema": 1, "state": "absent", "folder": str(app.folder)}


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        *[("snapshot", "--list"), ("snapshot", "--name a"), ("snapshot", "--delete a --no-wait")],
        *[("restore", "--name a --force"), ("egress", "--follow --json")],
        *[("up --from", "app-0a1b2c3d@clean"), ("ssh-config --install", "")],
    ],
)
def test_what_is_not_built_says_so(project: MakeProject, verb: str, arguments: str) -> None:
    done = project().fab(*verb.split(), *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{verb} is not supported yet\n  hint: fab --list shows the verbs\n"


def test_the_list_says_what_is_not_built(project: MakeProject) -> None:
    listing = project().fab("--list").stdout
    told = [line.split()[0] for line in listing.splitlines() if " Not supported yet: " in line]
    assert told == [*NOT_BUILT]


def test_what_fab_itself_refuses(project: MakeProject) -> None:
    assert project("a").fab("nonsense").returncode == 1
    assert project("b").fab("up", "--nonsense").returncode == 1


@pytest.mark.slow
def test_a_folder_that_was_deleted_under_us(project: MakeProject) -> None:
    app = project()
    script = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", app.folder, FAB, "-r", MASTER, "rm"],
        env=app.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"nothing to remove for {app.folder}\n"


def test_a_verb_is_not_asked_for_both(project: MakeProject) -> None:
    done = project().write(CONTAINER).fab("up", "--provision", "--no-provision")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "--provision and --no-provision exclude each other\n"
