"""What a guest reports about itself: typed and bounded, as a guest may print anything.

A fact that is missing, not well-formed or given twice is None or empty: unknown. It spoils no other
one. Nothing of it is kept but who logs in, which is asked again at every start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Literal

from vagrantp.core import documents
from vagrantp.core.text import plain

# Plain sh and /proc, so that any guest can answer: one `name value` a line.
SCRIPT = r"""
echo hostname "$(cat /proc/sys/kernel/hostname)"
echo cpus "$(grep -c ^processor /proc/cpuinfo)"
echo memory_kib "$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo addresses $(ip -4 -o address show scope global | awk '{sub("/.*", "", $4); print $4}')
echo gateway $(ip -4 route show default | awk '{print $3; exit}')
echo user "$(id -u) $(id -g)"
echo project "$(awk '$2 == "/project" {print $3, substr($4, 1, 2)}' /proc/mounts)" \
    "$(stat -c %i /project 2>/dev/null)"
grep -qs '^[[:space:]]*directory = /project/\*$' /etc/gitconfig && trusted=yes || trusted=no
echo trusted "$trusted"
echo provisioned "$(cat /var/lib/vagrantp/provisioned 2>/dev/null)"
own=/etc/ssl/vagrantp.pem # of trust.sh
echo certificates $([ ! -e "$own" ] || sha256sum "$own" | cut -c 1-64; [ ! -e "$own" ] || awk '
    /^-----BEGIN/ {text = ""; next}
    /^-----END/ {if (FILENAME == ARGV[1]) missing[text]; else delete missing[text]; next}
    {text = text $0}
    END {for (one in missing) count++; print count + 0}' "$own" "${SSL_CERT_FILE:-/dev/null}")
set -- $(df -Pk / | awk 'NR == 2 {print $1, $2}')
echo root_kib "$2"
# from the root file system through LVM down to the disk; what else is on them is not for it
[ -b "$1" ] || exit 0
cd "/sys/class/block/$(basename "$(readlink -f "$1")")"
beside=0
count() { [ "$1" -ef . ] || beside=$((beside + $(cat "$1/size") / 2)); }
while [ -d slaves ] && [ "$(ls slaves)" ]; do
    for volume in slaves/*/holders/*; do count "$volume"; done
    cd -P "$(ls -d slaves/* | head -n 1)"
done
if [ -e partition ]; then
    for number in ../*/partition; do count "${number%/*}"; done
    cd -P ..
fi
echo beside_kib "$beside"
echo disk_bytes "$(($(cat size) * 512))"
"""
# Of the project folder: whether it refuses a file called HEAD, which PROTECT allows nowhere; one
# that is there stays as it is. And the inodes of the paths that are its arguments, a line each.
FOLDER_SCRIPT = r"""
cd /project || exit 0
if [ -w . ] && [ ! -L HEAD ] && { [ ! -e HEAD ] || { [ -f HEAD ] && [ -w HEAD ]; }; }; then
    had=; [ ! -e HEAD ] || had=yes
    case $(export LC_ALL=C; (: >> HEAD) 2>&1 && echo made) in
        made) echo refuses no; [ "$had" ] || rm -f HEAD ;;
        *'ermission denied'*) echo refuses yes ;;
    esac
fi
number=0
for path; do
    echo "inode_$number" "$(stat -c %i "./$path" 2>/dev/null || echo 0)"
    number=$((number + 1))
done
"""
# The sessions of tmux, whose names have no colon.
SESSIONS_SCRIPT = """
echo sessions "$(tmux list-sessions -F '#{session_name}' 2>/dev/null | tr '\\n' :)"
"""
MAX_CHARACTERS = 64 * 1024  # of all facts together
MAX_LINES = 100
MAX_HOSTNAME = 64  # characters, as the kernel has it
MAX_SESSIONS = 100
MAX_SESSION = 64  # characters of a name
MAX_ERRORS = 5  # of cloud-init, in a message
LAST_ID = 2**32 - 2  # of a user or group: the next one means "none"


@dataclass(frozen=True)
class Mounted:
    """What is mounted at /project in a guest."""

    kind: str  # of its file system
    mode: Literal["ro", "rw"]
    inode: int


@dataclass(frozen=True)
class Authorities:
    """The file of CA_CERTS in a guest, and how many of them its system's store lacks."""

    digest: str
    missing: int


