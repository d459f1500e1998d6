"""A guest's words: what it prints is escaped and bounded, and an honest guest is well again.

This host stands for the guest, by an `ssh` that runs what it gets with the tools of a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from pathlib import Path
from time import monotonic

import pytest
from vagrantp.instance import record
from vagrantp.settings import env

from tests.conftest import CONTAINER, FAB, MASTER, MakeProject, Project

pytestmark = pytest.mark.slow

TOOLS = (
    *("awk", "base64", "basename", "cat", "df", "grep", "head", "id", "ip", "ls", "printf"),
    *("readlink", "sed", "sh", "stat"),
)
SSH = """#!/bin/sh
for command; do :; done
PATH={guest} exec sh -c "$command"
"""
PODMAN = """#!/bin/sh
case "$*" in
    ps*) cat {folder}/ps ;;
    inspect*"}}}} {{{{"*) echo running {pid} ;;
    inspect*) echo no ;;
esac
"""
CAT = """#!/bin/sh
export PATH=/usr/bin:/bin
case $1 in */hostname) {} ;; *) exec cat "$@" ;; esac
"""
HIDDEN = "/nowhere/\x1b]52;c;aGk=\x07\u202egpj.\x9b2J\nnext\udcff"
# A guest's lie as shell, and what `verify` shows as its host name then.
LIES = {
    "a command to the terminal": (r"printf 'app\033]52;c;aGk=\007\n'", "nothing"),
    "another name": (r"printf '\342\200\256ppa'", "nothing"),
    "no UTF-8": (r"printf '\377\376\n'", "\ufffd\ufffd"),
    "lines": ("seq 10000", "1"),
    "other facts": (r"printf 'web\nuser 1\ncpus 1\nproject x\naddresses 1\n'", "web"),
}


def is_plain(text: str) -> bool:
    """Say whether text has no character but printable ones and the ends of its lines."""
    return all(c == "\n" or unicodedata.category(c)[0] not in "CZ" or c == " " for c in text)


@pytest.fixture
def running(
    project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Project, Path]:
    """Return a project whose container runs, and the folder of its guest's tools."""
    app = project().write({**CONTAINER, "LAN_ACCESS": "yes"})
    monkeypatch.setenv("XDG_STATE_HOME", app.environment["XDG_STATE_HOME"])
    settings = env.load(app.folder)
    made = record.new(settings, app.folder)
    made.state_dir.mkdir(parents=True, mode=0o700)
    made.state_dir.parent.chmod(0o700)
    made.machine_json.write_text(record.document(made, settings, {"address": "127.0.0.1"}))
    made.ssh_config.write_text("")
    replay, guest = tmp_path / "replay", tmp_path / "guest"
    for folder in (replay, guest):
        folder.mkdir()
    for tool in TOOLS:
        (guest / tool).symlink_to(shutil.which(tool) or "")
    say(guest, "echo app")
    labels = {"id": made.id, "name": made.name, "folder": str(made.folder), "uid": os.getuid()}
    (replay / "ps").write_text(json.dumps([container(made.full_name, labels)]))
    tool_of(replay, "podman", PODMAN.format(folder=replay, pid=os.getpid()))
    tool_of(replay, "ssh", SSH.format(guest=guest))
    app.environment["PATH"] = f"{replay}:{app.environment['PATH']}"
    return app, guest


def container(name: str, labels: dict[str, object]) -> dict[str, object]:
    """Return what podman says of a running container."""
    named = {f"vagrantp.{key}": str(value) for key, value in labels.items()}
    return {"Names": [name], "State": "running", "Pid": os.getpid(), "Labels": named}


