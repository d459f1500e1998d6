"""Shell scripts as a guest's login shell takes them."""

from __future__ import annotations

import shlex
from base64 import b64encode
from pathlib import Path

from vagrantp.core.places import SCRIPTS

SHELLS = ("bash", "sh", "dash", "ash")  # that can report the line in which a script fails
MOUNT_SCRIPT = SCRIPTS / "mount.sh"


def shell(script: str, *arguments: str) -> str:
    """Return the command that runs a shell script in a guest.

    The user's login shell reads it, and fish or tcsh quote differently: so it needs no quoting.
    """
    text = b64encode(script.encode()).decode()
    return shlex.join(["sh", "-c", f'eval "$(echo {text} | base64 -d)"', "sh", *arguments])


def as_root(script: str, *arguments: str) -> str:
    """Return the command that runs a shell script as root in a guest."""
    return f"sudo -n {shell(script, *arguments)}"


def provision_script(script: Path, first_line: bytes) -> list[str]:
    """Return the arguments of script.sh for a script that starts with `first_line`.

    script.sh adds an option to a plain sh, which is called as its `#!` says.
    """
    if not first_line.startswith(b"#!"):
        return [script.name, "none"]
    interpreter = first_line[2:].decode(errors="replace").strip()
    names = [Path(word).name for word in interpreter.split() if word[0] != "-"]
    shell = next((name for name in names if name != "env"), "")
    if shell not in SHELLS:
        return [script.name, "none"]
    if shell == "bash":
        return [script.name, "bash"]
    # as the kernel does: what follows the interpreter is one argument
    return [script.name, "sh", *interpreter.split(maxsplit=1)]


def mount_inside(mode: str) -> str:
    """Return the script that mounts the project folder in a VM, as root. `mode`: none, ro, rw."""
    return f"mode={mode}\n" + MOUNT_SCRIPT.read_text(encoding="utf-8")
