"""The console script `vagrantp`: fab, with the verbs of this checkout built in."""

from __future__ import annotations

import runpy
import shlex
import sys
from importlib.metadata import version

from fabric import Config, Executor
from fabric.exceptions import NothingToDo
from fabric.main import Fab

from vagrantp.core.places import MASTER
from vagrantp.core.text import show
from vagrantp.instance.record import machines

FABFILE = MASTER / "fabfile.py"


def main() -> int:
    """Run the verbs in sys.argv as `fab -r MASTER` does, and exit; else return the status."""
    if not FABFILE.exists():  # installed some other way, without --editable
        show(f"{FABFILE}: not found; run 'make setup' in a checkout", sys.stderr)
        return 1
    if is_name_asked(sys.argv[1:]):
        show("\n".join(machines()))
        return 0
    fab = Fab(
        name="vagrantp",
        version=version("vagrantp"),
        namespace=runpy.run_path(str(FABFILE))["ns"],
        executor_class=Executor,  # fab's own; else they would be invoke's
        config_class=Config,
    )
    try:
        fab.run()
    except NothingToDo:  # fab takes what follows `--` for a command for remote hosts
        show("nothing may follow --; a command goes to ssh --command 'CMD'", sys.stderr)
        return 1
    return 0


def is_name_asked(arguments: list[str]) -> bool:
    """Say whether a shell asks for completions of `rm --name`, which invoke does not know.

    It passes `--complete -- ` and the line so far, in which bash makes `=` a word of its own.
    """
    if arguments[:2] != ["--complete", "--"]:
        return False
    try:
        words = shlex.split(" ".join(arguments[2:]).replace("=", " "))
    except ValueError:  # within quotes
        return False
    return "rm" in words and "--name" in words[-2:]
