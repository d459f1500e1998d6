"""An OCI image whose annotations name a state folder: Podman copies them to its containers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vagrantp.images import built

from tests import network
from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import GUARD, guest, run, status
from tests.network import SERVER

Image = Callable[[str], str]
NAME = "localhost/vagrantp-attack"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """Make images of a Debian that name a folder in their annotations."""
    made: list[str] = []

    def make(folder: str) -> str:
        base = f"vagrantp.image={built.FIRST}"
        root = run("podman", "images", "--quiet", f"--filter=label={base}").split()[0]
        context = tmp_path / f"context{len(made)}"
        context.mkdir()
        (context / "Containerfile").write_text(f"FROM {root}\nENTRYPOINT []\n")
        made.append(f"{NAME}{len(made)}")
        annotation = f"--annotation=io.vagrantp.state={folder}"
        run("podman", "build", "--quiet", annotation, f"--tag={made[-1]}", str(context))
        return made[-1]

    yield make
    for name in made:
        run("podman", "rmi", "--force", name)


def foreign(image: str, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a container that a person starts by hand."""
    argv = ("podman", "run", "--rm", *options, image, "sh", "-c", script)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def folder_of(app: Project) -> Path:
    return Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / str(status(app)["instance"])


def admitted() -> set[str]:
    return set(json.loads(run(GUARD, "check"))["guests"])


def test_an_image_that_names_a_running_instance(
    guests: MakeProject, image: Image, tmp_path: Path
) -> None:
    app = guests("container").write({**CONTAINER, "MOUNT": "rw"})
    (app.folder / "secret").write_text("of the person")
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert "warning: MOUNT=rw" not in done.stderr
    assert "  mount      /project, rw, protected\n" in done.stdout
    assert "secret" in guest(app, "ls /project")
    folder, before = folder_of(app), admitted()
    assert (folder / "container").stat().st_mode & 0o777 == 0o600
    evil = image(str(folder))
    for options in ((), ("--network", "vagrantp")):
        done = foreign(evil, "ls -A /project; touch /project/made; true", *options)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert not (app.folder / "made").exists()
        assert not (folder / "hook.error").exists()
        assert admitted() == before  # its end takes nobody out of the rules
    with network.internet(tmp_path) as internet:
        assert reached(evil, status(app)["address"]) == set()
        assert internet.packets() == 0
    assert app.fab("verify").returncode == 0

    # one that an older version made is not on record, and does not start until it is
    (folder / "container").unlink()
    assert app.fab("stop", "--force").returncode == 0
    start = ("podman", "start", folder.name)
    refused = subprocess.run(start, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    # crun passes nothing on that a hook says
    assert "fab up" in refused.stderr or "runc" not in run("podman", "info")
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    (folder / "container").unlink()
    assert f"adopted {folder.name}" in run(GUARD, "adopt")  # as host set-up does
    assert run(GUARD, "adopt") == ""
    run("podman", "restart", "--time", "0", folder.name)


def reached(image: str, guest: str) -> set[str]:
    """Return what a container that a person starts on vagrantp's network reaches."""
    gateway = guest.rpartition(".")[0] + ".1"
    ways = [("net", "tcp", SERVER, 80, None), ("dns", "dns", gateway, 53, None)]
    ways += [("ping", "icmp", SERVER, 0, None), ("guest", "tcp", guest, 22, None)]
    probe = (network.HERE / "probe.py").read_text()
    argv = ("podman", "run", "--rm", "--interactive", "--network", "vagrantp", image)
    done = subprocess.run(
        (*argv, "python3", "-c", probe),
        input=json.dumps(ways),
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name, end in json.loads(done.stdout).items() if end == "open"}


@pytest.mark.parametrize("kind", ["plausible", "fifo", "link", "relative", "gone", "root", "long"])
def test_an_image_that_names_any_other_folder(image: Image, tmp_path: Path, kind: str) -> None:
    target, place = tmp_path / "target", tmp_path / "app-01234567"
    target.mkdir()
    place.mkdir(mode=0o700)
    wish = {"mode": "rw", "folder": str(target), "uid": 0, "gid": 0}
    wishes = {"lan_access": True, "lan_allow": [], "lan": None, "mount": wish}
    (place / "isolation.json").write_text(json.dumps(wishes))
    (place / "forwards.json").write_text(json.dumps({"forwards": []}))
    (place / "container").write_text("0" * 64)
    named = str(place)
    if kind == "fifo":
        (place / "container").unlink()
        os.mkfifo(place / "container")
    elif kind == "link":
        named = str(tmp_path / "link-01234567")
        Path(named).symlink_to(place)
    else:
        others = {"relative": "state/app-01234567", "gone": "/none/app-01234567", "root": "/"}
        named = {**others, "long": "/" + "x" * 5000}.get(kind, named)
    done = foreign(image(named), "touch /project/made; ls -d /project", "--network", "none")
    assert done.stdout == "", done.stderr
    assert not list(target.iterdir())
    assert not (place / "hook.error").exists()
    assert "guard" not in done.stderr
