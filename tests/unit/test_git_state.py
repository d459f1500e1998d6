"""What a guest may leave in a git dir, by git's own files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from vagrantp_guard.git_dir import Rule
from vagrantp_guard.git_state import IN_PLACE, index_problem, strategy_problem, todo_problem


def index_of(folder: Path, *names: str, kind: str = "sha1", version: int = 2) -> bytes:
    """Return an index in which these names are, as git writes it without a look at them."""

    def git(*argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            ("git", *argv), cwd=folder, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet", f"--object-format={kind}")
    blob = git("hash-object", "-w", "--stdin", stdin="x\n")
    # update-index looks at names, so it gets others, as long; nobody looks at the checksum
    plain = [name.replace(".git", "xgit").replace("..", "xx") for name in names]
    git("config", "index.skipHash", "true")
    for name in plain:
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    git("update-index", "--index-version", str(version))
    content = (folder / ".git/index").read_bytes()
    for harmless, name in zip(plain, names, strict=True):
        content = content.replace(harmless.encode(), name.encode())
    size = 20 if kind == "sha1" else 32
    return content[:-size] + bytes(size)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
@pytest.mark.parametrize("version", [2, 4])
def test_an_index_of_plain_names(tmp_path: Path, kind: str, version: int) -> None:
    names = ("a", ".github/workflows/x.yml", ".gitignore", "d/.gitattributes", "é/.env")
    assert index_problem(index_of(tmp_path, *names, kind=kind, version=version), kind) == ""


@pytest.mark.parametrize(
    "name", [".git/hooks/post-checkout", "sub/.git", ".git/config", "../outside"]
)
def test_an_index_that_writes_elsewhere(tmp_path: Path, name: str) -> None:
    assert name in index_problem(index_of(tmp_path, "a", name), "sha1")


def test_an_index_that_is_another_one_with_threads(tmp_path: Path) -> None:
    """Its table of where entries are can leave some out."""
    index_of(tmp_path, *(f"name{number}" for number in range(9)))
    threads = ("git", "-c", "index.threads=3", "-c", "index.skipHash=false")
    subprocess.run((*threads, "update-index", "--force-write-index"), cwd=tmp_path, check=True)
    content = (tmp_path / ".git/index").read_bytes()
    assert index_problem(content, "sha1") == ""
    table = content.index(b"IEOT")
    for at in (table + 15, table + 19):  # where the first block is, and how much
        altered = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert index_problem(altered, "sha1")


def test_a_part_of_a_split_index(tmp_path: Path) -> None:
    for number, name in enumerate(("a", ".git/hooks/x")):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = index_of(folder, name)
        (folder / ".git/index").write_bytes(content.replace(b".git/hooks", b"xgit/hooks"))
        subprocess.run(("git", "update-index", "--split-index"), cwd=folder, check=True)
        [shared] = (folder / ".git").glob("sharedindex.*")
        content = shared.read_bytes().replace(b"xgit/hooks", b".git/hooks")
        assert bool(index_problem(content, "sha1")) is bool(number)


@pytest.mark.parametrize("content", [b"", b"DIRC", b"DIRC\0\0\0\2\0\0\0\7" + bytes(80)])
def test_no_index(content: bytes) -> None:
    assert index_problem(content, "sha1")


@pytest.mark.parametrize(
    ("content", "may"),
    [
        (
            b"pick 1234567 text\n# exec in a comment\nfixup 2345678 x\nupdate-ref refs/heads/x\n",
            True,
        ),
        (b"", True),
        (b"execute 1 is no command\n", True),
        (b"exec id\n", False),
        (b"pick 1 a\n  x id\n", False),
        (b"pick 1 a\nexec\tid\n", False),
        (b"pick 1 a\r\nexec id\r\n", False),
        (b"exec", False),
    ],
)
def test_the_commands_of_a_rebase(content: bytes, may: bool) -> None:
    assert (todo_problem(content) == "") is may


@pytest.mark.parametrize(
    ("name", "content", "may"),
    [
        *(("strategy", content, True) for content in (b"", b"ort\n", b"recursive", b"subtree\n")),
        *(("strategy", content, False) for content in (b"x/y\n", b"x", b"../x", b"ort\nx", b"\0")),
        ("opts", b"", True),
        ("opts", b"[options]\n\tedit = true\n\tstrategy = ort\n", True),
        ("opts", b"[options]\n\tstrategy = x/y\n", False),
        ("opts", b"[options]\n\tstrategy = ort\n[OPTIONS]Strategy=x/y\n", False),
        ("opts", b"[options", False),
    ],
)
def test_the_strategy_of_a_rebase(name: str, content: bytes, may: bool) -> None:
    assert (strategy_problem(content, (".git", "rebase-merge", name)) == "") is may


def test_files_that_git_copies_into_a_git_dir() -> None:
    parts = (".git", "MERGE_RR")
    assert IN_PLACE[Rule.EMPTY](None, b"", parts) == ""
    assert IN_PLACE[Rule.EMPTY](None, b"0" * 40 + b"\t../../.ssh/id_ed25519\0", parts)
