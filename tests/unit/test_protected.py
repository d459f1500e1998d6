"""What PROTECT lets a guest write in a project folder: names, git's files and git's config."""

from __future__ import annotations

import os
import subprocess
import tomllib
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vagrantp_guard import git_dir, protected
from vagrantp_guard.protected import (
    Policy,
    Rule,
    commondir_problem,
    config_problem,
    configured_names,
    gitfile_problem,
    tracked_names,
)

from tests.conftest import EXAMPLES

FREE, NO_LINK, FOLDER, CLOSED = Rule.FREE, Rule.NO_LINK, Rule.FOLDER, Rule.CLOSED
CONFIG, GITFILE, COMMONDIR = Rule.CONFIG, Rule.GITFILE, Rule.COMMONDIR
POLICY = Policy(frozenset(), lambda folder: folder == ("mine.git",))
ENV = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    **{f"GIT_{kind}_NAME": "A" for kind in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{kind}_EMAIL": "a@example.org" for kind in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def rule(path: str) -> Rule:
    return POLICY.rule(parts(path))


def git(folder: Path, *argv: str) -> str:
    argv = ("git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *argv)
    done = subprocess.run(argv, cwd=folder, env=ENV, check=True, capture_output=True, text=True)
    return done.stdout


NAMES = {
    Rule.INDEX: (
        *(".git/index", ".git/modules/a/b/index", ".git/worktrees/w/index"),
        *(".git/sharedindex.0123", ".git/modules/a/b/sharedindex.0123"),
    ),
    Rule.EMPTY: (".git/MERGE_RR", ".git/worktrees/w/MERGE_RR", ".git/modules/a/MERGE_RR"),
    Rule.TODO: (
        *(".git/rebase-merge/git-rebase-todo", ".git/worktrees/w/rebase-merge/git-rebase-todo"),
        *(
            ".git/modules/a/rebase-merge/git-rebase-todo",
            ".git/modules/a/b/rebase-merge/git-rebase-todo",
        ),
    ),
    Rule.STRATEGY: (
        *(".git/rebase-merge/strategy", ".git/sequencer/opts", ".git/modules/a/sequencer/opts"),
    ),
    # git's own state
    GITFILE: (".git", "sub/.git", "a/b/c/.git", "node_modules/x/.git", ".venv/src/x/.git"),
    CONFIG: (
        *(".git/config", ".git/config.worktree", "sub/.git/config", "node_modules/x/.git/config"),
        *(".git/modules/sub/config", ".git/modules/a/b/c/config", ".git/modules/refs/config"),
        *(".git/worktrees/w/config.worktree", ".git/worktrees/w/config"),
        *(".git/modules/a/modules/b/config", ".git/modules/a/worktrees/w/config.worktree"),
        *(".git/worktrees/w/modules/sub/config", ".git/worktrees/w/modules/a/b/config"),
    ),
    COMMONDIR: (".git/worktrees/w/commondir", ".git/modules/a/worktrees/w/commondir"),
    FOLDER: (
        *(".git/hooks", ".git/info", ".git/objects", ".git/refs", ".git/logs", ".git/modules"),
        *(".git/worktrees", ".git/branches", ".git/modules/sub", ".git/worktrees/w"),
        *(".git/modules/a/b/hooks", ".git/worktrees/w/refs", ".git/worktrees/HEAD"),
        # a file or link of this name could make a folder a bare repository
        *("HEAD", "sub/HEAD", "src/head", "node_modules/x/HEAD"),
        # what leads to closed names must not be a link
        *(".vscode", "sub/.idea", ".claude", ".claude/hooks", ".cargo", ".hg", ".jj", ".github"),
        *(".config", "mine.git/hooks", "mine.git/objects"),
    ),
    CLOSED: (
        *(".git/hooks/pre-commit", ".git/hooks/x/y", ".git/hooks/pre-commit.sample/x"),
        *(".git/commondir", ".git/modules/a/commondir", ".git/info/attributes", ".git/remotes/x"),
        *(".git/branches/x", ".git/objects/info/alternates", ".git/objects/info/http-alternates"),
        *(".git/modules/a/hooks/post-checkout", ".git/modules/a/b/hooks/post-checkout"),
        *(".git/modules/a/info/attributes", ".git/modules/a/b/objects/info/alternates"),
        *(".git/worktrees/w/hooks/x", ".git/worktrees/w/modules/a/hooks/x"),
        *(".git/worktrees/w/info/attributes", ".git/worktrees/w/modules/a/commondir"),
        # a git dir in a git dir
        *(".git/x/HEAD", ".git/objects/HEAD", ".git/objects/x/HEAD", ".git/refs/HEAD"),
        *(".git/refs/heads/HEAD", ".git/refs/heads/a/HEAD", ".git/rebase-merge/HEAD"),
        *(".git/refs/remotes/origin/objects", ".git/refs/remotes/origin/objects/x"),
        *(".git/refs/remotes/origin/commondir", ".git/refs/remotes/a/b/objects"),
        *(".git/logs/objects", ".git/logs/commondir", ".git/logs/refs/remotes/o/objects"),
        *(".git/modules/a/refs/heads/HEAD", ".git/modules/a/refs/remotes/o/objects"),
        *(
            ".git/x/.git",
            ".git/x/.git/config",
            ".git/modules/a/.git",
            ".git/refs/heads/.git/config",
        ),
        *(".git/worktrees/w/logs/objects", ".git/worktrees/w/x/HEAD"),
        # other tools' settings in a git dir
        *(".git/lazygit.yml", ".git/glab-cli/config.yml", ".git/branchless/config"),
        *(".git/modules/sub/lazygit.yml", ".git/modules/a/glab-cli/config.yml"),
        # FAT's and NTFS's other name of a file
        *("VSCODE~1/tasks.json", ".vscode/TASKS~1.JSO", ".git/COMMON~1", "CLAUDE~1/hooks/x"),
        # a bare repository of the person's
        *("mine.git/config", "mine.git/hooks/update", "mine.git/info/attributes"),
        *("mine.git/objects/info/alternates", "mine.git/commondir", "mine.git/config.worktree"),
        *("mine.git/worktrees/w/commondir", "mine.git/worktrees/w/config.worktree"),
        # what tools obey
        *(".vscode/settings.json", ".vscode/tasks.json", "packages/web/.vscode/mcp.json"),
        *("all.code-workspace", ".devcontainer/devcontainer.json", ".devcontainer.json"),
        *(".idea/workspace.xml", ".idea/runConfigurations/x.xml", ".zed/settings.json"),
        *(".husky/pre-commit", ".husky/_/pre-commit", ".pre-commit-config.yaml", "lefthook.yml"),
        *(".config/lefthook.toml", ".githooks/pre-push", ".gitconfig", ".lazygit.yml"),
        *(".hg/hgrc", ".jj/repo/config.toml", "_darcs/prefs/defaults", ".mcp.json"),
        *(".claude/settings.json", ".claude/hooks/x.sh", ".cursor/mcp.json", ".codex/config.toml"),
        *(".gemini/settings.json", "opencode.json", ".opencode/plugins/x.ts", ".aider.conf.yml"),
        *(".opencode/node_modules/x/index.js", ".kiro/settings/mcp.json", ".github/hooks/x.json"),
        *("fabfile.py", "sub/fabfile/__init__.py", "fabric.py", "fabric.yaml"),
        *("__pycache__/fabfile.cpython-311.pyc", ".tmuxp.yaml", ".exrc", ".vimrc", ".npmrc"),
        *(".cargo/config", ".cargo/config.toml", "crates/x/.cargo/config.toml"),
    ),
    Rule.INDEX: (".git/index", ".git/modules/a/b/index", ".git/worktrees/w/index"),
    Rule.TODO: (
        ".git/rebase-merge/git-rebase-todo",
        ".git/worktrees/w/rebase-merge/git-rebase-todo",
    ),
    NO_LINK: (
        *(".git/HEAD", ".git/config.lock", ".git/info/exclude", ".git/shallow"),
        *(".git/hooks/pre-commit.sample", ".git/modules/a/hooks/update.sample"),
        *(".git/packed-refs", ".git/FETCH_HEAD", ".git/rebase-merge/done"),
        *(".git/worktrees/w/HEAD", ".git/worktrees/w/gitdir", ".git/modules/a/b/HEAD"),
        *(".git/objects/ab", ".git/objects/ab/cd", ".git/objects/pack/x.pack"),
        *(".git/objects/info/commit-graph", ".git/lfs/objects/ab/cd", ".git/modules/a/b"),
        # branches of any name
        *(".git/refs/heads/config", ".git/refs/heads/hooks/x", ".git/refs/heads/feature/config"),
        *(".git/refs/heads/info/attributes", ".git/refs/heads/modules/a/hooks/x"),
        *(".git/refs/heads/objects", ".git/refs/heads/commondir", ".git/refs/remotes/o/config"),
        *(".git/refs/remotes/origin/HEAD", ".git/logs/refs/remotes/origin/HEAD", ".git/logs/HEAD"),
        *(".git/logs/refs/heads/objects/x", ".git/modules/a/refs/remotes/origin/HEAD"),
        *(".git/modules/a/refs/heads/config", ".git/modules/a/b/logs/refs/heads/hooks/x"),
        *(".git/reftable/tables.list", ".git/worktrees/w/refs/bisect/bad"),
    ),
    FREE: (
        *(
            "README.md",
            "src/main.rs",
            "main.rs~",
            "a.b~1.c",
            "foo_1.0~1.deb",
            "x.~1~",
            "~/x",
            "config",
            "hooks/useState.ts",
            "src/config/hooks/x.py",
        ),
        *("app/tasks.py", "info/attributes", "modules/a/config", "objects/info/alternates"),
        *(".gitignore", ".gitattributes", ".gitmodules", ".github/workflows/ci.yml", "Makefile"),
        *("package.json", "package-lock.json", "pyproject.toml", "manage.py", "tasks.py"),
        *(
            ".envrc",
            ".env",
            "mise.toml",
            ".claude/settings.local.json",
            ".claude/skills/x/SKILL.md",
        ),
        *("CLAUDE.md", "AGENTS.md", ".cursor/rules/x.mdc", ".vscode/extensions.json"),
        *(".vscode/all.code-snippets", "__pycache__/tasks.cpython-311.pyc", "lib/x.iml"),
        *("bin/rails", "config/application.rb", "db/schema.rb", "target/debug/x", "dist/index.js"),
        *("mine.git/refs/heads/main", "mine.git/packed-refs", "mine.git/objects/ab/cd"),
        # packages bring what they like
        *("node_modules/x/.vscode/settings.json", "node_modules/@a/b/.npmrc", "vendor/a/b/.idea/x"),
        *("web/node_modules/x/.husky/pre-commit", "node_modules/x/fabfile.py"),
        *(".venv/lib/python3.11/site-packages/x/fabfile.py", ".venv/src/x/.pre-commit-config.yaml"),
        *("build/_deps/fmt-src/.vscode/x", ".terraform/modules/x/.pre-commit-config.yaml"),
    ),
}
TABLE = [(name, expected) for expected, names in NAMES.items() for name in names]


@pytest.mark.parametrize(("name", "expected"), TABLE, ids=[name for name, _ in TABLE])
def test_rule(name: str, expected: Rule) -> None:
    assert rule(name) is expected


def test_a_persons_module_with_a_name_like_a_part_of_a_git_dir() -> None:
    mine = {parts(".git/modules/Data/objects"), parts(".git/modules/src/hooks/modules/x/logs")}
    policy = Policy(frozenset(), lambda folder: folder in mine)
    for module in (".git/modules/Data/objects", ".git/modules/src/hooks/modules/x/logs"):
        assert policy.rule(parts(f"{module}/config")) is CONFIG
        assert policy.rule(parts(f"{module}/hooks/pre-commit")) is CLOSED
        assert policy.rule(parts(f"{module}/HEAD")) is NO_LINK
        assert policy.rule(parts(f"{module}/refs/heads/config")) is NO_LINK
    assert rule(".git/modules/data/objects/HEAD") is CLOSED  # so no guest makes one


SPELLINGS = (
    *(
        ".git\\config",
        "x\\.GIT",
        ".GIT",
        ".Git",
        ".git.",
        ".git ",
        ".git . .",
        "git~1",
        "GIT~1",
        "git~2",
    ),
    *(".git::$INDEX_ALLOCATION", ".git:x", ".g\u200cit", "\ufeff.git", ".gi\u034ft", ".gi\ufe0ft"),
    *(".ɢit".replace("ɢ", "\uff27"), ".g\u0131t", ".gi\u00adt", "\uff0egit"),
)


@pytest.mark.parametrize("name", SPELLINGS)
def test_another_spelling_of_a_git_dir(name: str) -> None:
    assert rule(name) is CLOSED
    assert rule(f"sub/{name}/HOOKS/x") is CLOSED
    assert rule(f"{name}/Config") is CLOSED
    assert rule(".git/Config") is CLOSED


IGNORED = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\ufe0f\u180e"


FORMS: tuple[Literal["NFC", "NFD", "NFKC"], ...] = ("NFC", "NFD", "NFKC")


def wide(letter: str) -> str:
    """Return a letter's full-width form, which NFKD takes for the same."""
    return chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter


@settings(max_examples=min(EXAMPLES, 1000))
@given(st.sampled_from([n for n, r in TABLE if r in (CLOSED, CONFIG, GITFILE)]), st.data())
@pytest.mark.slow
def test_no_spelling_gets_by(name: str, data: st.DataObject) -> None:
    spelled = []
    for part in parts(name):
        letters = [
            data.draw(st.sampled_from((c, c.upper(), wide(c), c + data.draw(ignorable))))
            for c in part
        ]
        end = data.draw(st.sampled_from(("", "", ".", " ", ". ")))
        spelled.append(
            unicodedata.normalize(data.draw(st.sampled_from(FORMS)), "".join(letters)) + end
        )
    policy = Policy(frozenset(), lambda folder: len(folder) == 1 and folder[0].startswith("m"))
    if not name.startswith("mine.git"):
        assert policy.rule(tuple(spelled)) in (rule(name), CLOSED)


ignorable = st.sampled_from(IGNORED)


PIECES = st.sampled_from(
    sorted({part for name, _ in TABLE for part in parts(name)} | {"x", "mine.git", "a~b", "SRC"})
)


@example(("x", "main"), True)
@example(("SRC",), True)
@given(st.lists(PIECES, min_size=1, max_size=5).map(tuple), st.booleans())
def test_what_is_decided_at_once_is_what_all_rules_say(path: tuple[str, ...], has: bool) -> None:
    configured = frozenset([("src", "tool.py"), ("x",)]) if has else frozenset[tuple[str, ...]]()
    tracked = frozenset([parts(".vscode/settings.json"), parts("x/a.py")])
    policy = Policy(tracked, lambda folder: folder[-1:] == ("mine.git",), configured)
    assert policy.rule(path) is policy.all_rules(path)


def test_names_in_head_are_reported_only() -> None:
    policy = Policy(frozenset([parts(".husky/pre-commit"), parts("x/.claude")]), lambda _: False)
    assert policy.rule(parts(".husky/pre-commit")) is FREE
    assert policy.rule(parts(".husky/pre-push")) is CLOSED
    assert policy.rule(parts("x/.claude")) is FREE  # a link
    assert policy.reported(parts(".husky/pre-commit"))
    assert not policy.reported(parts(".husky/pre-push"))


def test_names_in_head_are_in_a_worktree_as_well() -> None:
    tracked = frozenset([parts(".vscode/settings.json")])
    policy = Policy(tracked, lambda _: False, is_worktree=lambda folder: folder == ("tree",))
    assert policy.rule(parts("tree/.vscode/settings.json")) is FREE
    assert policy.rule(parts("tree/.vscode/tasks.json")) is CLOSED
    assert policy.rule(parts("other/.vscode/settings.json")) is CLOSED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            (n, True)
            for n in (".envrc", "sub/Makefile", ".claude/settings.local.json", "AGENTS.md")
        ),
        *(
            (n, True)
            for n in ("package.json", ".github/workflows/ci.yml", "MAKEFILE", "a/tasks.py")
        ),
        *((n, False) for n in ("README.md", ".git/refs/heads/Makefile", "node_modules/x/Makefile")),
        *((n, False) for n in (".github", ".venv/lib/x/setup.py", ".git/config", ".git")),
    ],
)
def test_reported(name: str, expected: bool) -> None:
    assert POLICY.reported(parts(name)) is expected


