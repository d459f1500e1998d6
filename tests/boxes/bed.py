"""A bed for tests of what needs systemd, cgroup v2 and ordinary users: a box with all packages of
the host set-up, this checkout in /srv/master and two users who stay logged in.

The checkout and the container image are put in at the end, so that the slow part is baked once for
a state of the package lists.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from shlex import quote

import yaml

from tests.boxes import HERE, build, run
from tests.conftest import MASTER

SUITES = {"bookworm": "3.11", "trixie": "3.13"}  # and their Python
USERS = ("one", "two")
SIZE = 4  # GB
BUILD = "3"  # raise it when the code below makes another box
EXTRA = ("make", "python3-venv", "xfsprogs")
FINISH = """
wheels={wheels}
for user in {users}; do
    chroot "$1" useradd --create-home --shell /bin/bash --password '*' --groups sudo "$user"
    cp -a "$1/home/vagrant/.ssh" "$1/home/$user"
    chroot "$1" chown -R "$user:" "/home/$user/.ssh"
    mkdir -p "$1/var/lib/systemd/linger" && touch "$1/var/lib/systemd/linger/$user"
    echo "$user ALL=(ALL) NOPASSWD:ALL" > "$1/etc/sudoers.d/$user"
done
mkdir -p "$1/srv/master" "$1/srv/wheels"
cp "$wheels"/* "$1/srv/wheels"
chroot "$1" python3 -m venv /srv/master/.venv
chroot "$1" /srv/master/.venv/bin/pip install --quiet --no-index --find-links /srv/wheels \\
    setuptools {requirements}
rm -r "$1/srv/wheels"
"""


def make(suite: str, boxes: Path, work: Path) -> Path:
    """Return the folder of the bed's box, built into the folder `boxes` where it is not there yet.

    It is named as Vagrant names it. `work` is a new folder. About three minutes.
    """
    source = work / "source"
    shutil.copytree(HERE / "plain", source)
    with (source / "packages").open("a") as file:
        file.writelines(f"{name}\n" for name in (*_host_packages(suite), *EXTRA))
    with (source / "finish").open("a") as file:
        file.write(
            FINISH.format(
                wheels=quote(str(work / "wheels")),
                users=" ".join(USERS),
                requirements=" ".join(map(quote, _requirements())),
            )
        )
    digest = hashlib.sha256(BUILD.encode())
    for name in ("packages", "finish"):
        digest.update((source / name).read_text().replace(str(work), "").encode())
    folder = boxes / f"test-VAGRANTSLASH-bed-{suite}-{digest.hexdigest()[:10]}"
    if not folder.exists():
        _wheels(SUITES[suite], work / "wheels")
        for old in boxes.glob(f"test-VAGRANTSLASH-bed-{suite}-*"):
            shutil.rmtree(old)
        made = build("mbr-lvm", work / "image", suite, source, SIZE)
        shutil.copytree(made, work / "box/0/libvirt")
        shutil.move(work / "box", folder)
    return folder


def _host_packages(suite: str) -> list[str]:
    """Return what playbooks/host.yml installs on a host with systemd and cgroup v2."""
    play = yaml.safe_load((MASTER / "playbooks/host/Debian.yml").read_text())[0]
    offered = {"bookworm": [], "trixie": ["passt", "virtiofsd"]}
    more = ["crun", "dbus-user-session", "debian-archive-keyring", "vagrant", "vagrant-libvirt"]
    more += offered[suite]
    return [*play["vars"]["wanted"], *more]


def _requirements() -> list[str]:
    project = tomllib.loads((MASTER / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def _wheels(python: str, folder: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder),
        *("--python-version", python, "--only-binary=:all:", "setuptools", *_requirements()),
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        make(sys.argv[1], Path(sys.argv[2]), Path(work))
