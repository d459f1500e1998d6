"""The person's folder: made, looked at as the person does, and what of it no guest may change."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.attacks.protect import HERE

PERSON = 12345
PATIENCE = 30  # seconds that a program of theirs has …
HOUR = 1200  # … and all of what they do in look.py
TREES = ("", "tree/", "agent-tree/", "t-added/")  # what is tracked is in all of them
LOOKED_FOR = re.compile(rb"canary[ -]([\w-]+)")
CANARY = '#!/bin/sh\ntouch "$CANARIES/$1"\n'
# Below any git dir, its paths by their folded names.
OF_GIT = re.compile(
    r"(.*/)?\.git(|(/(modules|worktrees)/((?!/(refs|logs|objects)/).)+)?"
    r"/(config|config\.worktree|commondir|info/attributes|objects/info/(http-)?alternates"
    r"|hooks|hooks/.*(?<!\.sample)))"
)
# Where a `.git` that is a file may lead to: a git dir that is closed as well.
LINKED = re.compile(r"(.*/)?\.git/(modules|worktrees)(/(?!(refs|logs|objects|\.\.)/)[^/]+)+")
# What git itself writes into the configuration of a new repository, submodule, worktree or branch.
HARMLESS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates)\n\w+|core\.worktree\n(\.\./)+\w+"
    r"|remote\.[^.]+\.(url\n(?!-|.*::)|fetch\n).*|branch\.[^\n]+\n(?!-|.*::).*"
    r"|submodule\..*\.(url\n(?!-|.*::)|active\n).*|extensions\.worktreeconfig\n.*"
)


@dataclass(frozen=True)
class Folder:
    """A person's folder `app` in `base`, and what is outside of it: a remote, a home, canaries."""

    base: Path

    @property
    def project(self) -> Path:
        """Return what a guest gets."""
        return self.base / "app"

    @property
    def home(self) -> Path:
        """Return the person's home, of which the guest knows the path."""
        return self.base / "home"

    @property
    def environment(self) -> dict[str, str]:
        """Return what a guest knows of the host."""
        return {"HOST_PROJECT": str(self.project), "HOST_HOME": str(self.home)}

    def as_person(
        self, *argv: str, cwd: Path | None = None, stdin: str = "", seconds: int = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the person's. What waits, as git does for a FIFO, is killed.

        Nothing that it starts outlives it. `seconds`: how long all of that may take.
        """
        ends = ("timeout", "--signal=KILL", str(seconds))
        alone = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
        person = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups")
        return subprocess.run(
            (*ends, *alone, *person, *argv),
            cwd=cwd or self.project,
            env={
                "HOME": str(self.home),
                "PATH": f"{self.base}/bin:/usr/local/bin:/usr/bin:/bin",
                "CANARIES": str(self.base / "canaries"),
                "LC_ALL": "C.UTF-8",
                "GIT_TERMINAL_PROMPT": "0",
                "TERM": "dumb",
                "EDITOR": "true",  # git's own configuration has another one first
                "PAGER": "cat",
            },
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def prepare(self) -> Folder:
        """Make all of it, in a folder that others may pass."""
        for path in (self.base, self.project, self.home, self.base / "bin", self.base / "canaries"):
            path.mkdir(exist_ok=True)
            os.chown(path, PERSON, PERSON)
        for name, text in {"canary": CANARY, "ssh": "#!/bin/sh\nexit 255\n"}.items():
            (self.base / "bin" / name).write_text(text)
            (self.base / "bin" / name).chmod(0o755)
        done = self.as_person("sh", cwd=self.base, stdin=(HERE / "prepare.sh").read_text())
        assert done.returncode == 0, done.stderr
        return self

    def look(self) -> set[str]:
        """Do what a person does there, and return the names of the canaries that ran."""
        look = (HERE / "look.py").read_text()
        done = self.as_person("python3", "-", str(self.project), stdin=look, seconds=HOUR)
        assert done.returncode == 0, done.stderr
        return {path.name for path in (self.base / "canaries").iterdir()} | left_in(self.home)

    def obeyed(self, kind: str) -> set[str]:
        """Return the canaries in files that other programs obey: `kind` "closed" or "reported"."""
        found: set[str] = set()
        for path in self.paths():
            if kind in kinds(path) and (self.project / path).is_file():
                found |= canaries((self.project / path).read_bytes())
        return found

    def paths(self) -> list[str]:
        """Return the paths of all there is in the project.

        A link to a folder is followed for files that only its path makes obeyed.
        """
        found = []
        for folder, folders, files in os.walk(self.project):
            at = os.path.relpath(folder, self.project)
            found += [os.path.normpath(f"{at}/{name}") for name in (*folders, *files)]
            links = [Path(folder, name) for name in folders if Path(folder, name).is_symlink()]
            found += [path for link in links for path in self._paths_by(link)]
        return sorted(found)

    def _paths_by(self, link: Path) -> Iterator[str]:
        """Yield the paths by a link to a folder, of files that only these make obeyed."""
        target = link.resolve()
        if not target.is_relative_to(self.project):
            return
        for folder, _, files in os.walk(target):
            for there in (Path(folder, name) for name in files):
                path = os.path.relpath(link / there.relative_to(target), self.project)
                if kinds(path) - kinds(os.path.relpath(there, self.project)):
                    yield path

    def closed(self) -> dict[str, str]:
        """Return what is at each closed path, but for what is tracked: that is reported.

        The remote says what is tracked: no guest gets there.
        """
        asked = ("git", "ls-tree", "-rz", "--name-only", "v1")
        names = self.as_person(*asked, cwd=self.base / "origin.git").stdout.split("\0")
        assert "src/file" in names
        tracked = {f"{tree}{name}" for tree in TREES for name in names}
        found = {}
        for path in self.paths():
            is_folder = (self.project / path).is_dir()
            if is_of_git(path) or ("closed" in kinds(path) and not is_folder):
                found[path] = self.content(path)
        return {path: content for path, content in found.items() if path not in tracked}

    def content(self, path: str) -> str:
        """Return what is at a path, links not followed; of git's configuration, what may run."""
        there = self.project / path
        facts = there.lstat()
        kind = stat.filemode(facts.st_mode)
        if stat.S_ISLNK(facts.st_mode):
            return f"{kind} {there.readlink()}"
        if not stat.S_ISREG(facts.st_mode):
            return kind
        if there.name == "config":
            asked = ("git", "config", "-zf", str(there), "--list")
            done = self.as_person(*asked, cwd=self.base)  # else git reads that of the project, too
            keys = [pair for pair in done.stdout.split("\0") if not HARMLESS.fullmatch(pair)]
            return f"{kind} {done.returncode} {keys}"
        return f"{kind} {hashlib.sha256(there.read_bytes()).hexdigest()}"

    def is_harmless(self, path: str) -> bool:
        """Return whether a closed path that appeared is what git itself makes there."""
        there, name = self.project / path, path.rpartition("/")[2]
        if there.is_symlink() or not is_spelled_by_git(path):
            return False
        if there.is_dir():
            return name in (".git", "hooks")
        if not there.is_file():  # a FIFO, say: whoever reads that waits
            return False
        if name == "config":
            return self.content(path).endswith(" 0 ['']")
        if name == ".git":
            leads_to = re.sub(
                "^/project/", f"{self.project}/", there.read_text()[len("gitdir: ") :]
            )
            at = os.path.relpath(there.parent / leads_to.strip(), self.project)
            return not leads_to or bool(LINKED.fullmatch(at))
        return name == "commondir" and there.read_text().strip() in ("", "../..")


@cache
def globs() -> dict[str, re.Pattern[str]]:
    """Return what obeyed.toml has, as patterns of folded paths."""
    found = {}
    for kind, programs in tomllib.loads((HERE / "obeyed.toml").read_text()).items():
        each = [glob for globs in programs.values() for glob in globs]
        texts = (re.escape(g).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") for g in each)
        found[kind] = re.compile(rf"(.*/)?({'|'.join(texts)})")
    return found


def folded(path: str) -> str:
    """Return a path as file systems that ignore case and some characters understand it."""
    decomposed = unicodedata.normalize("NFKD", path).casefold()
    text = "".join(each for each in decomposed if unicodedata.category(each) != "Cf")
    text = re.sub(r"::\$index_allocation", "", text.replace("git~1", ".git"))
    return re.sub(r"(?<=\w)[. ]+(?=/|$)", "", text)


def kinds(path: str) -> set[str]:
    """Return in which parts of obeyed.toml a path is; below node_modules nobody opens such."""
    if "node_modules" in path.split("/"):
        return set()
    return {kind for kind, pattern in globs().items() if pattern.fullmatch(folded(path))}


def is_of_git(path: str) -> bool:
    """Return whether git obeys a path: in a git dir, or as one that is bare."""
    is_inside = ".git" in folded(path).split("/")
    is_head = not is_inside and path.rpartition("/")[2].casefold() == "head"
    return is_head or bool(OF_GIT.fullmatch(folded(path)))


def is_spelled_by_git(path: str) -> bool:
    """Return whether git itself spells a path this way."""
    return bool(OF_GIT.fullmatch(path))


def canaries(data: bytes) -> set[str]:
    """Return the names of the canaries that something would run."""
    return {name.decode() for name in LOOKED_FOR.findall(data)}


def left_in(home: Path) -> set[str]:
    """Return the canaries that the host's own programs wrote into the home: a shell obeys them."""
    found: set[str] = set()
    for path in (*home.glob(".canary-*"), home / ".profile"):
        found |= canaries(path.name.encode())
        if path.is_file():
            found |= canaries(path.read_bytes())
    return found


def changed(before: dict[str, str], folder: Folder) -> list[str]:
    """Return which closed paths changed, vanished, or appeared with what git does not make."""
    after = folder.closed()
    return sorted(
        path
        for path in {*before, *after}
        if before.get(path) != after.get(path)
        if path in before or not folder.is_harmless(path)
    )
