"""Exit codes 3, 4 and 5 provoked for real, with what is said and a hint that can be typed.

1, 2 and 8 of an absent instance are in tests/contract; 8 of a stopped one, 9 and 130 in the other
files here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, MASTER, NO_LIBVIRT, NO_PODMAN, VM, MakeProject, Project

BOTH = pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])
SET_UP = f"make -C {shlex.quote(str(MASTER))} setup"
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
GEMS = Path("/usr/share/rubygems-integration/all/gems")
HUGE = 16 * 1024 * 1024  # MB; no host has that much


def run(*argv: str | Path, stdin: bytes = b"") -> str:
    """Return what a host command prints; fail when it does."""
    return subprocess.run(argv, check=True, capture_output=True, input=stdin).stdout.decode()


@pytest.fixture
def refused(project: MakeProject) -> Iterator[MakeProject]:
    """Make projects whose `up` must leave nothing; what one left all the same is removed."""
    made: list[Project] = []

    def make(*arguments: str) -> Project:
        made.append(project(*arguments))
        return made[-1]

    yield make
    for app in made:
        root = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp"
        left = {path.name for path in root.glob("*")} - {"lock", "grants", "metrics.jsonl"}
        app.fab("rm", "--force")  # takes the log as well
        assert not left


def mib_of_host() -> int:
    """Return the host's memory."""
    found = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) // 1024


@contextmanager
def foreign_container(name: str, *options: str) -> Iterator[None]:
    """Have a container of that name, of an image of its own, for as long as it takes."""
    image = f"localhost/test-{name}:latest"
    run("podman", "import", "--quiet", "-", image, stdin=b"\0" * 10240)  # an empty .tar
    try:
        run("podman", "create", "--name", name, *options, image, "true")
        yield
        assert run("podman", "inspect", "--format={{.State.Status}}", name) == "created\n"
    finally:
        run("podman", "rm", "--force", "--ignore", name)
        run("podman", "rmi", image)


@contextmanager
def foreign_domain(name: str, metadata: str = "") -> Iterator[None]:
    """Have a domain of that name defined, never started, for as long as it takes."""
    xml = f"<domain type='qemu'><name>{name}</name><memory>1024</memory>{metadata}"
    run(*VIRSH, "define", "/dev/stdin", stdin=f"{xml}<os><type>hvm</type></os></domain>".encode())
    try:
        yield
    finally:
        run(*VIRSH, "undefine", name)  # fails when it is not there any more


def refusal(stderr: str) -> str:
    """Return what is said but for the trial of Vagrant, which a host without images yet has."""
    return re.sub(r"^  try vagrant-libvirt: .*\n", "", stderr, flags=re.MULTILINE)


@BOTH
def test_3_a_foreign_holder_of_our_name(refused: MakeProject, values: dict[str, object]) -> None:
    kind = str(values["INFRA_TYPE"])
    app = refused("foreign").write(values)
    name = f"foreign-{id_from(app.folder)}"
    look = "podman inspect" if kind == "container" else "virsh -c qemu:///system dumpxml"
    labels = ["--label=uid=0", "--label=folder=/"]  # not ours
    with foreign_domain(name) if kind == "vm" else foreign_container(name, *labels):
        done = app.fab("up")
        assert (done.returncode, done.stdout) == (3, "")
        assert refusal(done.stderr) == (
            f"a {kind} called {name} exists and is not this project's: vagrantp did not make it\n"
            f"  hint: '{look} {name}' shows it; NAME in .env gives yours another name\n"
        )
        run(*look.split(), name)  # the hint works when typed
        assert app.fab("rm", "--force").stdout == f"nothing to remove for {app.folder}\n"


@BOTH
def test_3_another_users_instance(refused: MakeProject, values: dict[str, object]) -> None:
    kind = str(values["INFRA_TYPE"])
    app = refused("shared").write(values)
    identity = id_from(app.folder)
    name = f"shared-{identity}"
    facts = {"id": identity, "name": "shared", "folder": str(app.folder), "uid": "2", "version": 1}
    attributes = " ".join(f"{key}='{value}'" for key, value in facts.items())
    instance = f"<v:instance xmlns:v='urn:vagrantp:instance' {attributes}/>"
    labels = [f"--label=vagrantp.{key}={value}" for key, value in facts.items()]
    with (
        foreign_domain(name, f"<metadata>{instance}</metadata>")
        if kind == "vm"
        else foreign_container(name, *labels)
    ):
        for verb in ("up", "rm"):
            done = app.fab(verb)
            if verb == "up":
                assert (done.returncode, done.stdout) == (3, "")
                assert f": it belongs to user bin (uid 2), in {app.folder}\n" in done.stderr


