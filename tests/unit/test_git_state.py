"""What a guest may leave in a git dir, by git's own files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from vagrantp_guard.git_state import index_problem, todo_problem


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
