"""What `.env` asks of this host: one screen, one question, and exit 8 without a yes."""

from __future__ import annotations

import os
import pty
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, VM, MakeProject, Project, env_text

HEAD = ".env asks this host for more than a plain guest has:\n"
HINT = "  hint: fab up --accept\n"
RO = "  MOUNT=ro  the guest reads this folder\n"
LATER = "fab up would ask for that; fab --dry up --accept shows what follows\n"
# A Podman that has nothing, and makes nothing: an `up` ends after its question.
NOTHING = "#!/bin/sh\ncase $1 in ps|images) echo '[]' ;; *) exit 1 ;; esac\n"


@pytest.fixture
def app(project: MakeProject, tmp_path: Path) -> Project:
    """Return a project that asks for MOUNT=ro, on a host whose Podman makes nothing."""
    found = project().write({**CONTAINER, "MOUNT": "ro"})
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("podman", "virsh", "vagrant"):
        (tools / tool).write_text(NOTHING)
        (tools / tool).chmod(0o755)
    return found.having(PATH=f"{tools}:{os.environ['PATH']}")


def state(app: Project) -> Path:
    """Return the folder of all state."""
    return Path(app.environment["XDG_STATE_HOME"]) / "vagrantp"


def is_asked(app: Project, lines: str) -> None:
    """See that `up` and `provision` ask for exactly these lines, and end."""
    for verb in ("up", "provision"):
        done = app.fab(verb, accept=False)
        assert (done.returncode, done.stdout) == (8, ""), done.stderr
        asked = done.stderr[done.stderr.index(HEAD) :]
        assert asked == f"{HEAD}{lines}{HINT}", verb


def goes_on(app: Project) -> None:
    """See that `up` asks for nothing."""
    done = app.fab("up", accept=False)
    assert HEAD not in done.stderr
    assert done.returncode in (4, 5), done.stderr


def accepts(app: Project) -> None:
    """Grant all that is asked for."""
    done = app.fab("up", "--accept", accept=False)
    assert HEAD not in done.stderr
    assert done.returncode in (4, 5), done.stderr


def test_a_plain_project_is_asked_for_nothing(app: Project) -> None:
    goes_on(app.write(CONTAINER))
    assert not (state(app) / "grants").exists()


@pytest.mark.slow
def test_it_is_asked_first_and_once(app: Project) -> None:
    app.write(
        {
            **CONTAINER,
            "LAN_ACCESS": "yes",
            "LAN_ALLOW": "host:11434,10.0.0.0/8",
            "PORTS": "8080:80,0.0.0.0:8081:80",
            "MOUNT": "rw",
            "AUTOSTART": "yes",
        }
    )
    is_asked(
        app,
        "  LAN_ACCESS=yes         the guest reaches your LAN\n"
        "  PORTS=0.0.0.0:8081:80  other machines reach the guest at this port of this host\n"
        "  LAN_ALLOW=host:11434   the guest reaches this\n"
        "  LAN_ALLOW=10.0.0.0/8   the guest reaches this\n"
        "  MOUNT=rw               the guest changes this folder\n"
        "  AUTOSTART=yes          the guest starts with this host\n",
    )
    assert not (state(app) / "grants").exists()
    accepts(app)
    [file] = (state(app) / "grants").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (f"{id_from(app.folder)}.json", 0o600)
    goes_on(app)
    app.write({**CONTAINER, "MOUNT": "ro", "LAN_ACCESS": "yes", "LAN_ALLOW": "host:11434"})
    goes_on(app)
    app.write({**CONTAINER, "MOUNT": "rw", "LAN_ACCESS": "yes", "LAN_ALLOW": "host:11434,host:1"})
    is_asked(
        app,
        "  LAN_ALLOW=host:1  the guest reaches this\n"
        "  MOUNT=rw          the guest changes this folder\n",
    )


