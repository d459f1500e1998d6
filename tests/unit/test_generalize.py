"""What is taken out of a guest before it becomes an image: on folders mounted over ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from vagrantp.guest import generalize

KEY = "ssh-ed25519 AAAAours builder"
THEIRS = "ssh-ed25519 AAAAtheirs of the image"
OURS = ("etc", "var", "root", "home", "run", "tmp")
# Of the image, before the guest started; and of the guest.
OLD = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nav:x:0:0::/home/a v:/bin/sh\nbin:x:1:1::/bin:\n",
    "home/a v/.cache/models/of the image": "weights",
    "home/a v/.ssh/authorized_keys": f"{THEIRS}\n{KEY}\n",
    "home/a v/.local/bin/claude": "program",
    "home/a v/.npmrc": "prefix=~/.local\n",
    "tmp/of the image": "x",
    "etc/ssh/sshd_config": "Port 22\n",
    "var/lib/dpkg/status": "Package: x\n",
    "etc/ssl/vagrantp.pem": "certificate",
}
NEW = {
    "etc/ssh/ssh_host_ed25519_key": "secret",
    "etc/machine-id": "1234\n",
    "var/lib/dbus/machine-id": "1234\n",
    "var/lib/systemd/random-seed": "seed",
    "var/lib/vagrantp/provisioned": "digest",
    "var/lib/apt/lists/mirror": "packages",
    "var/lib/sudo/lectured/av": "",
    "var/log/apt/history.log": "Commandline: apt-get",
    "var/log/dpkg.log.1": "old",
    "root/.ssh/authorized_keys": f"{KEY}\n",
    "root/.bash_history": "export TOKEN=x",
    "root/.ansible/tmp/module": "x",
    "home/a v/.npm/_logs/log": "x",
    "home/a v/.cache/pip/http": "x",
    "home/a v/.claude.json": "{}",
    "home/a v/.config/gh/hosts.yml": "token",
    "home/a v/.ssh/known_hosts": "github.com",
    "run/sshd.pid": "7",
    "tmp/ansible/file": "x",
}


def generalized(root: Path, new: dict[str, str]) -> dict[str, str]:
    """Return the files of a guest with `new` files, once its own have been taken out."""
    for files, seconds in ((OLD, 1000.0), (new, None)):
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if seconds:
                os.utime(path, (seconds, seconds))
    os.utime(root / "etc/ssh/ssh_host_ed25519_key", (2000.0, 2000.0))
    binds = "".join(f"mount --bind '{root}/{name}' /{name}\n" for name in OURS)
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    argv = ["unshare", "--mount", *as_root, "sh", "-c"]
    if subprocess.run(
        [*argv, "mount --bind /tmp /tmp"], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounts cannot be made here")
    done = subprocess.run(
        [*argv, f"set -e\n{binds}{generalize.script(KEY)}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_text() for path in found}


def test_what_is_its_own_goes_and_the_rest_stays(tmp_path: Path) -> None:
    left = generalized(tmp_path, NEW)
    empty = {"etc/machine-id": "", "var/log/apt/history.log": ""}
    keys = {"home/a v/.ssh/authorized_keys": f"{THEIRS}\n"}
    assert left == {**OLD, **empty, **keys}


def test_two_guests_of_one_image_have_nothing_of_it_in_common(tmp_path: Path) -> None:
    other = {name: f"another {text}" for name, text in NEW.items() if "ssh_host" not in name}
    other["etc/ssh/ssh_host_ed25519_key"] = "another secret"
    other["root/.ssh/authorized_keys"] = f"{KEY}\n"
    one, two = tmp_path / "one", tmp_path / "two"
    assert generalized(one, NEW) == generalized(two, other)
