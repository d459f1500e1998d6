"""What a guest may change in a git repository's config: a list of keys, each with its values.

git itself reads both versions. A key that is not listed can make git run a program, read another
file or lead its network traffic elsewhere, or nobody has looked at it yet.
"""

from __future__ import annotations

import re
import subprocess
from itertools import takewhile, zip_longest

from vagrantp_guard.git_dir import GIT, fold
from vagrantp_guard.system import PATH

Pair = tuple[str, str | None]  # a key as git prints it, and its value if it has one

MOST_BYTES = 1 << 20
MOST_SECONDS = 10.0
READ = ("git", "config", "--file", "-", "--list", "-z", "--no-includes")
ENV = {
    "PATH": PATH,
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}
# The lines that `git config` writes. Others that git can read (comments, a setting beside its
# header, a value that goes on in the next line) another reader may take for something else.
_TEXT, _ESCAPE = r"[^\"\\\x00-\x1f\x7f]", r"\\[\"\\nt]"
_VALUE = rf"((?![#;]){_TEXT}|{_ESCAPE}|\"({_TEXT}|{_ESCAPE})*\")*"
_HEADER = rf"\[[a-z0-9.-]+( \"({_TEXT}|\\[\"\\])*\")?\]"
PLAIN_LINE = re.compile(rf"|{_HEADER}|[ \t]*[a-z][a-z0-9-]*( ?= ?{_VALUE})?", re.IGNORECASE)

BOOL = r"true|false|yes|no|on|off|1|0|"
TEXT = r"[^\x00-\x1f\x7f]"
REF = r"refs/[^\x00-\x20\x7f:^~?\\[]+"
NAME = r"(?![./-])(?!.*(\.\.|//))[\w.+@#/-]+"  # of a remote or a branch
# Without `helper::address`, which runs git-remote-helper, and without options in a host's place.
URL = (
    rf"(?!-)(?!.*%0[ad])((https?|ssh|git)://(?!-){TEXT}+|file:///{TEXT}+"
    rf"|[^-:/\x00-\x20\x7f][^:/\x00-\x20\x7f]*:(?!:|//){TEXT}+|[^-:\x00-\x1f\x7f][^:\x00-\x1f\x7f]*)"
)
ALLOWED = {
    "branch.*.description": r"[^\x00-\x09\x0b-\x1f\x7f]*",
    "branch.*.merge": REF,
    "branch.*.pushremote": NAME,
    "branch.*.rebase": rf"merges|interactive|{BOOL}",
    "branch.*.remote": rf"\.|{NAME}",
    "core.bare": "false",
    "core.filemode": BOOL,
    "core.ignorecase": BOOL,
    "core.logallrefupdates": rf"always|{BOOL}",
    "core.precomposeunicode": BOOL,
    "core.repositoryformatversion": "0|1",
    "core.sparsecheckout": BOOL,
    "core.sparsecheckoutcone": BOOL,
    "core.symlinks": BOOL,
    "extensions.objectformat": "sha1|sha256",
    "extensions.refstorage": "files|reftable",
    "extensions.relativeworktrees": BOOL,
    "extensions.worktreeconfig": BOOL,
    "lfs.repositoryformatversion": "0",
    "remote.*.fetch": rf"\+?{REF}:{REF}",
    "remote.*.tagopt": "--tags|--no-tags",
    "remote.*.url": URL,
    "submodule.*.active": BOOL,
    "submodule.*.branch": rf"\.|{NAME}",
    "submodule.*.update": "checkout|rebase|merge|none",
    "submodule.*.url": URL,
    "submodule.active": rf"{TEXT}+",
}
VALUES = {key: re.compile(values, re.IGNORECASE) for key, values in ALLOWED.items()}


def config_problem(old: bytes | None, new: bytes, parts: tuple[str, ...]) -> str:
    """Return why a guest must not put the config `new` in the place of `old` at `parts`, or "".

    What it may not set must be in both, in the same order. `old` None: there is none yet.
    """
    try:
        before, after = config_pairs(old) if old else [], config_pairs(new)
    except ValueError as error:
        return str(error)
    kept, found = ([p for p in pairs if not _may_set(p, parts)] for pairs in (before, after))
    for was, becomes in zip_longest(kept, found):
        if was != becomes:
            key, value = becomes or was
            verb = "set" if becomes else "remove"
            of = f" to {value[:200]!r}" if becomes and value else ""
            return f"a guest may not {verb} {key}{of}"
    known = {*(old or b"").split(b"\n")}
    for line in new.split(b"\n"):
        text = line.decode("utf-8", "surrogateescape")
        if line not in known and not PLAIN_LINE.fullmatch(text):
            return f"{text[:200]!r} is no line that `git config` writes"
    return ""


def object_format(config: bytes) -> str:
    """Return the object format of a repository with this config: sha1, sha256 or an unknown one."""
    try:
        found = dict(config_pairs(config)).get("extensions.objectformat", "sha1")
    except ValueError:
        found = None
    return (found or "unknown").lower()


def config_pairs(config: bytes) -> list[Pair]:
    """Return what git reads in a file of this form. Raises ValueError if it cannot."""
    if len(config) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    if b"\0" in config:
        raise ValueError("it has bytes that are 0")
    try:
        done = subprocess.run(
            READ,
            input=config,
            capture_output=True,
            check=False,
            cwd="/",  # in no repository
            env=ENV,
            timeout=MOST_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"git cannot read it: {error}") from None
    if done.returncode:
        raise ValueError("git cannot read it")
    found: list[Pair] = []
    for pair in done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        key, has_value, value = pair.partition("\n")
        found.append((key, value if has_value else None))
    return found


def _may_set(pair: Pair, parts: tuple[str, ...]) -> bool:
    key, value = pair
    section, _, rest = key.partition(".")
    subsection, _, name = rest.rpartition(".")
    listed = f"{section}.*.{name}" if subsection else key
    if value is None:  # `git config` writes no such lines
        return False
    if key == "core.worktree":
        return _is_worktree(value, parts)
    return listed in VALUES and bool(VALUES[listed].fullmatch(value))


def _is_worktree(value: str, parts: tuple[str, ...]) -> bool:
    """Say whether a value leads from a module's git dir to a folder in the project."""
    steps = value.split("/")
    ups = len([*takewhile("..".__eq__, steps)])
    below = [fold(step) for step in steps[ups:]]
    names = [fold(part) for part in parts]
    at = names.index(GIT) + 1 if GIT in names else len(names)
    # from `…/.git/modules/name/config`, back to the folder that `.git` is in or further
    return (
        "modules" in names[at:-1]
        and len(names) - at <= ups < len(parts)
        and bool(below)
        and not {"", GIT} & {*below}
    )
