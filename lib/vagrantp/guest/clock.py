"""A VM's clock, which nothing else sets right after a pause of the VM or a sleep of its host."""

from __future__ import annotations

import shlex

from vagrantp.images.built import RECIPES

FILES = RECIPES / "vm/files"
PROGRAM = "usr/local/sbin/vagrantp-clock"
SERVICE = "etc/systemd/system/vagrantp-clock.service"


def script() -> str:
    """Return the script that makes a VM's clock follow its hardware clock, run as root in it.

    Our own images have this. It does nothing in a VM without systemd or bash 5.
    """
    has = "command -v systemctl >/dev/null && bash -c '[ \"$EPOCHSECONDS\" ]' 2>/dev/null"
    lines = ["set -e", f"{has} || exit 0"]
    for name in (PROGRAM, SERVICE):
        text = (FILES / name).read_text("utf-8")
        folder = name.rpartition("/")[0]
        lines += [f"mkdir -p /{folder}", f"printf %s {shlex.quote(text)} > /{name}"]
    lines += [f"chmod 755 /{PROGRAM}", "systemctl daemon-reload"]
    return "\n".join([*lines, "systemctl --quiet enable --now vagrantp-clock.service", ""])