def test_each_name_has_a_reason_and_a_source() -> None:
    listed = tomllib.loads(protected.LIST.read_text())
    assert listed.keys() == {"closed", "free", "reported"}
    seen: set[str] = set()
    for entry in (entry for entries in listed.values() for entry in entries):
        assert entry.keys() == {"names", "reason", "source"}
        assert entry["source"].startswith("https://")
        assert 10 < len(entry["reason"]) < 100
        for name in entry["names"]:
            assert name not in seen
            seen.add(name)
            assert "**" not in name.removesuffix("/**")
            assert all(git_dir.fold(part) == part.lower() for part in parts(name))


GITFILES_THAT_LEAD_TO_GIT_DIRS = [
    ("sub/.git", "gitdir: ../.git/modules/sub\n"),
    ("a/b/.git", "gitdir: ../../.git/modules/a/b\n"),
    ("a/b/.git", "gitdir: ../../.git/modules/a/modules/b"),
    ("w/.git", "gitdir: /project/.git/worktrees/w\n"),
    ("w/.git", "gitdir: /project/lib/.git/worktrees/w\n"),
    ("w/sub/.git", "gitdir: ../../.git/worktrees/w/modules/sub\n"),
    (".git", "gitdir: lib/.git/modules/x\n"),
    ("sub/.git", "gitdir: ../.git/modules/hooks\n"),
]


