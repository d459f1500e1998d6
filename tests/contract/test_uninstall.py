"""`make uninstall`, against a virsh and a podman that keep a folder of files in place of a host.

Where something is really removed, our function is called with another place for Podman's settings,
as the real one may stand in /etc.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProviderError, StateError
from vagrantp.core.process import environment
from vagrantp.core.system import Host
from vagrantp.host import uninstall

from tests.conftest import FAB, MASTER, Call, as_text
from tests.warm import Warm

pytestmark = pytest.mark.slow

UID = os.getuid()
BOX = f"vagrantp-debian-12-0123456789_vagrant_box_image_1.{UID}_box.img"
IMAGE = "localhost/vagrantp-debian-12-0123456789:latest"
NETWORK = (
    "<network><name>vagrantp</name><bridge name='{bridge}'/><ip address='{address}'/></network>"
)
VIRSH = r"""#!/bin/sh
# a file stands for each thing: volumes/NAME, domains/NAME, networks/NAME, active/NAME
cd "$(dirname "$0")" && shift 3 && echo "virsh $*" >> calls
documents() { echo "$1" | tr ';' '\n' | while read -r _ name _; do cat "$2/$name"; done; }
case "$*" in
    dumpxml\ *) documents "$1" domains ;;
    vol-dumpxml\ *) documents "$1" volumes ;;
    'list --all') for name in $(ls domains); do echo " -   $name   shut off"; done ;;
    'list --all --name') ls domains ;;
    'pool-list --name') echo default ;;
    'pool-refresh default') ;;
    'vol-list default') for name in $(ls volumes); do echo " $name   /pool/$name"; done ;;
    'vol-delete '*) rm "volumes/$2" ;;
    'net-list --all --name') ls networks ;;
    'net-list --name') ls active ;;
    'net-dumpxml '*) cat "networks/$2" ;;
    'net-destroy '*) rm "active/$2" ;;
    'net-undefine '*) rm "networks/$2" ;;
    *) echo "error: what is $*?" >&2; exit 1 ;;
