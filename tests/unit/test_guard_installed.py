"""The keeper of the packet filter as host set-up installs it, and what both sides know of it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from vagrantp.core import jail, sandbox
from vagrantp.instance import vagrant
from vagrantp_guard import contract, install, resolver

from tests.conftest import MASTER

pytestmark = pytest.mark.slow

SYSTEM_PYTHON = "/usr/bin/python3"
PLAYBOOK = MASTER / "playbooks/host.yml"


def run_installer(package: Path, lib: Path) -> str:
    argv = (SYSTEM_PYTHON, "-IS", package / "install.py", lib)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def version_of(lib: Path) -> str:
    [folder] = [path.name for path in lib.iterdir() if path.is_dir()]
    return folder


def usage(guard: Path) -> str:
    done = subprocess.run([guard, "help"], check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_one_version_takes_the_place_of_another(tmp_path: Path) -> None:
    lib, checkout = tmp_path / "lib", tmp_path / "checkout/vagrantp_guard"
    shutil.copytree(install.PACKAGE, checkout, ignore=shutil.ignore_patterns("__pycache__"))
    lib.mkdir()
    for name in ("guard", "forward"):  # as before there was a package
        (lib / name).write_text("#!/bin/false\n")
    (lib / "others").touch()
    assert run_installer(checkout, lib) == "installed\n"
    assert not [*checkout.rglob("__pycache__")]
    first = version_of(lib)
    assert sorted(path.name for path in lib.iterdir()) == sorted([first, "guard", "others"])
    assert "guard check" in usage(lib / "guard")
    starter = (lib / "guard").read_text()
    assert starter == contract.starter(lib / contract.version()).replace(contract.version(), first)
    assert (lib / "guard").stat().st_mode & 0o777 == 0o755

    assert run_installer(checkout, lib) == ""
    with (checkout / "cli.py").open("a") as file:
        file.write("__doc__ += 'another version'\n")
    assert "another version" not in usage(lib / "guard")
    assert run_installer(checkout, lib) == "installed\n"
    assert "another version" in usage(lib / "guard")
    assert version_of(lib) != first

    # an older checkout's host set-up copies its single file over the starter
    (lib / "guard").write_text("#!/bin/false\n")
    assert run_installer(checkout, lib) == "installed\n"
    assert "another version" in usage(lib / "guard")


def test_data_is_a_part_of_a_version(tmp_path: Path) -> None:
    lib, checkout = tmp_path / "lib", tmp_path / "checkout/vagrantp_guard"
    shutil.copytree(install.PACKAGE, checkout, ignore=shutil.ignore_patterns("__pycache__"))
    lib.mkdir()
    run_installer(checkout, lib)
    for path in checkout.glob("*.toml"):
        installed = lib / version_of(lib) / "vagrantp_guard" / path.name
        assert installed.read_bytes() == path.read_bytes()
        with path.open("a") as file:
            file.write("# another version\n")
        assert run_installer(checkout, lib) == "installed\n"


def test_the_modules_are_compiled(tmp_path: Path) -> None:
    run_installer(install.PACKAGE, tmp_path)
    modules = tmp_path / version_of(tmp_path) / "vagrantp_guard"
    compiled = {path.name.partition(".")[0] for path in modules.glob("__pycache__/*.pyc")}
    assert compiled == {path.stem for path in modules.glob("*.py")}


def test_it_stands_in_for_fusermount3() -> None:
    ours, libfuse = socket.socketpair()
    with ours, libfuse, Path("/dev/null").open() as device:
        environment = {"_FUSE_COMMFD": str(libfuse.fileno()), "FUSE": str(device.fileno())}
        argv = (sys.executable, "-IS", install.PACKAGE / "fusermount3.py", "--", "/none")
        fds = (libfuse.fileno(), device.fileno())
        subprocess.run(argv, check=True, env=environment, pass_fds=fds)
        _, [received], _, _ = socket.recv_fds(ours, 1, 1)
        assert os.path.sameopenfile(received, device.fileno())
        os.close(received)


def tasks(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tasks, with those in blocks."""
    return [inner for task in listed for inner in [task, *tasks(task.get("block", []))]]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """What host set-up writes, by path."""
    [play] = yaml.safe_load(PLAYBOOK.read_text())
    files = [task["ansible.builtin.copy"] for task in tasks(play["tasks"]) if _writes(task)]
    return {file["dest"]: file["content"] for file in files}


def _writes(task: dict[str, Any]) -> bool:
    return "content" in task.get("ansible.builtin.copy", {})


def test_host_set_up_registers_the_hooks_that_are_looked_for(written: dict[str, str]) -> None:
    assert str(contract.GUARD) in written[str(contract.QEMU_HOOK)]
    assert str(contract.OCI_HOOK) in written
    [play] = yaml.safe_load(PLAYBOOK.read_text())
    [task] = [t for t in tasks(play["tasks"]) if "hook" in t.get("vars", {})]
    hook = task["vars"]["hook"]
    assert hook["hook"]["path"] == str(contract.GUARD)
    [pattern] = hook["when"]["annotations"]
    assert re.fullmatch(pattern, contract.ANNOTATION)
    assert not re.fullmatch(pattern, contract.ANNOTATION.replace(".", "-"))


def test_host_set_up_calls_what_is_installed(written: dict[str, str]) -> None:
    text = PLAYBOOK.read_text()
    assert set(re.findall(r"/usr/local/lib/vagrantp[/\w]*", text)) == {
        str(contract.LIB),
        str(contract.GUARD),
        jail.BWRAP[0],
    }
    assert f"name: {sandbox.USER}\n" in text
    assert set(re.findall(r"/run/vagrantp[/.\w]*", text)) == {str(contract.RUN / "watch.lock")}
    assert (
        f"NOPASSWD: {contract.GUARD} check, {contract.GUARD} sync, {contract.GUARD} try"
        in written["/etc/sudoers.d/vagrantp"]
    )
    unit = written["/etc/systemd/system/vagrantp-guard.service"]
    assert f"ExecStart={contract.GUARD} load\n" in unit


def test_networkd_leaves_the_links_of_guests_alone(written: dict[str, str]) -> None:
    [names] = re.findall("^Name=(.*)", written["/etc/systemd/network/05-vagrantp.network"], re.M)
    links = {*contract.BRIDGES.values(), f"{contract.TAPS}*", f"{contract.LAN_TAPS}*", "veth*"}
    assert set(names.split()) == links


def test_other_firewalls_pass_what_guests_need() -> None:
    text = (PLAYBOOK.parent / "host/firewalls.yml").read_text()
    assert f"to {contract.RESOLVERS} port {resolver.PORT} comment {contract.NETWORK} " in text
    assert f"for bridge in {' '.join(contract.BRIDGES.values())}; do" in text
    zone = re.findall('<interface name="(.*)"/>', text)
    assert zone == [*contract.BRIDGES.values()]


def test_what_is_no_python_has_copies_that_are_equal() -> None:
    package = MASTER / "lib/vagrantp"
    copies = {
        MASTER / "Vagrantfile": (
            f'"{contract.METADATA_URI}"',
            f'"{contract.MOUNTS}/#{{',
            f'ENV.delete("{vagrant.WAITS}")',
        ),
        package / "providers/shim/docker": (f"%/*}}/{contract.CONTAINER_ID}",),
        package / "guest/scripts/mount.sh": (f"project {contract.PROJECT} virtiofs ",),
        package / "guest/facts.py": (f'$2 == "{contract.PROJECT}"', f"%i {contract.PROJECT} "),
    }
    for path, texts in copies.items():
        for text in texts:
            assert text in path.read_text(), path
