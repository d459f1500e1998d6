"""What all levels share: the real `fab`, run in a folder of its own."""

from __future__ import annotations

import gc
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st

MASTER = Path(__file__).resolve().parents[1]
FAB = MASTER / ".venv/bin/fab"
INVENTORY = MASTER / "tests/inventory"

# A shell without job control starts what it puts into the background with SIGINT ignored, and that
# is inherited; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for each example would depend on what else this machine does.
EXAMPLES = int(os.environ.get("VAGRANTP_EXAMPLES", "50"))
settings.register_profile("vagrantp", deadline=None, max_examples=EXAMPLES)
settings.load_profile("vagrantp")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end: it takes a tenth of the time."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Make Hypothesis's tables of Unicode, three seconds of work, once for all workers."""
    st.text().validate()


NOT_BUILT = ("egress", "restore", "snapshot")
_PAGE = (MASTER / "docs/verbs.md").read_text()
VERBS = sorted([*re.findall(r"^\| `fab ([a-z-]+)` \|", _PAGE, re.MULTILINE), *NOT_BUILT])
VM = {"INFRA_TYPE": "vm", "MEMORY": 512, "CPUS": 2, "DISK": 3}
# What a verb sees in place of the host, for Project.fab_amid.
NO_PODMAN = "mount --bind /dev/null $(command -v podman);"
NO_LIBVIRT = "mount -t tmpfs none /run/libvirt;"
PROXY = "http://u:SECRET@127.0.0.1:9"
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), PROXY)
PROXIES |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,SECRET")
CONTAINER = {**VM, "INFRA_TYPE": "container", "MEMORY": 256, "CPUS": 1}


def env_text(values: dict[str, object]) -> str:
    """Return a `.env` of these values."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


class Call(Protocol):
    """Run a program to its end, as `in_a_new_process` or tests/warm.py."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        cwd: Path,
        env: Mapping[str, str],
        input: bytes | int = b"",
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[bytes]: ...


def in_a_new_process(
    argv: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    input: bytes | int = b"",
    timeout: float = 900,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end. `input`: what is on its stdin, or a file descriptor."""
    content, stdin = (input, None) if isinstance(input, bytes) else (None, input)
    return subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        input=content,
        stdin=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def as_text(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    """Return what a program printed as text. Hints call fab as tests do: here it is `fab`."""
    return subprocess.CompletedProcess(
        done.args, done.returncode, *map(in_short, (done.stdout.decode(), done.stderr.decode()))
    )


def in_short(text: str) -> str:
    """Return what a verb printed, with `fab` for what the hints in it call."""
    return text.replace(shlex.join([str(FAB), "-r", str(MASTER)]), "fab")


@dataclass(frozen=True)
class Project:
    """A project folder, the environment that `fab` runs in there, and how it is called."""

    folder: Path
    environment: dict[str, str]
    call: Call = in_a_new_process

    def write(self, text: str | dict[str, object]) -> Project:
        """Write its `.env`."""
        content = text if isinstance(text, str) else env_text(text)
        (self.folder / ".env").write_text(content, encoding="utf-8")
        return self

    def having(self, **environment: str) -> Project:
        """Return the same folder with these variables in its environment."""
        return replace(self, environment={**self.environment, **environment})

    def fab(
        self,
        *arguments: str,
        stdin: bytes = b"",
        timeout: float = 900,
        accept: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end; stdout and stderr as text. `accept`: grant what `.env` asks."""
        done = self.fab_bytes(
            *arguments, stdin=stdin, timeout=timeout, accept=accept, **environment
        )
        return as_text(done)

    def fab_bytes(
        self,
        *arguments: str,
        stdin: bytes = b"",
        timeout: float = 900,
        accept: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end; stdout and stderr as they are. The rest as of `fab`."""
        argv = self.argv(arguments, accept)
        return self.call(argv, self.folder, {**self.environment, **environment}, stdin, timeout)

    def argv(self, arguments: Sequence[str], accept: bool = True) -> list[str | Path]:
        """Return how a verb is called. `accept`: where it can, it grants what `.env` asks for."""
        takes = accept and {*arguments} & {"up", "provision"} and "--help" not in arguments
        return [FAB, "-r", MASTER, *arguments, *(["--accept"] if takes else [])]

    def fab_amid(
        self, mounts: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb on a host that is changed by `mounts`, shell commands, for its eyes only."""
        if os.getuid() != 0:
            pytest.skip("only root can mount over what a verb sees")
        script = f'set -e; {mounts}\nexec "$@"'
        amid = ("unshare", "--mount", "sh", "-c", script, "sh")
        return self.run(*amid, *self.argv(arguments), **environment)

    def run(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run any program in the project to its end, with nothing on its stdin."""
        return as_text(
            subprocess.run(
                argv,
                cwd=self.folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a verb and return at once."""
        return subprocess.Popen(
            self.argv(arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


MakeProject = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path) -> MakeProject:
    """Return a maker of project folders whose state, and nothing else, is in a folder of the test.

    Base images are looked for where they always are: they are built once for all tests.
    """
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_STATE")} | state

    def make(name: str = "app", parent: str = "projects") -> Project:
        folder = tmp_path / parent / name
        folder.mkdir(parents=True)
        return Project(folder, environment)

    return make


@pytest.fixture
def tripwires(tmp_path: Path) -> tuple[str, Path]:
    """Return a PATH whose providers only leave their names in a file; and that file."""
    called, folder = tmp_path / "called", tmp_path / "tripwires"
    folder.mkdir()
    for tool in ("vagrant", "podman", "virsh"):
        script = folder / tool
        script.write_text(f"#!/bin/sh\necho {tool} >> '{called}'\nexit 1\n")
        script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}", called


@contextmanager
def nobody() -> Iterator[None]:
    """Be an ordinary user for a moment: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def inventory() -> list[str]:
    """Return what tests/inventory lists now, but for base images and the shared networks."""
    done = subprocess.run([INVENTORY, "--but-images"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