@dataclass(frozen=True)
class Facts:
    """What a guest says it has. `user`: uid and gid of who logs in; `trusted`: /project, by git."""

    hostname: str | None = None
    cpus: int | None = None
    memory_kib: int | None = None
    addresses: tuple[IPv4Address, ...] = ()
    gateway: IPv4Address | None = None
    user: tuple[int, int] | None = None
    project: Mounted | None = None
    certificates: Authorities | None = None
    trusted: bool | None = None
    provisioned: str | None = None  # provision.fingerprint of what was done
    root_kib: int | None = None
    beside_kib: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True)
class OfFolder:
    """What a guest says of the project folder.

    - `refuses`: whether it refuses what PROTECT does; None where nobody could make that anyway
    - `inodes`: of paths in it, 0 of one that is not there
    """

    refuses: bool | None
    inodes: tuple[int | None, ...]


def parse(printed: str) -> Facts:
    """Return the facts in what SCRIPT has printed."""
    return Facts(**read(printed, _READERS))


def of_folder(printed: str, paths: int) -> OfFolder:
    """Return the facts in what FOLDER_SCRIPT has printed of so many paths."""
    names = [f"inode_{number}" for number in range(paths)]
    found = read(printed, {"refuses": _yes_or_no, **dict.fromkeys(names, _inode)})
    return OfFolder(found.get("refuses"), tuple(map(found.get, names)))


def sessions(printed: str) -> tuple[str, ...] | None:
    """Return the names in what SESSIONS_SCRIPT has printed; None where they are no such names."""
    return read(printed, {"sessions": _sessions}).get("sessions")


def read(printed: str, readers: Mapping[str, Callable[[str], object]]) -> dict[str, Any]:
    """Return the facts in what a guest has printed, by name, each as its reader makes it.

    What a reader refuses, by ValueError, or what is there twice is left out.
    """
    said: dict[str, list[str]] = {}
    for line in printed[:MAX_CHARACTERS].split("\n")[: max(MAX_LINES, len(readers))]:
        name, _, value = line.partition(" ")
        said.setdefault(name, []).append(value.strip(" "))
    found: dict[str, Any] = {}
    for name, read in readers.items():
        with suppress(ValueError):
            (value,) = said.get(name, [])
            found[name] = read(value)
    return found


def cloud_init_errors(result: str) -> list[str]:
    """Return the errors in cloud-init's result; that it cannot be read is one, too."""
    try:
        match documents.from_json(result):
            case {"v1": {"errors": [*errors]}}:
                return [plain(str(error)) for error in errors[:MAX_ERRORS]]
    except documents.Unreadable:
        pass
    return ["its result cannot be read"]


def _hostname(text: str) -> str:
    if not 0 < len(text) <= MAX_HOSTNAME or not text.isprintable():
        raise ValueError
    return text


def _sessions(text: str) -> tuple[str, ...]:
    names = [name for name in text.split(":") if name]
    if len(names) > MAX_SESSIONS or not all(
        len(name) <= MAX_SESSION and name.isprintable() for name in names
    ):
        raise ValueError
    return tuple(names)


def _number(text: str) -> int:
    return int(_match(r"(\d{1,18})", text)[1])


def _inode(text: str) -> int:
    return int(_match(r"(\d{1,20})", text)[1])


def _yes_or_no(text: str) -> bool:
    return _match(r"(yes|no)", text)[1] == "yes"


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, text.split(" "))) if text else ()


def _user(text: str) -> tuple[int, int]:
    uid, gid = map(int, _match(r"(\d{1,10}) (\d{1,10})", text).groups())
    if max(uid, gid) > LAST_ID:
        raise ValueError
    return uid, gid


def _project(text: str) -> Mounted:
    kind, mode, inode = _match(r"([\w.-]{1,64}) (ro|rw) (\d{1,20})", text).groups()
    return Mounted(kind, "ro" if mode == "ro" else "rw", int(inode))


def _certificates(text: str) -> Authorities:
    digest, missing = _match(r"([0-9a-f]{64}) (\d{1,6})", text).groups()
    return Authorities(digest, int(missing))


def _digest(text: str) -> str:
    return _match(r"([0-9a-f]{64})", text)[1]


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None:
        raise ValueError
    return found


_READERS: dict[str, Callable[[str], object]] = {
    "hostname": _hostname,
    **dict.fromkeys(("cpus", "memory_kib", "root_kib", "beside_kib", "disk_bytes"), _number),
    "addresses": _addresses,
    "gateway": IPv4Address,
    "user": _user,
    "project": _project,
    "certificates": _certificates,
    "trusted": _yes_or_no,
    "provisioned": _digest,
}
