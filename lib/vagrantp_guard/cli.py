"""Keeps guests from the LAN: the packet filter of this host, written whenever a guest starts.

Host set-up registers it as a hook of libvirt and of the OCI runtimes. So whatever starts a guest
runs it, before the guest's first instruction, and a guest whose rules cannot be written does not
start. docs/isolation.md says what is filtered, docs/adr/0010-isolation-by-hooks.md why.

    guard load                loads the rules of all running guests, as at boot
    guard check               prints one line of JSON: are the live rules those that were loaded?
    guard try                 prints one line of JSON: what other firewalls keep from guests
    guard sync                asks libvirt and Podman what runs, then loads the rules
    guard watch               what systemd runs while guests run: puts lost rules back
    guard unload              removes all rules and records
    guard qemu NAME OPERATION libvirt's hook, the domain's XML on stdin (hooks.html of libvirt)
    guard oci                 an OCI hook, the container's state on stdin (runtime-spec, config.md)
    guard adopt               records the ids of containers that an older version made
    guard inside check PID FOLDER, guard inside load PID FOLDER
                              the same for a user's container, in `podman unshare`: its first
                              process, and the folder with its isolation.json
    guard bound, guard renew  what udhcpc(1) calls in a container with a lease
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

from vagrantp_guard import forwarding, held, leases, listener, resolver
from vagrantp_guard.contract import BRIDGES, MOUNTS, RULE_PRIORITY, RUN, Report
from vagrantp_guard.guests import guests
from vagrantp_guard.hooks import on_oci, on_qemu
from vagrantp_guard.lan import configure
from vagrantp_guard.links import put_up
from vagrantp_guard.running import adopt, sync
from vagrantp_guard.share import unmount
from vagrantp_guard.system import Refused, locked, run
from vagrantp_guard.tables import TABLES, ask_again, inside_problems, load, load_inside, problems
from vagrantp_guard.userns import open_up, wait_for_starting
from vagrantp_guard.watcher import stop, watch, watch_container, watch_host


def main(argv: list[str]) -> int:
    """Run one command; return the exit status."""
    command, *arguments = argv or ["help"]
    try:
        return _main(command, *arguments)
    except (Refused, OSError, ValueError, KeyError) as error:
        print(f"vagrantp guard: {command}: {error}", file=sys.stderr)
        return 1


def _main(command: str, *arguments: str) -> int:
    if command == "check":
        if RUN.is_dir():
            wait_for_starting()
        report = _look()
        if held.GONE in report.problems:
            with suppress(Refused):  # another process may have taken over just now
                held.ask(2.0)
                report = _look()
        return _answer(report)
    if command == "inside":
        pid, folder = int(arguments[1]), Path(arguments[2])
        if arguments[0] == "load":
            load_inside(pid, folder)
            watch_container(pid, folder)
        return _answer(Report(tuple(inside_problems(pid, folder)), {}, {}))
    if command in ("bound", "renew"):
        configure(os.environ)
    elif command == "qemu":
        on_qemu(*arguments[:2])
    elif command == "oci":
        on_oci(json.load(sys.stdin))
    elif command == "adopt":
        adopt()
    elif command == "sync":
        with locked():
            sync()
            load()
            for pid in (guest.pid for guest in guests() if guest.pid):
                open_up(pid)
            put_up(guests())
        watch_host()
        resolver.wait()
        listener.wait()
        ask_again()
    elif command == "load":
        with locked():
            load()
        watch_host()
        resolver.wait()
        listener.wait()
    elif command == "try":
        from vagrantp_guard.trial import closed  # its imports take 3 ms

        print(json.dumps(closed()))
    elif command == "watch":
        return 0 if watch() else 1
    elif command == "unload":
        _unload()
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def _unload() -> None:
    import shutil  # takes 3 ms

    with locked():  # the process that watches would put things back
        shutil.rmtree(RUN / "guests", ignore_errors=True)
        stop()
        for path in MOUNTS.glob("*"):
            unmount(path.name)
            if path.is_mount():
                raise Refused(f"{path} is in use")
        for table in TABLES:
            run("nft", "delete", "table", *table, check=False)
        for bridge in BRIDGES.values():
            which = ("priority", str(RULE_PRIORITY), "iif", bridge)
            run("ip", "rule", "delete", *which, check=False)
        with suppress(Refused):
            forwarding.release()
        resolver.release()
        shutil.rmtree(RUN, ignore_errors=True)


def _look() -> Report:
    with locked() if RUN.is_dir() else nullcontext():  # not while rules are loaded
        known = {guest.name: guest for guest in guests()}
        leased = {port: [str(lease.address.ip)] for port, lease in leases.kept().items()}
        return Report(tuple(problems()), known, leased, held.one_wall())


def _answer(report: Report) -> int:
    print(json.dumps(report.to_json()))
    return 1 if report.problems else 0