def tool_of(folder: Path, name: str, script: str) -> None:
    """Put a program into a folder, in place of another."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def say(guest: Path, hostname: str) -> None:
    """Let the guest read its host name by a line of shell, and all else as it is."""
    tool_of(guest, "cat", CAT.format(hostname))


def found(app: Project) -> dict[str, tuple[str, str]]:
    """Return what `verify` finds and how that is, by promise; see that it prints nothing else."""
    done = app.fab("verify", "--json")
    assert done.returncode == 9  # nothing gives this container rules and limits
    assert is_plain(done.stdout + done.stderr)
    checks = json.loads(done.stdout)["checks"]
    return {check["name"]: (check["found"], check["outcome"]) for check in checks}


@pytest.mark.parametrize(("lie", "shown"), LIES.values(), ids=LIES)
def test_a_lie_spoils_its_own_line(running: tuple[Project, Path], lie: str, shown: str) -> None:
    app, guest = running
    [known] = (guest.parent / "state/vagrantp").glob("*/machine.json")
    before = known.read_text()
    say(guest, lie)
    lied = found(app)
    say(guest, "echo app")
    honest = found(app)
    assert (honest["hostname"], honest["ssh"]) == (("app", "ok"), ("answers", "ok"))
    assert lied == honest | {"hostname": (shown, "FAILED")}
    assert known.read_text() == before


@pytest.mark.parametrize("flood", ["yes | head -c 2000000", "yes | head -c 2000000 >&2"])
def test_a_guest_that_floods(running: tuple[Project, Path], flood: str) -> None:
    app, guest = running
    say(guest, flood)
    shown = app.fab("verify")
    assert shown.returncode == 9 and is_plain(shown.stdout + shown.stderr)
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("ssh ")]
    why = "the guest printed more than 1 MB when it was asked"
    assert re.fullmatch(f"{why} {{2,}}FAILED", line.split(maxsplit=2)[2])  # as wide as its column
    say(guest, "echo app")
    assert found(app)["ssh"] == ("answers", "ok")


def test_what_ssh_says(running: tuple[Project, Path], tmp_path: Path) -> None:
    app, _ = running
    tool_of(
        tmp_path / "replay",
        "ssh",
        "#!/bin/sh\nprintf '\\033]0;x\\007\\342\\200\\256' >&2\nexit 255",
    )
    assert found(app)["ssh"] == ("\\x1b]0;x\\x07\\u202e", "FAILED")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Host key verification failed.", "shows another host key than that in "),
        ("vagrant@127.0.0.1: Permission denied (publickey).", "refuses the key "),
    ],
)
def test_who_is_refused_is_told_the_way_out(
    running: tuple[Project, Path], tmp_path: Path, said: str, found: str
) -> None:
    app, _ = running
    tool_of(tmp_path / "replay", "ssh", f"#!/bin/sh\necho '{said}' >&2\nexit 255")
    for verb in (["ssh"], ["ssh", "--command", "true"], ["verify"]):
        begun = monotonic()
        done = app.fab(*verb)
        assert monotonic() - begun < 30  # the guest had 60
        name = record.new(env.load(app.folder), app.folder).full_name
        way_in = f"podman exec --interactive --tty {name} sh leads into it"
        hint = f"put the key back ({way_in}); or fab rm, then fab up"
        if verb != ["verify"]:
            assert done.returncode == 5, done.stderr
            assert f"{name} {found}" in done.stderr
        assert done.stderr.count(hint) == 1, done.stderr


def test_names_that_others_chose(running: tuple[Project, Path], tmp_path: Path) -> None:
    app, _ = running
    labels = {"id": "89abcdef", "name": "other", "folder": HIDDEN, "uid": os.getuid()}
    odd = container("odd-89abcde0", {"id": "89abcde0", "name": "odd", "uid": "9" * 5000})
    (tmp_path / "replay/ps").write_text(json.dumps([container("other-89abcdef", labels), odd]))
    for verb in (["ls"], ["ls", "--json"], ["status"], ["rm", "--name", "other-89abcdef"]):
        done = app.fab(*verb)
        assert is_plain(done.stdout + done.stderr), verb
        assert "a bug" not in done.stderr
    assert r"\x1b]52;c;aGk=\x07\u202egpj.\x9b2J\nnext\udcff" in app.fab("ls").stdout


def test_a_name_on_a_line_of_its_own(running: tuple[Project, Path]) -> None:
    """What others wrote cannot add a line to a list."""
    app, _ = running
    known = record.by_id(env.id_from(app.folder))
    assert known
    document = json.loads(known.machine_json.read_text())
    document["provider"]["address"] = "10.0.0.2\nfolder /\x1b[8m"
    known.machine_json.write_text(json.dumps(document))
    lines = app.fab("status").stdout.splitlines()
    [shown] = [line for line in lines if "10.0.0.2" in line]
    assert shown.split(maxsplit=1) == ["address", r"10.0.0.2\nfolder /\x1b[8m"]


def test_hints_call_verbs_as_the_person_did(project: MakeProject) -> None:
    app = project()
    done = app.fab_bytes("ssh")
    assert done.stderr.endswith(f"\n  hint: {FAB} -r {MASTER} up makes it\n".encode())
    done = app.call([FAB.with_name("vagrantp"), "ssh"], app.folder, app.environment)
    assert done.stderr.endswith(f"\n  hint: {FAB.with_name('vagrantp')} up makes it\n".encode())