@pytest.mark.parametrize(("name", "content"), GITFILES_THAT_LEAD_TO_GIT_DIRS)
def test_gitfile(name: str, content: str) -> None:
    assert gitfile_problem(content.encode(), parts(name)) == ""


@pytest.mark.parametrize(
    "content",
    [
        *("", "gitdir: ", "gitdir:../.git/modules/x", "x", "gitdir: ../.git/modules/x\nmore"),
        *("gitdir: evil", "gitdir: ../evil", "gitdir: /tmp/evil", "gitdir: /project", "gitdir: ."),
        *("gitdir: ../.git", "gitdir: ../.git/", "gitdir: ../.git/modules", "gitdir: ../.git/x/y"),
        *("gitdir: ../../.git/modules/x", "gitdir: ../x/../../.git/modules/x"),
        *("gitdir: ../.git/modules/../../evil", "gitdir: ../.git/modules/x/.."),
        *("gitdir: ../.git/modules/x/refs/remotes/o", "gitdir: ../.git/modules/x/logs"),
        *("gitdir: ../.git/modules/x/objects/y", "gitdir: ../.git/modules/x/hooks"),
        *("gitdir: ../.git/worktrees/w/refs", "gitdir: ../.git/refs/remotes/o"),
        *(
            "gitdir: ../.git/modules/.git/x",
            "gitdir: ../.GIT/modules/x",
            "gitdir: ../git~1/modules/x",
        ),
        *("gitdir: ~/.git/modules/x/..", "gitdir: /project/../tmp/.git/modules/x"),
        *("gitdir: /projects/.git/modules/x", "gitdir: ../.git/modules/x\0", "gitdir: ../.git//x"),
        f"gitdir: ../.git/modules/{'x' * 5000}",
    ],
)
def test_a_gitfile_that_leads_elsewhere(content: str) -> None:
    assert gitfile_problem(content.encode(), parts("sub/.git"))


