"""Every reason to refuse a value, told exactly; and no content that could do anything else."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vagrantp.core.errors import ConfigError
from vagrantp.settings import env, files, keys, parsers, rules
from vagrantp.settings.forwards import PortForward
from vagrantp.settings.parsers import Provisioner
from vagrantp_guard.contract import LanRule

from tests.conftest import nobody
from tests.unit import samples

FULL = 10_000  # `make test` runs as many


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a project folder with all the files, that another user can enter."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", f"{name}/config")
        Path(name).chmod(0o755)
        app = Path(name, "app")
        app.mkdir()
        samples.make_files(app)
        samples.make_secrets(Path(name, "config"))
        (app / "mem.yml").symlink_to("/proc/self/mem")  # what it says to a read at 0: EIO
        yield app


def said(folder: Path, content: str | bytes) -> str:
    """Return what is wrong with a `.env`, or nothing."""
    data = content.encode() if isinstance(content, str) else content
    (folder / ".env").write_bytes(data)
    try:
        if b"unreadable" in data:
            with nobody():
                env.load(folder)
        else:
            env.load(folder, granted=[Path("/proc/self/mem").resolve()])
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("above", "problems"), samples.ROWS, ids=lambda value: repr(value)[:60])
def test_what_is_refused(folder: Path, above: str, problems: list[str]) -> None:
    assert said(folder, samples.env_of(above)) == samples.expected(above, problems)


def reasons(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each place in a module that refuses something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield) or (
            isinstance(node, ast.Raise) and "Invalid(" in ast.unparse(node)
        ):
            yield node.lineno
        elif isinstance(node, ast.FunctionDef) and node.name == "_unreachable":
            texts = [n for n in ast.walk(node) if isinstance(n, ast.Return)]
            yield from (n.lineno for n in texts if ast.unparse(n) != "return ''")


@pytest.mark.slow
def test_every_reason_has_a_row(folder: Path) -> None:
    paths = {str(module.__file__) for module in (parsers, files, rules)}
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401
        if frame.f_code.co_filename not in paths:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    trees = {path: ast.parse(Path(path).read_text(encoding="utf-8")) for path in paths}
    found = {(path, line) for path, tree in trees.items() for line in reasons(tree)}
    assert len(found) > 40
    before = sys.gettrace()
    try:
        sys.settrace(trace)
        for above, _ in samples.ROWS:
            said(folder, samples.env_of(above))
        (folder / "home/.ssh").mkdir(parents=True)  # of MOUNT: test_unshared
        said(folder / "home", samples.env_of("MOUNT=ro"))
    finally:
        sys.settrace(before)
    assert found <= seen, f"no row for {sorted(found - seen)}"


def refused(text: str) -> set[tuple[str, str]]:
    """Return the keys in an error, each with the reason, without what is the value's own."""
    found = re.findall(r"^\.env:\d+: ([A-Z_0-9]+) (.*?)(?:, got \"|$)", text, re.MULTILINE)
    return {(key, re.sub(r"\([A-Z].*\)|\d[\d./]*", "#", reason)) for key, reason in found}


TABLE = set().union(*(refused(samples.expected(*row)) for row in samples.ROWS))


def test_every_key_has_its_rows() -> None:
    for key in keys.KEYS:
        assert any(name == key and " must " in f" {reason}" for name, reason in TABLE), key


