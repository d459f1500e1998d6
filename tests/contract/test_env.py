"""`.env` through the real `fab`: init, what is refused, secrets, and text that wants to be run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.settings import env, keys

from tests.conftest import FAB, MASTER, VM, MakeProject, Project, env_text
from tests.contract.conftest import TYPES

# Every program that `up` could start: none of them gets to do anything.
TOOLS = ("vagrant", "podman", "virsh", "mmdebstrap", "qemu-img", "qemu-system-x86_64", "xorriso")


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return an environment whose tools only write down argv and environment; and that file.

    All of our folders are in the test's own, so whatever is written can be found.
    """
    log, folder = tmp_path / "recorded", tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).write_text(f'#!/bin/sh\n{{ echo "$0" "$@"; env; }} >> \'{log}\'\nexit 1\n')
        (folder / tool).chmod(0o755)
    places = {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CACHE", "DATA")}
    return {"PATH": f"{folder}:{os.environ['PATH']}", **places}, log


def run(app: Project, *calls: str, **environment: str) -> list[subprocess.CompletedProcess[str]]:
    """Run some calls at the same time."""
    app = app.having(**environment)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda call: app.fab(*call.split()), calls))


def test_init(project: MakeProject) -> None:
    vm, container, there = project("a"), project("b"), project("c").write("MINE=1\n")
    done = vm.fab("--dry", "init")
    assert (done.returncode, done.stdout) == (
        0,
        f"would write {vm.folder}/.env\n{vm.folder}/.env would be written\n",
    )
    assert not list(vm.folder.iterdir())
    done = vm.fab("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{vm.folder}/.env is written: fab up makes what it says\n"
    assert (vm.folder / ".env").read_text() == (MASTER / ".env.example").read_text()
    assert vm.fab("validate").returncode == 0
    assert container.fab("init", "--container").returncode == 0
    assert "INFRA_TYPE=container\n" in container.fab("validate").stdout
    for app in (vm, there):
        before = (app.folder / ".env").read_bytes()
        done = app.fab("init")
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr == (
            f"{app.folder}/.env is there already\n  hint: fab validate checks it\n"
        )
        assert (app.folder / ".env").read_bytes() == before
        assert [file.name for file in app.folder.iterdir()] == [".env"]


def test_init_does_not_write_through_a_link(project: MakeProject) -> None:
    app = project()
    (app.folder / ".env").symlink_to("elsewhere")
    assert app.fab("init").returncode == 8
    assert [file.name for file in app.folder.iterdir()] == [".env"]


@pytest.mark.slow
def test_a_fifo_keeps_nobody_waiting(project: MakeProject) -> None:
    app = project()
    os.mkfifo(app.folder / ".env")
    done = app.fab("validate", timeout=30)
    assert (done.returncode, done.stderr) == (2, ".env: is no regular file\n")


def test_warnings_are_no_errors(project: MakeProject) -> None:
    done = project().write(f"PORT=3000\n{env_text(VM)}").fab("validate")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, ".env is valid")
    assert done.stderr == ("  .env:1: warning: PORT is no key of vagrantp; did you mean PORTS?\n")


SOUND_SECRETS = """
DATABASE_URL=postgres://user:S3CRET-1@db/app
export API_KEY='S3CRET-2'
API_KEY=S3CRET-3
PORT=S3CRET-4
MEMROY=S3CRET-5
RAM="S3CRET-6
MEMORY=S3CRET-7
"
memory=S3CRET-8
CERTIFICATE='-----BEGIN
S3CRET-9
-----END'
S3CRET-10==
# NAME=S3CRET-11
"""
BAD_SECRETS = """
TOKEN S3CRET-12
S3CRET-13 = = S3CRET-14 '
TOKEN="S3CRET-15" S3CRET-16
NAME="a
TOKEN=S3CRET-17
b="
PORTS='8080:80
TOKEN=S3CRET-18
'
PASSWORD="S3CRET-19
OTHER=S3CRET-20
"""


@pytest.mark.parametrize("values", TYPES)
@pytest.mark.slow
def test_no_value_of_a_foreign_key_is_ever_shown(
    project: MakeProject,
    tmp_path: Path,
    recorded: tuple[dict[str, str], Path],
    values: dict[str, object],
) -> None:
    environment, log = recorded
    sound = project("sound").write(env_text(values) + SOUND_SECRETS)
    bad = project("bad").write(SOUND_SECRETS + env_text(values) + BAD_SECRETS)
    done = run(sound, "validate", "up --verbose", "--dry up", "status --json", **environment)
    assert done[0].returncode == 0
    assert "did you mean PORTS?" in done[0].stderr
    refused = run(bad, "validate", "up --verbose", **environment)
    assert {result.returncode for result in refused} == {2}
    assert len(refused[0].stderr.splitlines()) > 8
    stats = run(sound, "stats --json", **environment)
    assert log.exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".env"]
    assert any(path.name == "metrics.jsonl" for path in written)
    shown = "".join(result.stdout + result.stderr for result in done + refused + stats)
    shown += "".join(path.read_text(errors="replace") for path in written)
    assert not re.findall(r"S3CRET-\d+", shown.replace("S3CRET-10==", ""))