def test_commondir() -> None:
    place = parts(".git/worktrees/w/commondir")
    assert commondir_problem(b"../..\n", place) == "" == commondir_problem(b"../..", place)
    for content in (
        b"",
        b"..",
        b"../../..\n",
        b"../../../evil\n",
        b"/tmp/x",
        b"../..\n\n",
        b"../..",
    ):
        assert bool(commondir_problem(content, place)) is (content != b"../..")


@pytest.mark.slow
def test_all_that_git_writes_may_be_written(tmp_path: Path) -> None:
    """A day with git: each version of a config follows on the one before."""
    project, other = tmp_path / "project", tmp_path / "other.git"
    known: dict[Path, bytes] = {}

    def run(*argv: str, at: Path = project) -> None:
        git(at, *argv)
        for path in sorted(project.rglob("*")):
            place = path.relative_to(project).parts
            kind = POLICY.rule(place)
            assert kind is not CLOSED, path
            assert kind in (FREE, NO_LINK, GITFILE, FOLDER) or path.is_file(), path
            assert kind is not FOLDER or path.is_dir(), path
            if path.is_dir():
                continue
            content = path.read_bytes().replace(str(project).encode(), b"/project")
            if kind is CONFIG and known.get(path) != content:
                assert config_problem(known.get(path), content, place) == "", content
            elif kind is GITFILE:
                assert gitfile_problem(content, place) == ""
            elif kind is COMMONDIR:
                assert commondir_problem(content, place) == ""
            known[path] = content

    project.mkdir()
    git(tmp_path, "init", "--bare", str(other))
    run("init")
    (project / "file").write_text("one\n")
    run("add", "file")
    run("commit", "-m", "one")
    run("remote", "add", "origin", str(other))
    run("push", "-u", "origin", "main")
    run("fetch")
    run("remote", "set-head", "origin", "main")
    run("config", "branch.main.description", 'what it\'s "for"; and # more\nin two lines')
    run("config", "remote.origin.tagOpt", "--no-tags")
    run("checkout", "-b", "feature/config", "--track", "origin/main")
    (project / "file").write_text("two\n")
    run("stash")
    run("stash", "pop")
    run("commit", "-am", "two")
    run("rebase", "main")
    run("worktree", "add", "w/inner")
    run("sparse-checkout", "set", "--cone", "w", at=project / "w/inner")
    run("submodule", "add", str(other), "deps/sub")
    run("commit", "-m", "three")
    run("submodule", "update", "--init")
    run("submodule", "deinit", "-f", "deps/sub")
    run("gc")
    run("branch", "-m", "feature/config", "feature/hooks")
    run("remote", "rename", "origin", "upstream")
    run("remote", "remove", "upstream")
    run("worktree", "remove", "--force", "w/inner")
    run("init", "--object-format=sha256", "new")
    run("clone", "-b", "main", str(other), "cloned")
    assert any(".git/modules/deps/sub/config" in str(path) for path in known)
    assert project / ".git/worktrees/inner/commondir" in known