def test_a_dry_run_lists_it_and_changes_nothing(app: Project, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = app.fab("--dry", "up", accept=False)
    assert (done.returncode, done.stdout) == (0, f"{HEAD}{RO}{LATER}"), done.stderr
    done = app.fab("--dry", "up")
    assert HEAD not in done.stdout
    assert "would write" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_dry_run_keeps_no_copies_and_needs_none(app: Project) -> None:
    app.write({**CONTAINER, "PROVISION_SCRIPT": "site.yml"})
    (app.folder / "site.yml").write_text("- hosts: all\n")
    (app.folder / "requirements.yml").write_text("roles: [{name: some.role}]\n")
    line = f"  {app.folder}/requirements.yml  what it names is fetched from the internet\n"
    assert app.fab("--dry", "up", accept=False).stdout == f"{HEAD}{line}{LATER}"
    done = app.fab("--dry", "up")
    assert done.returncode == 5, done.stderr  # of that Podman


@pytest.mark.slow
def test_a_yes_on_a_terminal(app: Project) -> None:
    for word, is_granted in (("", False), ("n", False), ("yes", True)):
        ours, its = pty.openpty()
        os.write(ours, f"{word}\n".encode())
        done = app.call(
            app.argv(["up"], accept=False), app.folder, app.environment, its, timeout=60
        )
        os.close(ours)
        os.close(its)
        assert f"{HEAD}{RO}Grant it? [y/N] ".encode() in done.stderr
        assert (done.returncode == 8) == (not is_granted)
    goes_on(app)


def test_defaults_env_is_the_persons_own(app: Project) -> None:
    config = Path(app.environment["XDG_CONFIG_HOME"]) / "vagrantp"
    config.mkdir(parents=True)
    (config / "defaults.env").write_text("LAN_ACCESS=yes\nMOUNT=rw\nAUTOSTART=yes\n")
    goes_on(app.write(CONTAINER))
    is_asked(app.write({**CONTAINER, "MOUNT": "ro"}), RO)


def in_folder(app: Project, folder: Path) -> Project:
    """Return the project that is in another folder."""
    return replace(app, folder=folder)


@pytest.mark.slow
def test_another_folder_is_asked_again(app: Project) -> None:
    accepts(app)
    goes_on(app)
    for name, how in (("copied", shutil.copytree), ("moved", shutil.move)):
        other = app.folder.with_name(name)
        how(app.folder, other)
        is_asked(in_folder(app, other), RO)
    # a clone at the path of one that was granted
    shutil.copytree(app.folder.with_name("moved"), app.folder)
    is_asked(app, RO)


@pytest.mark.slow
def test_a_link_is_what_it_leads_to(app: Project, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("no key\n")
    (app.folder / "key.pub").symlink_to(outside)
    app.write({**CONTAINER, "SSH_KEY": "key.pub"})
    line = (
        f"  SSH_KEY={outside}  who has the private key to it logs into the guest; "
        "outside of this folder, read on this host\n"
    )
    for verb in ("validate", "status"):
        assert app.fab(verb).returncode == 0
    is_asked(app, line)
    assert app.fab("--dry", "up", accept=False).stdout == f"{HEAD}{line}{LATER}"
    # once it is granted, it is looked into
    done = app.fab("up")
    assert done.returncode == 2
    assert "SSH_KEY must name a file of public keys" in done.stderr
    outside.write_text("ssh-ed25519 AAAAC3\n")
    accepts(app)
    goes_on(app)
    other = tmp_path / "another"
    other.write_text("ssh-ed25519 AAAAC3\n")
    (app.folder / "key.pub").unlink()
    (app.folder / "key.pub").symlink_to(other)
    is_asked(app, line.replace(str(outside), str(other)))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace shows what is opened")
def test_nothing_outside_is_opened_before_it_is_granted(app: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {
        "site.yml": "- hosts: all\n",
        "requirements.yml": "[]\n",
        "run": "#!/bin/sh\n",
        "vars.yml": "a: 1\n",
        "key.pub": "ssh-ed25519 AAAAC3\n",
        "user-data": "#cloud-config\n",
        "image.qcow2": "",
    }
    for name, text in files.items():
        (outside / name).write_text(text)
        (outside / name).chmod(0o755)
        (app.folder / name).symlink_to(outside / name)
    keys = {
        **VM,
        "PROVISION_SCRIPT": f"site.yml,{outside}/run",
        "PROVISION_VARS": "vars.yml",
        "SSH_KEY": "key.pub",
        "CLOUD_INIT": "user-data",
        "BOX": "./image.qcow2",
    }
    app.write(keys)
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", trace)

    def opened(call: str, expected: int) -> list[str]:
        what = ("-e", "trace=open,openat,openat2,execve")
        done = app.run(*strace, *what, *app.argv(call.split(), accept=False))
        assert (done.returncode, "Traceback" in done.stderr) == (expected, False), done.stderr
        return [line for line in trace.read_text().splitlines() if str(outside) in line]

    for call, expected in (("validate", 0), ("--dry up", 0), ("up", 8), ("provision", 8)):
        assert opened(call, expected) == []
    accepts(app)
    assert len(opened("validate", 0)) >= len(files) - 2  # not the image, nor the requirements


def test_a_folder_that_another_guest_writes(app: Project) -> None:
    other = app.folder.parent
    (other / ".env").write_text(env_text({**CONTAINER, "MOUNT": "rw"}))
    made = state(app) / f"projects-{id_from(other)}"
    made.mkdir(parents=True, mode=0o700)
    state(app).chmod(0o700)
    done = in_folder(app, other).fab("validate")
    assert done.returncode == 0
    record = Path(__file__).resolve().parents[1] / "unit/records/c0773ba-container.json"
    text = record.read_text().replace('"mount": "ro"', '"mount": "rw"')
    (made / "machine.json").write_text(text.replace("/home/av/web", str(other)))
    (app.folder / "run").write_text("#!/bin/sh\n")
    (app.folder / "run").chmod(0o755)
    app.write({**CONTAINER, "PROVISION_SCRIPT": "run"})
    is_asked(app, f"  PROVISION_SCRIPT={app.folder}/run  the guest of {other} can change it\n")


@pytest.mark.slow
def test_what_an_older_version_made_is_not_asked_again(app: Project) -> None:
    identity = id_from(app.folder)
    made = state(app) / f"web-{identity}"
    made.mkdir(parents=True, mode=0o700)
    state(app).chmod(0o700)
    record = Path(__file__).resolve().parents[1] / "unit/records/c0773ba-container.json"
    text = record.read_text().replace("/home/av/web", str(app.folder)).replace("89abcdef", identity)
    (made / "machine.json").write_text(text)
    (state(app) / f"trust/{identity}/files").mkdir(parents=True)
    app.write({**CONTAINER, "NAME": "web", "MOUNT": "rw", "LAN_ACCESS": "yes"})
    is_asked(app, "  MOUNT=rw  the guest changes this folder\n")
    app.write({**CONTAINER, "NAME": "web", "MOUNT": "ro", "LAN_ACCESS": "yes"})
    goes_on(app)
    assert not (state(app) / "trust").exists()
    assert (state(app) / f"grants/{identity}.json").exists()


@pytest.mark.slow
def test_rm_forgets_it_with_the_folder(app: Project) -> None:
    accepts(app)
    made = state(app) / f"app-{id_from(app.folder)}"

    def remove(*name: str) -> None:
        made.mkdir(mode=0o700)
        assert app.fab("rm", "--force", *name).returncode == 0

    remove()
    goes_on(app)
    elsewhere = app.folder.with_name("elsewhere")
    elsewhere.mkdir()
    record = Path(__file__).resolve().parents[1] / "unit/records/c0773ba-container.json"
    made.mkdir(mode=0o700)
    text = record.read_text().replace("/home/av/web", str(app.folder))
    (made / "machine.json").write_text(text.replace("89abcdef", made.name[-8:]))
    shutil.rmtree(app.folder)
    done = in_folder(app, elsewhere).fab("rm", "--force", "--name", made.name)
    assert done.returncode == 0, done.stderr
    assert [*(state(app) / "grants").iterdir()] == []