# -- typed values


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("FIXED_IP", "192.168.1.5", IPv4Address("192.168.1.5")),
        ("FIXED_IP", "192.168.1.5/24", IPv4Interface("192.168.1.5/24")),
        ("GATEWAY", "192.168.1.1", IPv4Address("192.168.1.1")),
        ("MAC", "52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
        ("PORTS", "8080:80", (PortForward(IPv4Address("127.0.0.1"), 8080, 80, "tcp"),)),
        ("PORTS", "", ()),
        (
            "PORTS",
            "80-81:8080-8081,auto:3000/tcp,0.0.0.0:53-53:5353-5353/udp,8080:80/tcp",
            (
                PortForward(IPv4Address("127.0.0.1"), 80, 8080, "tcp"),
                PortForward(IPv4Address("127.0.0.1"), 81, 8081, "tcp"),
                PortForward(IPv4Address("127.0.0.1"), None, 3000, "tcp"),
                PortForward(IPv4Address("0.0.0.0"), 53, 5353, "udp"),
                PortForward(IPv4Address("127.0.0.1"), 8080, 80, "tcp"),
            ),
        ),
        (
            "PORTS",
            "0.0.0.0:53:5353/udp, [::]:53:53/udp, auto:3000",
            (
                PortForward(IPv4Address("0.0.0.0"), 53, 5353, "udp"),
                PortForward(IPv6Address("::"), 53, 53, "udp"),
                PortForward(IPv4Address("127.0.0.1"), None, 3000, "tcp"),
            ),
        ),
        (
            "LAN_ALLOW",
            "10.0.0.0/8,10.1.2.3:53/udp,[fd00::/8]:443,host:11434,10.0.0.0/8/udp",
            (
                LanRule(IPv4Network("10.0.0.0/8"), None, None),
                LanRule(IPv4Network("10.1.2.3/32"), 53, "udp"),
                LanRule(IPv6Network("fd00::/8"), 443, "tcp"),
                LanRule(None, 11434, "tcp"),
                LanRule(IPv4Network("10.0.0.0/8"), None, "udp"),
            ),
        ),
        (
            "PROVISION_SCRIPT",
            'base, "a, b.yml", it\'s.sh',
            (
                Provisioner("ours", Path("base")),
                Provisioner("playbook", Path("a, b.yml")),
                Provisioner("script", Path("it's.sh")),
            ),
        ),
        ("BOX", "generic/debian12", "generic/debian12"),
        ("BOX", "~/images/été.qcow2", Path("~/images/été.qcow2")),
        ("BOX", "https://example.org/x", "https://example.org/x"),
        ("IMAGE", "localhost:5000/a__b/c:v1.2", "localhost:5000/a__b/c:v1.2"),
        ("IMAGE_SHA256", "AB" * 32, "ab" * 32),
        ("AUTOSTART", "no", False),
        ("PROTECT", "no", False),
        ("HIDE", './.env, "a, b//c/"', (".env", "a, b/c")),
        ("LAN_ACCESS", "yes", True),
    ],
)
def test_typed_values(key: str, raw: str, value: object) -> None:
    found = keys.KEYS[key].parse(raw)
    assert (found, type(found)) == (value, type(value))


def test_paths_start_from_the_folder_of_their_file(folder: Path) -> None:
    found = files.located(folder, Path("vars.yml"))
    assert found == folder / "vars.yml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        assert files.located(Path("/"), Path("~/vars.yml")) == folder / "vars.yml"
    steps = keys.KEYS["PROVISION_SCRIPT"].parse("base,script")
    assert files.provisioners(files.Base(folder), steps) == (
        Provisioner("ours", Path("base")),
        Provisioner("script", folder / "script"),
    )


@pytest.mark.parametrize("above", ["BOX=generic/debian12", "BOX=mybox", "SSH_USER=vagrant"])
@pytest.mark.parametrize("more", ["MOUNT=none", "AUTOSTART=no", "NETWORK_TYPE=default"])
def test_what_is_there_already_is_taken(folder: Path, above: str, more: str) -> None:
    assert said(folder, f"{above}\n{more}\n{samples.SOUND}") == ""


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *[("RAM", "MEMORY"), ("CPU", "CPUS"), ("DISK_SIZE", "DISK")],
        *[("NETWORK_MODE", "NETWORK_TYPE"), ("IP_ADDRESS", "FIXED_IP"), ("TYPE", "INFRA_TYPE")],
        *[("PROVISIONING_PLAYBOOK", "PROVISION_SCRIPT"), ("INFRA_ID", "NAME")],
        *[("PORT", "PORTS"), ("MEMROY", "MEMORY"), ("memory", "MEMORY"), ("SSH-KEY", "SSH_KEY")],
        *[("INFRATYPE", "INFRA_TYPE"), ("PROVISION_SCRIPTS", "PROVISION_SCRIPT")],
        *[(name, None) for name in ("DSN", "SSL_KEY", "DATABASE_URL", "HOSTNAME", "DB_NAME")],
        *[(name, None) for name in ("USER", "HOST", "PATH", "API_KEY", "NODE_ENV", "DEBUG", "A")],
    ],
)
def test_did_you_mean(name: str, key: str | None) -> None:
    assert rules.meant(name) == key