OLD = b"""\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
[include]
\tpath = ../.gitconfig
[remote "origin"]
\turl = git@github.com:a/b.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
\tproxy = http://proxy
[user]
\tname = A
"""
HOSTILE = (
    *("core.fsmonitor=id", "core.hooksPath=.", "core.sshCommand=id", "core.pager=id"),
    *("core.editor=id", "core.attributesFile=x", "core.excludesFile=x", "core.gitProxy=id"),
    *("core.askPass=id", "core.alternateRefsCommand=id", "core.worktree=/", "core.bare=true"),
    *("core.worktree=../..", "core.untrackedCache=true", "core.preloadIndex=x"),
    *("include.path=x", "includeIf.gitdir:/.path=x", "alias.status=!id", "pager.status=id"),
    *("filter.x.clean=id", "filter.x.process=id", "diff.external=id", "diff.x.textconv=id"),
    *("diff.x.command=id", "merge.x.driver=id", "mergetool.x.cmd=id", "difftool.x.cmd=id"),
    *("credential.helper=!id", "credential.https://github.com.helper=!id", "gpg.program=id"),
    *("gpg.ssh.program=id", "url.ext::id.insteadOf=git@github.com:", "sequence.editor=id"),
    *("uploadpack.packObjectsHook=id", "http.proxy=http://evil", "http.sslVerify=false"),
    *("user.signingKey=x", "commit.gpgSign=true", "interactive.diffFilter=id", "help.browser=id"),
    *("browser.x.cmd=id", "man.x.cmd=id", "sendemail.smtpServer=/bin/id", "trailer.x.cmd=id"),
    *("remote.origin.uploadpack=id", "remote.origin.receivepack=id", "remote.origin.vcs=ext"),
    *("remote.origin.pushurl=ext::id", "remote.origin.promisor=true", "remote.pushDefault=x"),
    *("remote.x.url=ext::sh -c id", "remote.x.url=-oProxyCommand=id", "remote.x.url=x::y"),
    *("remote.x.url=ssh://-oProxyCommand=id/x", "remote.x.url=foo://x", "remote.x.url="),
    *("remote.x.url=https://a%0ahost=b/", "remote.x.url=https://a\x1bb", "remote.x.url=a\tb"),
    *("remote.x.fetch=x", "remote.x.fetch=+refs/heads/*", "remote.x.tagOpt=--upload-pack=id"),
    *("branch.main.remote=ext::id", "branch.main.remote=../x", "branch.main.remote=-x"),
    *("branch.main.remote=/tmp/x", "branch.main.merge=x", "branch.main.rebase=!id"),
    *("branch.main.mergeOptions=-s evil", "branch.main.description=\x1b]0;", "branch.x.y=z"),
    *("submodule.x.update=!id", "submodule.x.url=ext::id", "submodule.x.branch=-x"),
    *("submodule.recurse=true", "protocol.ext.allow=always", "safe.bareRepository=all"),
    *("extensions.partialClone=x", "extensions.preciousObjects=true", "extensions.x=true"),
    *("core.repositoryFormatVersion=2", "init.templateDir=x", "maintenance.repo=x", "tig.x=!id"),
    *("lfs.customtransfer.x.path=id", "lfs.url=https://evil", "gui.x=y", "guitool.x.cmd=id"),
)


