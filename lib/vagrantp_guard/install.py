#!/usr/bin/python3 -IS
"""Installs this package for root: `install.py [LIB]`. Host set-up runs it.

Its modules, compiled, go into a folder that is named by their digest. Then the new starter is
renamed over the old one, so a call finds one version or the other, and never half of one. Prints
"installed" if something changed.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.dont_write_bytecode = True  # in the checkout, which may be a user's
    sys.path.insert(0, str(PACKAGE.parent))
from vagrantp_guard import contract  # noqa: E402


def install(lib: Path) -> bool:
    """Make `lib`/guard start these modules; return False if it already does. Raises OSError."""
    folder = lib / contract.version()
    guard, starter = lib / contract.GUARD.name, contract.starter(folder).encode()
    if guard.is_file() and guard.read_bytes() == starter:
        return False
    draft = lib / f"{folder.name}.new"
    for rest in (draft, folder):  # left by a killed installation
        shutil.rmtree(rest, ignore_errors=True)
    modules = draft / PACKAGE.name
    modules.mkdir(parents=True)
    for path in contract.files():
        shutil.copyfile(path, modules / path.name)
    (modules / "fusermount3.py").chmod(0o755)
    compileall.compile_dir(modules, quiet=1, stripdir=str(draft), prependdir=str(folder))
    draft.rename(folder)
    new = guard.with_name("guard.new")
    new.write_bytes(starter)
    new.chmod(0o755)
    new.rename(guard)
    return True


def remove_others(lib: Path) -> None:
    """Remove other versions. Those of their processes that still run have read what they need."""
    for path in lib.iterdir():
        if re.fullmatch(r"[0-9a-f]{16}(\.new)?", path.name) and path.name != contract.version():
            shutil.rmtree(path)
    (lib / "forward").unlink(missing_ok=True)  # from before there was a package


if __name__ == "__main__":
    os.umask(0o022)
    lib = Path(*sys.argv[1:2] or (contract.LIB,))
    if install(lib):
        print("installed")
    remove_others(lib)
