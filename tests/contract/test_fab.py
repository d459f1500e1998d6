"""The `fab` that `make link` links: MASTER's verbs in a project, and no code of it; else fab."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import FAB, MASTER, VERBS, VM, MakeProject, Project

OURS = FAB.with_name("vagrantp-fab")
SETTINGS = [f"{name}.{kind}" for name in ("fabric", "invoke") for kind in ("yaml", "yml", "json")]
CODE = [
    *("fabfile.py", "fabfile/__init__.py", "tasks.py", "tasks/__init__.py", "deploy.py"),
    *("fabric.py", "invoke.py", ".fabric.py", ".invoke.py", "sitecustomize.py", "usercustomize.py"),
    *("vagrantp.py", "lib/vagrantp/__init__.py", "paramiko.py", "dotenv.py", "re.py", "ansible.py"),
]
TRAP = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from fabric import task

@task
def deploy(c):
    print("deployed")
"""
CALLS: dict[str, list[str | Path]] = {
    "fab": [OURS],
    "fab -r .": [OURS, "-r", "."],
    "vagrantp": [FAB.with_name("vagrantp")],
    "fab of others, -r MASTER": [FAB, "-r", MASTER],
    "fab of others, after link-global": [FAB],
}


def fill(folder: Path) -> None:
    """Put there all that fab, invoke or Python might load."""
    for name in (*SETTINGS, *CODE):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TRAP if name in CODE else '{"tasks": {"executor_class": "tasks.Any"}}')


@pytest.fixture
def app(project: MakeProject) -> Project:
    """Return a project that holds traps."""
    app = project().write(VM)
    fill(app.folder)
    return app


def has_run(folder: Path) -> bool:
    """Say whether a trap has run."""
    return any(folder.rglob("ran"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("call", CALLS)
def test_nothing_of_a_project_is_opened_but_its_settings(app: Project, call: str) -> None:
    home, trace = app.folder.parent, app.folder.with_name("trace")
    if call.endswith("link-global"):
        (home / ".fabric.yaml").write_text(f'tasks: {{search_root: "{MASTER}"}}')
    strace = ("strace", "-f", "--seccomp-bpf", "-e", "trace=execve,open,openat", "-o", trace)
    done = app.run(*strace, *CALLS[call], "validate", HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(".env is valid")
    named = re.findall(r'^[^"]*"([^"]*)"', trace.read_text(), re.MULTILINE)
    opened = {os.path.relpath(app.folder / name, app.folder) for name in named}
    assert {path for path in opened if not path.startswith("..")} == {".env"}


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--complete", "--", "fab"], "\n".join([*VERBS, ""])),
        (["deploy"], "No idea what 'deploy' is!\n"),
        (["-c", "tasks", "deploy"], "Can't find any collection named 'tasks'!\n"),
        (["-c", "fabfile", "-r", ".", "deploy"], "No idea what 'deploy' is!\n"),
    ],
)
def test_what_asks_for_code_of_a_project(app: Project, arguments: list[str], output: str) -> None:
    done = app.call([OURS, *arguments], app.folder, app.environment)
    assert (done.stdout + done.stderr).decode() == output
    assert not has_run(app.folder)


@pytest.mark.parametrize(
    ("cwd", "search"),
    [("app/sub", []), ("link", []), ("", ["-r", "app/sub/.."]), ("link/sub", ["-r", "../../link"])],
)
def test_other_ways_to_a_project(app: Project, cwd: str, search: list[str]) -> None:
    root = app.folder.parent
    fill(app.folder / "sub")
    (root / "link").symlink_to(app.folder)
    done = app.call([OURS, *search, "deploy"], root / cwd, app.environment)
    assert done.stderr == b"No idea what 'deploy' is!\n"
    assert not has_run(app.folder)


@pytest.mark.parametrize(
    "arguments",
    ["deploy", "--list", "--help", "--version", "--complete -- fab", "-c tasks deploy", "no"],
)
@pytest.mark.slow
def test_elsewhere_it_is_fab(project: MakeProject, tmp_path: Path, arguments: str) -> None:
    app = project().write("NAME=app\n# INFRA_TYPE=vm\n")
    fill(app.folder)
    (app.folder / "fabric.json").write_text('{"tasks": {"auto_dash_names": false}}')
    for suffix in ("yaml", "yml"):
        (app.folder / f"fabric.{suffix}").unlink()
    (tmp_path / "fab").symlink_to(OURS)
    theirs, ours = (
        app.call([fab, *arguments.split()], app.folder, app.environment)
        for fab in (FAB, tmp_path / "fab")
    )
    assert (ours.stdout, ours.stderr, ours.returncode) == (
        *(theirs.stdout, theirs.stderr, theirs.returncode),
    )
    assert ours.stdout or ours.stderr
    assert b"Traceback" not in ours.stderr