def changed(tmp_path: Path, old: bytes, *argv: str) -> bytes:
    """Return a config after `git config`."""
    (tmp_path / "config").write_bytes(old)
    git(tmp_path, "config", "--file", "config", *argv)
    return (tmp_path / "config").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("setting", HOSTILE)
def test_hostile_config(tmp_path: Path, setting: str) -> None:
    key, _, value = setting.partition("=")
    new = changed(tmp_path, OLD, "--add", key, value)
    assert config_problem(OLD, new, parts(".git/config"))
    assert config_problem(None, new, parts(".git/config"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        *(("--unset", key) for key in ("include.path", "user.name", "remote.origin.proxy")),
        *(("user.name", "B"), ("include.path", "../other"), ("remote.origin.proxy", "http://evil")),
        *(("--remove-section", "include"), ("--rename-section", "remote.origin", "remote.x")),
    ],
    ids=" ".join,
)
def test_what_the_person_set_stays(tmp_path: Path, argv: tuple[str, ...]) -> None:
    assert config_problem(OLD, changed(tmp_path, OLD, *argv), parts(".git/config"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("remote.x.url", "https://example.org:8443/a/b.git"),
        ("remote.x.url", "ssh://git@example.org/a"),
        ("remote.x.url", "ssh://git@[::1]:22/a"),
        ("remote.x.url", "git@example.org:a/b"),
        ("remote.x.url", "/srv/git/x y.git"),
        ("remote.x.url", "file:///srv/git/x.git"),
        ("remote.x.url", "../other"),
        ("remote.x.url", "./other.git"),
        ("remote.a/b.fetch", "+refs/heads/main:refs/remotes/a/b/main"),
        ("remote.x.fetch", "+refs/pull/*/head:refs/remotes/x/pr/*"),
        ("branch.main.remote", "."),
        ("branch.feature/x#1.remote", "origin"),
        ("branch.feature/x.merge", "refs/heads/feature/größe"),
        ("branch.x.rebase", "interactive"),
        ("branch.x.pushRemote", "my-fork"),
        ("submodule.libs/x.active", "true"),
        ("submodule.libs/x.url", "../x.git"),
        ("submodule.libs/x.update", "rebase"),
        ("submodule.active", "."),
        ("extensions.worktreeConfig", "true"),
        ("core.ignoreCase", "true"),
    ],
)
def test_harmless_config(tmp_path: Path, key: str, value: str) -> None:
    new = changed(tmp_path, OLD, "--add", key, value)
    assert config_problem(OLD, new, parts(".git/config")) == ""
    assert config_problem(new, OLD, parts(".git/config")) == ""