esac
"""
PODMAN = r"""#!/bin/sh
cd "$(dirname "$0")/store" && echo "podman $*" >> ../calls
all() { printf '['; for file in "$1"/*; do test -e "$file" && cat "$file" && printf ,; done; }
list() { all "$1" | sed 's/,$//'; echo ']'; }
case "$*" in
    'ps --all --filter label=vagrantp.id --format json') list instances ;;
    'ps --all --format json') list containers ;;
    'images --format json') list images ;;
    'image rm '*) rm "images/$(basename "$3")" ;;
    'network ls --format json') list networks ;;
    'network rm '*) rm "networks/$3" ;;
    *) echo "what is $*?" >&2; exit 1 ;;
esac
"""


def volume(name: str, backing: str | None = None) -> str:
    below = f"<backingStore><path>/pool/{backing}</path></backingStore>" if backing else ""
    return f"<volume><name>{name}</name><target><path>/pool/{name}</path></target>{below}</volume>"


def domain(name: str, uid: int = UID, devices: str = "") -> str:
    instance, identity = name.rsplit("-", 1)
    return (
        f"<domain><name>{name}</name><metadata><v:instance xmlns:v='urn:vagrantp:instance' "
        f"name='{instance}' id='{identity}' folder='/projects/{instance}' uid='{uid}'/></metadata>"
        f"<devices>{devices}</devices></domain>"
    )


@dataclass(frozen=True)
class Stage:
    """A host to uninstall from: what virsh and podman know, and a home."""

    folder: Path
    home: Path
    call: Call

    def put(self, path: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / path).write_text(text)

    def there(self) -> set[str]:
        """Return what virsh and podman know of."""
        files = (path for path in self.folder.rglob("*/*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in files}

    def calls(self) -> list[str]:
        """Return the calls of virsh and podman that change something."""
        verbs = ("vol-delete", "net-destroy", "net-undefine", "image rm", "network rm")
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split(maxsplit=1)[1].startswith(verbs)]

    def settings(self) -> Path:
        return self.home / "root/etc/containers/containers.conf.d/50-vagrantp.conf"

    def guard(self) -> Path:
        return self.home / "root/usr/local/lib/vagrantp/guard"

    def make(self, *arguments: str, stdin: int | bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run tasks of the Makefile; they must be such that remove nothing."""
        argv = [sys.executable, "-m", "vagrantp.make", *arguments]
        return as_text(self.call(argv, MASTER, os.environ, stdin))

    def uninstall(self, dry: bool = False) -> None:
        uninstall.uninstall(Host(Context(), dry=dry), lambda: True, self.home / "root")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: Warm) -> Stage:
    stage = Stage(tmp_path / "stubs", tmp_path / "it's home", warm.run)
    for name in ("volumes", "domains", "networks", "active"):
        (stage.folder / name).mkdir(parents=True)
    for name in ("instances", "containers", "images", "networks"):
        (stage.folder / "store" / name).mkdir(parents=True)
    for name, text in (("virsh", VIRSH), ("podman", PODMAN)):
        stage.put(name, text)
        (stage.folder / name).chmod(0o755)
    stage.home.mkdir()
    monkeypatch.setenv("HOME", str(stage.home))
    monkeypatch.setenv("PATH", f"{stage.folder}:{os.environ['PATH']}")
    for kind in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
    for tool in ("virsh", "podman"):  # before any test removes anything
        assert shutil.which(tool, path=environment()["PATH"]) == str(stage.folder / tool)
    return stage


def fill(stage: Stage) -> None:
    """Put everything there that vagrantp leaves behind."""
    stage.put(f"volumes/{BOX}", volume(BOX))
    stage.put(f"volumes/{BOX}.part", volume(f"{BOX}.part"))
    stage.put("networks/vagrantp", NETWORK.format(bridge="vagrantp0", address="10.201.3.1"))
    stage.put("active/vagrantp", "")
    name = IMAGE.removeprefix("localhost/")
    stage.put(f"store/images/{name}", {"Id": "1", "Names": [IMAGE]})
    network = {
        "name": "vagrantp",
        "driver": "bridge",
        "network_interface": "vagrantp1",
        "subnets": [{"subnet": "10.201.0.0/24"}],
    }
    stage.put("store/networks/vagrantp", network)
    for folder in (".cache", ".local/share", ".local/state"):
        (stage.home / folder / "vagrantp/sub").mkdir(parents=True)
    (stage.home / "repos").mkdir()
    stage.make("link", "--root=~/repos", "link-global").check_returncode()
    for path in (stage.settings(), stage.guard()):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\necho guard $* >> '{stage.folder}/calls'\n")
        path.chmod(0o755)


def put_foreign(stage: Stage) -> None:
    """Put things there that only look like ours."""
    other = BOX.replace(f"1.{UID}_", f"1.{UID + 1}_")
    for name in (other, "vagrantp-mine.img", "debian-12_vagrant_box_image_1.0_box.img"):
        stage.put(f"volumes/{name}", volume(name))
    stage.put("networks/default", NETWORK.format(bridge="virbr0", address="192.168.122.1"))
    for name in ("localhost/vagrantp-mine:latest", "quay.io/vagrantp-a-0123456789:latest"):
        image = {"Id": "2", "Names": [name]}
        stage.put(f"store/images/{name.split('/')[1]}", image)
    stage.put("store/images/none", {"Id": "3", "Names": None})
    stage.put(
        "store/networks/podman",
        {"name": "podman", "driver": "bridge", "subnets": []},
    )
    (stage.home / ".config/vagrantp").mkdir(parents=True)
    (stage.home / ".local/bin").mkdir(parents=True)
    (stage.home / ".local/bin/mine").symlink_to("/usr/bin/env")


def test_everything_goes_and_nothing_else(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    put_foreign(stage)
    foreign = stage.there(), sorted(stage.home.rglob("*"))
    fill(stage)
    stage.uninstall()
    assert stage.there() == foreign[0]
    root = stage.home / "root"
    assert not stage.guard().parent.exists() and not stage.settings().exists()
    assert "guard unload" in (stage.folder / "calls").read_text()
    left = [path for path in stage.home.rglob("*") if path.name not in ("repos", "share", "state")]
    left = [path for path in left if not path.is_relative_to(root)]
    assert sorted(left) == sorted({*foreign[1], stage.home / ".cache"})
    assert stage.calls() == [
        f"virsh vol-delete {BOX} --pool default",
        f"virsh vol-delete {BOX}.part --pool default",
        "virsh net-destroy vagrantp",
        "virsh net-undefine vagrantp",
        f"podman image rm {IMAGE}",
        "podman network rm vagrantp",
    ]
    told = capsys.readouterr().out
    assert told.endswith(
        f"removed; what stays: packages, services, groups, pool default, {MASTER}/.venv\n"
    )
    assert f"  remove  link {stage.home}/repos/fabfile.py\n" in told
    stage.uninstall()  # twice is as good as once
    assert capsys.readouterr().out == "nothing to remove\n"


def test_dry(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    fill(stage)
    (stage.home / ".local/bin/fab").unlink()
    (stage.home / ".local/bin/fab").symlink_to(FAB)  # as an older version did
    before = stage.there(), sorted(stage.home.rglob("*"))
    stage.uninstall(dry=True)
    assert (stage.there(), sorted(stage.home.rglob("*"))) == before
    assert not stage.calls()
    told = capsys.readouterr().out
    assert f"would run virsh --quiet --connect qemu:///system vol-delete {BOX}" in told
    assert f"would remove {stage.home}/.local/bin/fab\n" in told
    assert "would run sh -c " in told


def test_what_somebody_uses_stays(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    fill(stage)
    stage.put("volumes/overlay.img", volume("overlay.img", BOX))
    disk = f"<disk><source file='/pool/{BOX}.part'/></disk>"
    nic = "<interface><source network='vagrantp'/></interface>"
    stage.put("domains/app-12345678", domain("app-12345678", UID + 1, disk + nic))
    container = {"Id": "c", "Names": ["mine"], "ImageID": "1", "Networks": ["vagrantp"]}
    stage.put("store/containers/c", container)
    before = stage.there()
    stage.uninstall()
    assert stage.there() == before
    assert not stage.calls()
    assert stage.settings().exists()
    kept = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  keep")]
    assert kept == [
        f"  keep    volume {BOX} in pool default: volume overlay.img is based on it",
        f"  keep    volume {BOX}.part in pool default: VM app-12345678 is based on it",
        "  keep    libvirt network vagrantp: app-12345678 is on it",
        f"  keep    podman image {IMAGE}: container mine is made of it",
        "  keep    podman network vagrantp: container mine is on it",
        "  keep    the rules that keep guests from the LAN, and "
        f"{stage.guard().parent}, {stage.settings()}: other users have instances",
    ]


def test_what_only_bears_our_name_stays(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.put("networks/vagrantp", NETWORK.format(bridge="virbr7", address="10.201.3.1"))
    network = {
        "name": "vagrantp",
        "driver": "bridge",
        "network_interface": "vagrantp1",
        "subnets": [{"subnet": "10.0.0.0/8"}],
    }
    stage.put("store/networks/vagrantp", network)
    stage.uninstall()
    assert not stage.calls()
    assert capsys.readouterr().out == (
        "  keep    libvirt network vagrantp: vagrantp did not make it\n"
        "  keep    podman network vagrantp: vagrantp did not make it\n"
        "nothing to remove\n"
    )


def test_instances_are_in_the_way(stage: Stage) -> None:
    fill(stage)
    stage.put("domains/app-12345678", domain("app-12345678"))
    stage.put("domains/other-12345678", domain("other-12345678", UID + 1))
    labels = {"id": "abcdef01", "name": "box", "folder": "/projects/it's", "uid": str(UID)}
    container = {
        "Labels": {f"vagrantp.{key}": value for key, value in labels.items()},
        "Names": ["box-abcdef01"],
        "State": "running",
        "Pid": 4242,
    }
    stage.put("store/instances/1", container)
    half = stage.home / ".local/state/vagrantp/half-00000000"
    half.mkdir()
    before = stage.there()
    done = stage.make("uninstall")
    assert (done.returncode, done.stdout, stage.there()) == (8, "", before)
    assert done.stderr == (
        "you still have instances:\n"
        "  app-12345678: vm, stopped, in /projects/app\n"
        "  box-abcdef01: container, running, in /projects/it's\n"
        f"  half-00000000: its state folder only: {half}\n"
        "  hint: fab rm in its folder removes each\n"
    )


def test_without_a_terminal_it_needs_a_yes(stage: Stage) -> None:
    fill(stage)
    before = stage.there()
    done = stage.make("uninstall")
    assert (done.returncode, stage.there()) == (8, before)
    assert f"  remove  volume {BOX} in pool default\n" in done.stdout
    assert done.stderr == "nothing was removed\n  hint: make uninstall YES=1 does not ask\n"


def test_no_on_a_terminal(stage: Stage) -> None:
    fill(stage)
    before = stage.there()
    ours, its = pty.openpty()
    os.write(ours, b"n\n")
    done = stage.make("uninstall", stdin=its)
    assert (done.returncode, stage.there()) == (8, before)
    assert done.stderr.startswith("Remove all this? [y/N] nothing was removed\n")


def test_a_provider_that_does_not_answer(stage: Stage) -> None:
    fill(stage)
    stage.put("podman", "#!/bin/sh\necho 'Error: no space' >&2; exit 125\n")
    with pytest.raises(ProviderError, match="no space"):
        stage.uninstall()
    assert not stage.calls()


def test_what_is_still_there_is_told(stage: Stage) -> None:
    fill(stage)
    stage.put("podman", PODMAN.replace('rm "images/', 'true "images/'))
    with pytest.raises(ProviderError, match=f"still there:\n  podman image {IMAGE}"):
        stage.uninstall()


def test_not_sure(stage: Stage) -> None:
    fill(stage)
    with pytest.raises(StateError):
        uninstall.uninstall(Host(Context()), lambda: False, stage.settings())
    assert not stage.calls()