# -- any content

TEXT = st.text(max_size=30)
WORDS = st.sampled_from
ALWAYS_SOUND = {**samples.GOOD, "SSH_USER": st.just("vagrant")}
ALWAYS_SOUND |= {"NETWORK_TYPE": st.just("default")}
OPTIONAL = ["NAME", "BOX", "ACCEL", "SSH_USER", "MOUNT", "NETWORK_TYPE", "AUTOSTART"]
OPTIONAL += ["LAN_ACCESS", "LAN_ALLOW", "FIXED_IP"]
IN_TABLE = {
    key: [line[len(key) + 1 :] for above, _ in samples.ROWS for line in above.split("\n") if
          line.startswith(f"{key}=") and len(line) < 999 and "unreadable" not in line]
    for key in keys.KEYS
}  # fmt: skip


def line(key: str, value: str, is_quoted: bool) -> bytes:
    """Write a value as it is, or so that it is read as it is."""
    if is_quoted:
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{key}={value}\n".encode(errors="replace")


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draw a `.env`: sound, with a few values of any kind, or with arbitrary bytes."""
    kind = draw(WORDS(["sound", "sound", "mixed", "mixed", "mixed", "noise"]))
    if kind == "noise" and draw(st.booleans()):
        return draw(st.binary(max_size=300) | TEXT.map(str.encode))
    base = {"INFRA_TYPE": "vm", "MEMORY": "512", "CPUS": "1", "DISK": "3"}
    keys = [*samples.HINTS] if kind == "mixed" else OPTIONAL
    for key in draw(st.lists(WORDS(keys), max_size=6, unique=True)):
        if kind != "mixed":
            base[key] = draw(ALWAYS_SOUND[key])
        else:
            bad = WORDS(IN_TABLE[key]) | TEXT
            base[key] = draw(samples.GOOD[key] if draw(st.booleans()) else bad)
    lines = [line(key, value, draw(st.booleans())) for key, value in base.items()]
    if draw(st.booleans()):
        lines.insert(0, draw(WORDS([b"# it's a comment\n", b"PORT=1\n", b"\n", b"A='b\nc'\n"])))
    if kind == "noise":
        lines.insert(draw(st.integers(0, len(lines))), draw(st.binary(max_size=60)))
    return b"".join(lines)


def test_any_content_is_settings_or_a_config_error(folder: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(database=None, suppress_health_check=[*HealthCheck])
    @given(contents())
    def check(content: bytes) -> None:
        text = said(folder, content)
        found = refused(text)
        assert {(key, why) for key, why in found if "is already set" not in why} <= TABLE
        bad = {key for key, why in found if why.startswith("must ")}
        written = {key for key in keys.KEYS if f"{key}=".encode() in content}
        seen.update(["all", "sound"] if not text else ["all"])
        seen.update([f"bad {key}" for key in bad] + [f"good {key}" for key in written - bad])

    check()
    if seen["all"] >= FULL:
        assert seen["sound"] >= 0.3 * seen["all"]
        rare = {f"{k} {key}": seen[f"{k} {key}"] for key in keys.KEYS for k in ("good", "bad")}
        assert min(rare.values()) >= 100, rare