@pytest.mark.parametrize(
    "new",
    [
        *(b"[core", b"[core]\nbare = false\0", b"\xff\xfe[", b"[core]\n\tbare = false\n" * 60_000),
        # what git takes for a harmless value, and another reader may not
        *(
            b"[core] bare = false\n",
            b"[core]\n\tbare = fal\\\nse\n",
            b"[core]\n\tbare = false # x\n",
        ),
        *(b"# [core]\n", b"[core]\r\n\tbare = false\r\n", b"\xef\xbb\xbf[core]\n\tbare = false\n"),
        *(
            b'[branch "x"]\n\tdescription = "\\\n[core]\\\n\tfsmonitor = id"\n',
            b"[remote.x]\nurl\n",
        ),
    ],
)
def test_config_in_an_odd_form(new: bytes) -> None:
    assert config_problem(None, new, parts(".git/config"))


def test_lines_of_the_person_may_have_any_form() -> None:
    old = b"# mine\n[alias] st = status ; x\n[core]\n\tbare = false # no\n"
    new = old + b'[branch "main"]\n\tremote = origin\n'
    assert config_problem(old, new, parts(".git/config")) == ""


@pytest.mark.parametrize(
    ("name", "value", "is_allowed"),
    [
        (".git/modules/sub/config", "../../../sub", True),
        (".git/modules/a/b/config", "../../../../a/b", True),
        ("lib/.git/modules/sub/config", "../../../sub", True),
        ("lib/.git/modules/sub/config", "../../../../sub", True),
        (".git/worktrees/w/modules/sub/config", "../../../../../w/sub", True),
        (".git/config", "../sub", False),
        (".git/worktrees/w/config.worktree", "../../../sub", False),
        *(
            (".git/modules/sub/config", value, False)
            for value in ("../../..", "../../../../x", "/x")
        ),
        *(
            (".git/modules/sub/config", value, False)
            for value in ("../../x", "../../../.git/x", "")
        ),
        *(
            (".git/modules/sub/config", value, False)
            for value in ("../../../x/../../y", "x", "../../../.GIT")
        ),
    ],
)
def test_work_tree_of_a_submodule(tmp_path: Path, name: str, value: str, is_allowed: bool) -> None:
    new = changed(tmp_path, b"", "core.worktree", value)
    assert (config_problem(None, new, parts(name)) == "") is is_allowed