@BOTH
def test_4_more_memory_than_the_host_has(refused: MakeProject, values: dict[str, object]) -> None:
    app = refused().write({**values, "MEMORY": HUGE, "CPUS": 1024})
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (4, "")
    told = re.sub(r"\d+ would fit", "N would fit", done.stderr)
    assert "warning: CPUS=1024 is more than this host's" in told
    assert told.endswith(
        f"MEMORY={HUGE} is more than this host's {mib_of_host()} MB\n"
        "  hint: MEMORY=N would fit now\n"
    )


def test_4_no_room_for_a_vm(refused: MakeProject) -> None:
    app = refused().write(VM)
    pool = re.search(r"<path>(.*)</path>", run(*VIRSH, "pool-dumpxml", "default"))
    assert pool
    done = app.fab_amid(f"mount -t tmpfs -o size=100m none {pool[1]}", "up")
    assert (done.returncode, done.stdout) == (4, "")
    assert re.search(
        rf"^{pool[1]} has 100 MB free, and (512|1536) MB are needed at once\n"
        rf"  hint: make room: df -h {pool[1]}\n\Z",
        done.stderr,
        re.MULTILINE,
    )


def test_what_is_tight_is_a_warning(refused: MakeProject, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  1024000 kB\nMemAvailable:  102400 kB\n")
    app = refused().write({**CONTAINER, "DISK": 64 * 1024})
    done = app.fab_amid(f"mount --bind {meminfo} /proc/meminfo", "--dry", "up")
    assert done.returncode == 0
    assert re.search(r"^  warning: DISK=65536 is more than the \d+ GB", done.stderr, re.MULTILINE)
    assert "  warning: MEMORY=256 is more than the 100 MB that this host has left" in done.stderr


@BOTH
def test_5_a_provider_that_is_away(refused: MakeProject, values: dict[str, object]) -> None:
    app = refused().write({**values, "MEMORY": HUGE})
    is_vm = values["INFRA_TYPE"] == "vm"
    done = app.fab_amid(NO_LIBVIRT if is_vm else NO_PODMAN, "up")
    assert (done.returncode, done.stdout) == (5, "")
    why = "libvirt does not answer: .*No such file.*" if is_vm else "podman is not installed"
    no_plugin = (
        r"(?:loading vagrant-libvirt failed: .*\n  hint: .*\n)?"  # where no image is there yet
    )
    assert re.fullmatch(
        rf"{why}\n  hint: (.*)\n{no_plugin}"
        rf"MEMORY={HUGE} is more than this host's \d+ MB\n  hint: .*\n",
        refusal(done.stderr),
    )
    hint = re.findall("hint: (.*)", done.stderr)[0]
    assert hint == SET_UP
    # that it can be typed, in any folder; what it does is long and for tests/e2e
    assert "ansible-playbook" in run("sh", "-c", hint.replace("make", "make --dry-run", 1))


def test_5_a_user_who_may_not(refused: MakeProject, tmp_path: Path) -> None:
    why = "authentication unavailable: no polkit agent available to authenticate action"
    virsh = tmp_path / "virsh"
    virsh.write_text(
        "#!/bin/sh\necho 'error: failed to connect to the hypervisor' >&2\n"
        f"echo \"error: {why} 'org.libvirt.unix.manage'\" >&2\nexit 1\n"
    )
    virsh.chmod(0o755)
    app = refused().write(VM)
    app = app.having(PATH=f"{tmp_path}:{app.environment['PATH']}")
    done = app.fab("up")
    assert (done.returncode, done.stdout) == (5, "")
    assert refusal(done.stderr).startswith(f"libvirt does not answer: {why}")
    assert done.stderr.endswith(f"\n  hint: {SET_UP}\n")


@pytest.mark.parametrize("verb", ["up", "--dry up"])
def test_5_no_sandbox(refused: MakeProject, verb: str) -> None:
    app = refused().write({**CONTAINER, "PROVISION_SCRIPT": "site.yml"})
    (app.folder / "site.yml").write_text("- hosts: \"{{ lookup('pipe', 'touch ran') }}\"\n")
    done = app.fab_amid("mount --bind /dev/null /usr/bin/bwrap", *verb.split())
    assert done.returncode == 5
    assert "nothing can be run in a sandbox: " in done.stderr
    assert done.stderr.endswith(f"\n  hint: {SET_UP}\n")
    assert not (app.folder / "ran").exists()


@pytest.mark.skipif(not GEMS.is_dir(), reason="this is where Debian has vagrant-libvirt")
def test_5_vagrant_without_its_plugin(refused: MakeProject, tmp_path: Path) -> None:
    app = refused().write(VM)
    # without a base image, so that it is told before one is built
    done = app.fab_amid(f"mount -t tmpfs none {GEMS}", "up", XDG_DATA_HOME=str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (5, "")
    assert "loading vagrant-libvirt failed: " in done.stderr
    assert "build base image" not in done.stderr
    assert done.stderr.endswith(f"\n  hint: {SET_UP}\n")
