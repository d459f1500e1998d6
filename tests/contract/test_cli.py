"""`vagrantp` is `fab -r MASTER`: same verbs, same output, same exit status, in any folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import FAB, MASTER, VERBS, VM, MakeProject, Project, env_text, in_short

VAGRANTP = FAB.with_name("vagrantp")


def run(project: Project, *argv: str | Path, **environment: str) -> tuple[str, str, int]:
    """Run a program in a project; return stdout, stderr (but for times) and exit status.

    The hints call what was called: here each time `fab`.
    """
    done = project.call(argv, project.folder, {**project.environment, **environment})
    return (
        done.stdout.decode(),
        re.sub(r"\d+\.\d s", "N s", in_short(done.stderr.decode()).replace(f"{VAGRANTP} ", "fab ")),
        done.returncode,
    )


CALLS = ["validate", "up", "up --nonsense", "nonsense"]
ASK = ["ssh --command true", "stop", "rm", "status --json"]  # the providers


@pytest.mark.parametrize("call", [*CALLS, *(pytest.param(c, marks=pytest.mark.slow) for c in ASK)])
def test_the_same_as_fab(project: MakeProject, tripwires: tuple[str, Path], call: str) -> None:
    text = "INFRA_TYPE=vm\nMEMORY=-5\n" if call == "up" else env_text(VM)
    app = project('it\'s "my" app').write(text)
    by_fab = run(app, FAB, "-r", MASTER, *call.split(), PATH=tripwires[0])
    assert run(app, VAGRANTP, *call.split(), PATH=tripwires[0]) == by_fab
    assert by_fab[0] or by_fab[1]
    assert "Traceback" not in by_fab[1]


def test_help(project: MakeProject) -> None:
    listing = run(project("a"), VAGRANTP)[0].split("Subcommands:")[1]
    assert [line.split()[0] for line in listing.splitlines() if line.startswith("  ")] == VERBS
    by_fab, *rest = run(project("b"), FAB, "-r", MASTER, "--help", "up")
    expected = (by_fab.replace("Usage: fab", "Usage: vagrantp"), *rest)
    assert run(project("c"), VAGRANTP, "--help", "up") == expected


def test_what_fab_takes_for_a_remote_command(project: MakeProject) -> None:
    why = "nothing may follow --; a command goes to ssh --command 'CMD'\n"
    assert run(project(), VAGRANTP, "ssh", "--", "ls") == ("", why, 1)


def test_completion(project: MakeProject) -> None:
    app = project()
    assert run(app, VAGRANTP, "--complete", "--", "vagrantp")[0].split() == VERBS
    options = run(app, VAGRANTP, "--complete", "--", "vagrantp", "ssh", "--")[0]
    assert "--command\n" in options
    for shell, command in (("bash", "complete"), ("zsh", "compctl"), ("fish", "complete")):
        script, errors, status = run(app, VAGRANTP, "--print-completion-script", shell)
        assert (errors, status) == ("", 0)
        assert re.search(rf"^{command} .*vagrantp", script, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("st", ["stats", "status", "stop"]),
        ("up --no", ["--no-provision", "--no-wait"]),
        ("rm --name", ["app-01234567", "web-89abcdef"]),
        ("rm --force --name we", ["web-89abcdef"]),
        ("rm --name = we", ["web-89abcdef"]),  # as bash takes --name=we apart
        ("rm --na", ["--name"]),
    ],
)
def test_completion_in_bash(project: MakeProject, line: str, candidates: list[str]) -> None:
    app = project()
    for name in ("app-01234567", "web-89abcdef"):
        machine = Path(app.environment["XDG_STATE_HOME"], "vagrantp", name, "machine.json")
        machine.parent.mkdir(parents=True)
        machine.write_text("{}")
    *_, last = line.split()
    word = "" if line.endswith("--name") else last
    script = (
        f"{run(app, VAGRANTP, '--print-completion-script', 'bash')[0]}\n"
        f"COMP_WORDS=(vagrantp {line}); _complete_vagrantp vagrantp '{word}'\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\" | sort"
    )
    path = f"{VAGRANTP.parent}:/usr/bin:/bin"
    done = app.run("bash", "-c", script, PATH=path)
    assert (done.stdout.split(), done.stderr, done.returncode) == (candidates, "", 0)