@pytest.mark.slow
def test_tracked_names(tmp_path: Path) -> None:
    inner, project = tmp_path / "inner", tmp_path / "project"
    for folder in (inner, project):
        folder.mkdir()
        git(folder, "init")
        for name in (".husky/pre-commit", ".vscode/extensions.json", "README.md", "HEAD"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        git(folder, "add", ".")
        git(folder, "commit", "-m", "x")
    git(project, "submodule", "add", str(inner), "libs/ü")
    (project / ".claude").symlink_to(".husky")
    (project / "zwei\n").mkdir()
    (project / "zwei\n/.npmrc").touch()
    git(project, "add", ".")
    blob = git(project, "rev-parse", "HEAD:README.md").strip()
    # as a guest can: it commits what it cannot write
    git(project, "update-index", "--add", "--cacheinfo", f"100644,{blob},.vscode/tasks.json")
    git(project, "commit", "-m", "x")
    (project / ".idea").mkdir()
    (project / ".idea/x").touch()  # in the index, and not in HEAD
    git(project, "add", ".idea/x")
    names = (".husky/pre-commit", ".claude", "zwei\n/.npmrc", "libs/ü/.husky/pre-commit")
    assert tracked_names(project) == {parts(name) for name in names}


def test_what_a_config_names_is_closed(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name in ("tools/Hooks/pre-commit", "scripts/clean.py", "src/x", "shared.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    git(tmp_path, "add", "tools", "src", "shared.cfg")
    git(tmp_path, "commit", "-m", "x")
    settings = {
        "core.hooksPath": "tools/Hooks",
        "include.path": "../shared.cfg",
        "includeIf.gitdir:x.path": "extra",
        "filter.x.clean": "python3 'scripts/clean.py' %f",
        "core.attributesFile": "/etc/x",
        "user.name": "src",
    }
    for key, value in settings.items():
        git(tmp_path, "config", key, value)
    configured = configured_names(tmp_path)
    names = ("tools/hooks", "shared.cfg", ".git/extra", "scripts/clean.py")
    assert configured == {parts(name) for name in names}
    policy = Policy(tracked_names(tmp_path), lambda _: False, configured)
    for name in ("tools/Hooks/pre-push", "shared.cfg", ".git/extra", "scripts/clean.py"):
        assert policy.rule(parts(name)) is CLOSED
        assert protected.is_listed(parts(name), configured)
    assert policy.rule(parts("tools/Hooks/pre-commit")) is FREE
    assert policy.reported(parts("tools/Hooks/pre-commit"))
    assert policy.rule(parts("tools")) is FOLDER
    assert policy.rule(parts("scripts/other.py")) is FREE
    assert policy.rule(parts("src/x")) is FREE


def test_a_config_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert configured_names(tmp_path) == frozenset()
    os.mkfifo(tmp_path / ".git/config")
    assert configured_names(tmp_path) == frozenset()


@pytest.mark.slow
def test_tracked_names_of_a_tree_with_odd_names(tmp_path: Path) -> None:
    git(tmp_path, "init", "outside/project")
    project = tmp_path / "outside/project"
    (tmp_path / "outside/.npmrc").touch()
    (tmp_path / "outside/.husky").mkdir()
    (tmp_path / "outside/.husky/x").touch()
    (project / "link").symlink_to("..")
    blob = git(project, "hash-object", "-w", "--stdin", "-t", "blob").strip()
    tree = subprocess.run(
        ("git", "mktree"), cwd=project, env=ENV, check=True, capture_output=True, text=True,
        input=f"100644 blob {blob}\t.npmrc\n",
    ).stdout.strip()  # fmt: skip
    raw = b"".join(
        mode + b" " + name + b"\0" + bytes.fromhex(tree)
        for mode, name in ((b"40000", b".."), (b"40000", b"link"))
    )
    made = subprocess.run(
        ("git", "hash-object", "-w", "--literally", "-t", "tree", "--stdin"),
        cwd=project, env=ENV, check=True, capture_output=True, input=raw,
    ).stdout.decode().strip()  # fmt: skip
    commit = git(project, "commit-tree", made, "-m", "x").strip()
    git(project, "update-ref", "HEAD", commit)
    assert tracked_names(project) == frozenset()


def test_tracked_names_run_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init", "project")
    project = tmp_path / "project"
    (project / ".npmrc").touch()
    git(project, "add", ".")
    git(project, "commit", "-m", "x")
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "alias.ls-tree",
        "core.hooksPath",
    ):
        git(project, "config", key, f"touch {tmp_path}/ran")
    assert tracked_names(project) == {(".npmrc",)}
    assert not (tmp_path / "ran").exists()


def test_tracked_names_without_a_repository(tmp_path: Path) -> None:
    assert tracked_names(tmp_path) == frozenset()
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert tracked_names(tmp_path) == frozenset()
    git(tmp_path, "init", "empty")
    assert tracked_names(tmp_path / "empty") == frozenset()
