"""A guest's facts: whatever it prints, they are typed and bounded; a lie spoils its own only."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from dataclasses import fields, replace
from errno import EACCES
from ipaddress import IPv4Address
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vagrantp.guest import facts
from vagrantp.guest.facts import Authorities, Facts, Mounted, OfFolder, parse

DIGEST = "0123456789abcdef" * 4
PRINTED = f"""\
hostname app
cpus 2
memory_kib 500000
addresses 10.201.0.57 192.168.1.9
gateway 10.201.0.1
user 1000 1000
project fuse.bindfs rw 4711
certificates {DIGEST} 0
trusted yes
provisioned {DIGEST}
root_kib 3000000
beside_kib 0
disk_bytes 3221225472
"""
HONEST = Facts(
    hostname="app",
    cpus=2,
    memory_kib=500000,
    addresses=(IPv4Address("10.201.0.57"), IPv4Address("192.168.1.9")),
    gateway=IPv4Address("10.201.0.1"),
    user=(1000, 1000),
    project=Mounted("fuse.bindfs", "rw", 4711),
    certificates=Authorities(DIGEST, 0),
    trusted=True,
    provisioned=DIGEST,
    root_kib=3000000,
    beside_kib=0,
    disk_bytes=3221225472,
)
NAMES = [field.name for field in fields(Facts)]
UNKNOWN = {name: getattr(Facts(), name) for name in NAMES}
LIES = [
    *("1", "", " ", "1 ", "-1", "+1", "1_0", "0x10", "1e9", "٣", "nan", "9" * 400, "x" * 5000),
    *("1000 1000 1000", "4294967295 0", "0 4294967295", "99999999999 0", "a b", "1000 \t1000"),
    *("\0", "\x1b]52;c;aGk=\x07", "\x9b2J", "\u202egnp.exe", "a\u200bb", "\ufeff", "\ufffd"),
    *("\udcff", "app\x0bcpus 9", "app\x85cpus 9", "\r", "app\rok", "\u2028"),
    *("10.0.0.1 \x1b[2J", "10.0.0.256", "010.0.0.1", "10.0.0.1/24", "10.0.0.1  10.0.0.2", "::1"),
    *("virtiofs rw", "virtiofs rx 1", "virtiofs rw 1 2", "\x1b rw 1", f"{'v' * 65} rw 1"),
    *(DIGEST.upper(), f"{DIGEST}0", f"{DIGEST} -1", f"{DIGEST} 9999999"),
]


def test_what_an_honest_guest_says() -> None:
    assert parse(PRINTED) == HONEST
    assert parse("") == parse("\n".join(NAMES)) == parse(PRINTED.replace(" ", "\t")) == Facts()


def test_the_script_prints_these_facts_and_no_others() -> None:
    said = [line.split()[1] for line in facts.SCRIPT.splitlines() if line.startswith("echo ")]
    assert sorted(said) == sorted(NAMES)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("sessions ", ()),
        ("sessions claude:it's one:größer:", ("claude", "it's one", "größer")),
        *((f"sessions {lie}", None) for lie in ("a\x1b]0;b", "\u202egnp", "x" * 65, "a:" * 101)),
        ("sessions a:\nsessions b:", None),
        ("", None),
    ],
)
def test_names_of_sessions(said: str, names: tuple[str, ...] | None) -> None:
    assert facts.sessions(said) == names


def test_a_guest_without_tmux_has_no_sessions() -> None:
    argv = ["/bin/sh", "-c", facts.SESSIONS_SCRIPT]
    done = subprocess.run(argv, env={"PATH": "/nonexistent"}, capture_output=True, text=True)
    assert facts.sessions(done.stdout) == ()


@pytest.mark.parametrize("head", ["none", "file", "folder", "link"])
def test_the_script_of_the_folder_leaves_no_trace(tmp_path: Path, head: str) -> None:
    made = tmp_path / "HEAD"
    match head:
        case "file":
            made.write_text("theirs\n")
        case "folder":
            made.mkdir()
        case "link":
            made.symlink_to("elsewhere")
    (tmp_path / "it's a").mkdir()
    before = [(path.name, path.lstat()) for path in sorted(tmp_path.rglob("*"))]
    script = facts.FOLDER_SCRIPT.replace("/project", str(tmp_path))
    argv = ["sh", "-c", script, "sh", "it's a", "missing"]
    done = subprocess.run(argv, capture_output=True, check=True, text=True)
    assert done.stderr == ""
    assert [(path.name, path.lstat()) for path in sorted(tmp_path.rglob("*"))] == before
    refuses = False if head in ("none", "file") else None
    inode = (tmp_path / "it's a").stat().st_ino
    assert facts.of_folder(done.stdout, 2) == OfFolder(refuses, (inode, 0))


def no_files_are_made() -> None:
    """Have this process and its children refused what openat(2) would make, as PROTECT does."""
    number = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
    program = [
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 3, number),
        (0x20, 0, 0, 32),  # its flags
        (0x45, 0, 1, os.O_CREAT),
        (0x06, 0, 0, 0x00050000 | EACCES),
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(filters)) == 0  # PR_SET_SECCOMP


@pytest.mark.parametrize("shell", [name for name in ("dash", "bash", "busybox") if which(name)])
def test_the_script_of_the_folder_sees_a_refusal(tmp_path: Path, shell: str) -> None:
    script = facts.FOLDER_SCRIPT.replace("/project", str(tmp_path))
    argv = [shell, *(["sh"] if shell == "busybox" else []), "-c", script]
    environment = {**os.environ, "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run(
        argv, preexec_fn=no_files_are_made, env=environment, capture_output=True, check=True
    )  # fmt: skip
    assert facts.of_folder(done.stdout.decode(), 0) == OfFolder(True, ())


def test_what_a_guest_says_of_the_folder() -> None:
    printed = "refuses yes\ninode_0 12\ninode_1 18446744073709551615\n"
    assert facts.of_folder(printed, 2) == OfFolder(True, (12, 2**64 - 1))
    assert facts.of_folder("refuses no\n", 1) == OfFolder(False, (None,))
    assert facts.of_folder("refuses no\nrefuses yes\ninode_1 1\n", 1) == OfFolder(None, (None,))


@pytest.mark.parametrize("lie", [*LIES, "maybe", "YES", "-1", "9" * 21], ids=ascii)
def test_a_lie_about_the_folder(lie: str) -> None:
    found = facts.of_folder(f"refuses {lie}\ninode_0 {lie}\ninode_1 7", 2)
    assert found.refuses is None
    assert found.inodes in ((None, 7), (1, 7))


@pytest.mark.parametrize("name", NAMES)
def test_a_lie_spoils_its_own_fact_at_most(name: str) -> None:
    for lie in LIES:
        lines = [f"{name} {lie}" if line.startswith(f"{name} ") else line for line in LINES]
        found = parse("\n".join(lines))
        assert sound(found), ascii(lie)
        assert replace(found, **{name: getattr(HONEST, name)}) == HONEST, ascii(lie)


LINES = PRINTED.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_a_fact_that_is_given_twice_is_not_known(name: str) -> None:
    for twice in (f"{PRINTED}{name} 1\n", f"{name} 1\n{PRINTED}"):
        assert parse(twice) == replace(HONEST, **{name: UNKNOWN[name]})


def test_names_that_are_not_ours() -> None:
    assert parse(f"__class__ x\n_READERS y\n\x1b 1\n{PRINTED}{'z' * 9000} 1\n") == HONEST


@pytest.mark.parametrize("flood", ["x 1\n" * 1_000_000, "x" * 50_000_000, "cpus 9 " * 1_000_000])
def test_a_flood(flood: str) -> None:
    assert parse(flood + PRINTED) == Facts()
    assert parse(PRINTED + flood) in (HONEST, replace(HONEST, cpus=None))


def sound(found: Facts) -> bool:
    """Say whether each fact is of its type, bounded, and fit to be shown."""
    numbers = (found.cpus, found.memory_kib, found.root_kib, found.beside_kib, found.disk_bytes)
    mounted, texts = found.project, (found.hostname, found.provisioned)
    return (
        all(number is None or (type(number) is int and 0 <= number < 10**18) for number in numbers)
        and all(text is None or (0 < len(text) <= 64 and text.isprintable()) for text in texts)
        and type(found.addresses) is tuple
        and all(type(each) is IPv4Address for each in found.addresses)
        and len(found.addresses) < 10_000
        and (found.gateway is None or type(found.gateway) is IPv4Address)
        and (found.user is None or all(0 <= number < 2**32 - 1 for number in found.user))
        and (mounted is None or (len(mounted.kind) <= 64 and mounted.kind.isascii()))
        and (mounted is None or (mounted.mode in ("ro", "rw") and 0 <= mounted.inode < 10**20))
    )


VALUES = st.one_of(st.sampled_from(LIES), st.text(), st.text("0123456789. rwofs-"))
A_LINE = st.builds("{} {}".format, st.sampled_from([*NAMES, "other", ""]), VALUES)


@given(st.one_of(st.binary().map(lambda data: data.decode(errors="replace")), st.text()))
def test_whatever_a_guest_prints_is_facts(printed: str) -> None:
    assert sound(parse(printed))


@given(st.lists(A_LINE, max_size=30))
def test_whatever_lines_a_guest_prints_are_facts(lines: list[str]) -> None:
    assert sound(parse("\n".join(lines)))


@pytest.mark.parametrize(
    ("result", "errors"),
    [
        ('{"v1": {"datasource": "x", "errors": []}}', []),
        ('{"v1": {"errors": ["one\\u001b", 2, null]}}', ["one\\x1b", "2", "None"]),
        (f'{{"v1": {{"errors": {["x"] * 9}}}}}'.replace("'", '"'), ["x"] * 5),
        *((text, ["its result cannot be read"]) for text in ("", "{}", "[]", "[" * 100_000)),
        ('{"v1": {"errors": "x"}}', ["its result cannot be read"]),
        ('{"v1": {"errors": [NaN]}}', ["its result cannot be read"]),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_cloud_init_says_of_itself(result: str, errors: list[str]) -> None:
    assert facts.cloud_init_errors(result) == errors