def payloads(marker: Path) -> list[str]:
    """Return texts that make `marker` where anything runs them."""
    touch = f"touch {marker}"
    return [
        *(f"x' ; {touch} ; '", f'x" ; {touch} ; "', f"`{touch}`", f"$({touch})", f"x; {touch}"),
        *(f'#{{system("{touch}")}}', f"x\n{touch}\n", f"x|{touch}&", f"-oProxyCommand={touch}"),
        *(f"../../{marker.name}", f"%x({touch})", f"{{{{ lookup('pipe', '{touch}') }}}}"),
        *(f"[ADDR]:1:{touch}", f"x,{touch}", f"\x1b]0;{touch}\x07", f"!!python/object:{touch}"),
    ]


@pytest.mark.slow
def test_no_text_of_a_value_is_run(
    project: MakeProject, tmp_path: Path, recorded: tuple[dict[str, str], Path]
) -> None:
    marker, app = tmp_path / "marker", project()
    before = written_outside(tmp_path)
    for number, text in enumerate(payloads(marker)):
        quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
        if number < 2:  # through the real thing, every key at once
            app.write("".join(f"{key}={quoted}\n" for key in keys.KEYS))
            started = execs(app, tmp_path, recorded[0], "validate", "--dry up")
            assert started <= {"fab"}
        for key in keys.KEYS:
            app.write("".join(f"{k}={v}\n" for k, v in VM.items() if k != key) + f"{key}={quoted}")
            with pytest.raises(ConfigError) as caught:
                env.load(app.folder)
            assert "\x1b" not in str(caught.value)
    assert not list(tmp_path.rglob("marker*"))
    assert written_outside(tmp_path) - before == {str(app.folder / ".env")}


@pytest.mark.slow
@pytest.mark.parametrize("values", TYPES)
def test_no_text_of_a_path_is_run(
    project: MakeProject,
    tmp_path: Path,
    recorded: tuple[dict[str, str], Path],
    values: dict[str, object],
) -> None:
    environment, _ = recorded
    name = (
        "a' \" `touch marker` $(touch marker) #{system('touch marker')} ; touch marker\n%s {{ 1 }}"
    )
    app = project(name).write(values)
    before = written_outside(tmp_path)
    traced = execs(app, tmp_path, environment, "validate", "--dry up")
    for done in run(app, "up", "rm --force", "status", **environment):
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("marker"))
    assert written_outside(tmp_path) == before
    assert traced <= {"fab", "sh", "setpriv", "sg", "env", "sudo", "guard", "ip", "nft", *TOOLS}


def written_outside(folder: Path) -> set[str]:
    """Return all paths of a test but those in our own folders."""
    ours = {"state", "cache", "data", "recorded", "trace"}
    return {str(p) for p in folder.rglob("*") if p.relative_to(folder).parts[0] not in ours}


def execs(app: Project, tmp_path: Path, environment: dict[str, str], *calls: str) -> set[str]:
    """Run some calls; return the programs that they started, as far as strace is there to tell."""
    trace = tmp_path / "trace"
    prefix: list[str | Path] = []
    if strace := shutil.which("strace"):
        prefix = [strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve", "-o", trace]
    found = set()
    for call in calls:
        done = app.run(*prefix, FAB, "-r", MASTER, *call.split(), **environment)
        assert "Traceback" not in done.stderr
        if strace:
            lines = trace.read_text(errors="replace")
            found |= {Path(p).name for p in re.findall(r'execve\("([^"]*)".* = 0$', lines, re.M)}
            assert "fab" in found
    return found


@pytest.mark.parametrize(
    ("url", "verbs"),
    [
        ("https://me:SECRET@mirror.invalid/x?key=SECRET", ("validate", "status", "up", "up --dry")),
        ("https://SECRET@mirror.invalid/x", ("validate",)),
        ("http://me:SECRET@mirror.invalid/x", ("validate", "up --verbose")),
        ("ftp://me:SECRET@mirror.invalid/x", ("validate",)),
        ("https://me:SEC/SECRET@mirror.invalid/x", ("validate",)),
    ],
)
@pytest.mark.slow
def test_a_password_in_a_url(
    project: MakeProject,
    tripwires: tuple[str, Path],
    tmp_path: Path,
    url: str,
    verbs: tuple[str, ...],
) -> None:
    app = project().write({**VM, "BOX": url}).having(PATH=tripwires[0])
    assert "://…@mirror.invalid/x" in "".join(said(app, "validate"))
    for verb in verbs:
        assert "SECRET" not in "".join(said(app, *verb.split()))
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != ".env"]
    assert not [file for file in written if b"SECRET" in file.read_bytes()]


def said(app: Project, *verb: str) -> tuple[str, str]:
    """Return what a verb prints."""
    done = app.fab(*verb)
    return done.stdout, done.stderr
