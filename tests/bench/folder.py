"""The project folder with PROTECT and without, in turn: `python -m tests.bench.folder`.

Prints medians, ratios, and what bindfs(1) and its supervisor took of the processor; writes nothing.
Both are mounted as `share` mounts them, and used by root in namespaces, so no guest is needed. As
root, with npm and node. PAIRS=1 makes it short; arguments choose what is measured.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vagrantp_guard.contract import version
from vagrantp_guard.install import install

from tests.attacks.protect.guests import SHARE

PAIRS = int(os.environ.get("PAIRS", "9"))
PERSON = pwd.getpwnam("nobody")
PACKAGES = {"express": "5.1.0", "eslint": "9.37.0", "typescript": "5.9.3"}
LOCK = ("--omit-lockfile-registry-resolved=false",)  # else `npm ci` asks the registry
COMMITS = """
import sqlite3
with_each = sqlite3.connect("base.db", isolation_level=None)
with_each.execute("create table t (n)")
for n in range(500):
    with_each.execute("insert into t values (?)", (n,))
"""
MAKE = """
import os
for n in range(3000):
    os.close(os.open(f"made{n}", os.O_CREAT | os.O_WRONLY))
"""
# By name: what is made first, what is measured, what is removed then. The shell is in the folder.
WORKS = {
    "git status, 20 000 files": (
        "git init -q r && cd r && for d in $(seq 200); do mkdir d$d && (cd d$d && touch $(seq 100))"
        "; done && git add . && git -c user.name=a -c user.email=a@b commit -qm a && git status",
        "cd r && git status",
        "true",
    ),
    "npm ci, 3 packages and theirs": (
        "mkdir n && cp /cache/package*.json n",
        "cd n && npm ci --offline --cache /cache/npm --no-audit --no-fund --no-update-notifier",
        "rm -r n/node_modules",
    ),
    "sqlite3, 500 commits": ("true", f"python3 -c '{COMMITS}'", "rm base.db"),
    "3 000 empty files made": (
        "mkdir e",
        f"cd e && python3 -c '{MAKE}'",
        "rm -r e && mkdir e",
    ),
    "… and removed": (
        f"mkdir u && cd u && python3 -c '{MAKE}'",
        "rm -r u",
        f"mkdir u && cd u && python3 -c '{MAKE}'",
    ),
    "1 GB written": ("true", "dd if=/dev/zero of=big bs=1M count=1024 conv=fsync", "rm big"),
    "1 GB read": (
        "dd if=/dev/zero of=big bs=1M count=1024 conv=fsync",
        "dd if=big of=/dev/null bs=1M",
        "true",
    ),
}


@dataclass(frozen=True)
class Shared:
    """A folder that is mounted at `place`. `cache`: what npm takes packages from."""

    folder: Path
    place: Path
    cache: Path

    def run(self, script: str) -> float:
        """Run a script of sh(1) there as root; return its seconds. Raises SystemExit."""
        argv = (
            *("bwrap", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--tmpfs", "/tmp"),
            *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
            *("--symlink", "usr/lib64", "/lib64", "--dev", "/dev", "--proc", "/proc"),
            *("--bind", str(self.place), "/project", "--bind", str(self.cache), "/cache"),
            *("--unshare-net", "--chdir", "/project", "sh", "-c", script),
        )
        start = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        if done.returncode:
            raise SystemExit(f"{script}\n{done.stdout}{done.stderr}")
        return seconds

    def cost(self) -> tuple[float, float]:
        """Return what serves the folder took so far: seconds of the processor, and switches."""
        seconds = switches = 0.0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if not (process / "root/project").samefile(self.folder):
                    continue
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                status = (process / "status").read_text().splitlines()
            except OSError:  # it has no such folder, or has ended
                continue
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            switches += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        return seconds, switches


def main() -> None:
    """Measure all of it, or what is named; leave nothing."""
    names = [name for name in WORKS if not sys.argv[1:] or any(a in name for a in sys.argv[1:])]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        base = Path(name).resolve()
        base.chmod(0o755)
        cache = _packages(base / "cache")
        lib = base / "lib"
        lib.mkdir()
        install(lib)
        shared = {each: _mount(base, each, lib, cache) for each in ("protected", "unprotected")}
        try:
            print("| what | protected | unprotected | ratio | processor | switches |")
            print("|", " --- |" * 6, sep="")
            for each in names:
                print(_row(each, shared), flush=True)
        finally:
            for one in shared.values():
                subprocess.run(("umount", "--lazy", one.place), check=True)


def _packages(cache: Path) -> Path:
    """Make a folder with a package.json and all that `npm ci` fetches for it."""
    cache.mkdir()
    (cache / "package.json").write_text(json.dumps({"dependencies": PACKAGES}))
    npm = (*("npm", "install", "--cache", cache / "npm", "--no-audit", "--no-fund"), *LOCK)
    subprocess.run(npm, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return cache


def _mount(base: Path, name: str, lib: Path, cache: Path) -> Shared:
    folder, place = base / f"{name}-app", base / name
    folder.mkdir()
    place.mkdir()
    os.chown(folder, PERSON.pw_uid, PERSON.pw_gid)
    how = {"mode": "rw", "folder": str(folder), "uid": 0, "gid": 0, "protect": name == "protected"}
    argv = (
        "python3",
        "-IS",
        "-c",
        SHARE,
        lib / version(),
        place,
        json.dumps(how),
        base / "app-01234567",
    )
    subprocess.run(argv, check=True)
    return Shared(folder, place, cache)


def _row(name: str, shared: dict[str, Shared]) -> str:
    prepare, work, clean = WORKS[name]
    times: dict[str, list[float]] = {kind: [] for kind in shared}
    seconds, switches = dict.fromkeys(shared, 0.0), dict.fromkeys(shared, 0.0)
    for each in shared.values():
        each.run(prepare)
    for pair in range(PAIRS):
        for kind in sorted(shared, reverse=bool(pair % 2)):  # neither is always the first
            each = shared[kind]
            before = each.cost()
            times[kind].append(each.run(work))
            after = each.cost()
            seconds[kind] += (after[0] - before[0]) / PAIRS
            switches[kind] += (after[1] - before[1]) / PAIRS
            each.run(clean)
    ratio = median(times["protected"]) / median(times["unprotected"])
    spans = [f"{median(t):.2f} s ({min(t):.2f} to {max(t):.2f})" for t in times.values()]
    costs = " / ".join(f"{each:.2f}" for each in seconds.values())
    changes = " / ".join(f"{each:.0f}" for each in switches.values())
    return f"| {name} | {' | '.join(spans)} | {ratio:.2f} | {costs} s | {changes} |"


if __name__ == "__main__":
    main()
