"""An OCI image whose annotations name a state folder: Podman copies them to its containers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vagrantp import commands

from tests import network
from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import guest, run, status
from tests.network.ways import SERVER

Image = Callable[[str], str]
NAME = "localhost/vagrantp-attack"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """Make images of a Debian that name a folder in their annotations."""
    made = []

    def make(folder: str) -> str:
        base = "vagrantp.image=debian-12"
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
    return Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / status(app)["instance"]


def admitted() -> set[str]:
    return set(json.loads(run(str(commands.GUARD), "check"))["guests"])


def test_an_image_that_names_a_running_instance(guests: MakeProject, image: Image) -> None:
    app = guests("container").write({**CONTAINER, "MOUNT": "rw"})
    (app.folder / "secret").write_text("of the person")
    assert app.fab("up").returncode == 0
    assert "secret" in guest(app, "ls /project")
    folder, before = folder_of(app), admitted()
    evil = image(str(folder))
    for options in ((), ("--network", "vagrantp")):
        done = foreign(evil, "ls -A /project; touch /project/made; true", *options)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert not (app.folder / "made").exists()
        assert not (folder / "hook.error").exists()
        assert admitted() == before  # its end takes nobody out of the rules
    assert app.fab("verify").returncode == 0

    # the record of its id is what the hook goes by, so a container without one does not start
    (folder / "container").unlink()
    assert app.fab("stop", "--force").returncode == 0
    refused = subprocess.run(
        ("podman", "start", folder.name), capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "fab up" in refused.stderr or "crun" in refused.stderr  # crun does not pass it on
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert (folder / "container").stat().st_mode & 0o777 == 0o600


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


def test_a_foreign_container_gets_no_packet_through_on_the_network(
    guests: MakeProject, image: Image, tmp_path: Path
) -> None:
    app = guests("container").write(CONTAINER)
    assert app.fab("up").returncode == 0
    gateway = status(app)["address"].rpartition(".")[0] + ".1"
    evil = image(str(folder_of(app)))
    with network.internet(tmp_path) as internet:
        ways = [("net", "tcp", SERVER, 80, None), ("dns", "dns", gateway, 53, None)]
        ways += [
            ("ping", "icmp", SERVER, 0, None),
            ("guest", "tcp", status(app)["address"], 22, None),
        ]
        probe = (network.HERE / "probe.py").read_text()
        argv = ("podman", "run", "--rm", "--interactive", "--network", "vagrantp", evil)
        done = subprocess.run(
            (*argv, "python3", "-c", probe),
            input=json.dumps(ways),
            capture_output=True,
            text=True,
            check=True,
        )
        ends = json.loads(done.stdout)
        assert {name for name, end in ends.items() if end == "open"} == set(), ends
        assert internet.packets() == 0
