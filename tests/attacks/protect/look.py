"""The person's hour on the host, in a folder that a guest wrote: what it obeys runs now.

It runs as the person, with the project as its argument. A canary that runs leaves its name.
"""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

# In the project; a line of a shell each. `script` gives a terminal, for git's pager.
EVERYWHERE = """\
find . -name index.lock -delete
git status --porcelain=v2 --branch
git checkout --quiet .
git diff
git log --max-count 1
git lg
git branch --all
git commit --quiet --all --allow-empty --message look
"""
AT_THE_TOP = """\
git for-each-ref --format='%(refname:short)' refs/heads | xargs -n1 -d'\\n' git checkout --quiet
git checkout --quiet main
git merge --quiet --no-edit --no-ff side
git merge --quiet --no-edit --no-ff names
git status
git diff HEAD~2
git log -p --max-count 2 --show-signature
script --quiet --command 'git log' /dev/null
script --quiet --command 'git branch' /dev/null
echo mine >>src/file
printf 'n\\nq\\n' | git add --patch
git stash
git stash pop
git commit --quiet --amend --all --allow-empty
git commit --quiet --allow-empty --message look --trailer seen=me
git rebase --quiet --interactive HEAD~1
git difftool --no-prompt HEAD~3
git help log
git archive --format=t HEAD
printf 'protocol=https\\nhost=example.test\\n\\n' | git credential fill
git fetch origin
git fetch backup
git fetch daemon
git pull --quiet --no-rebase
git push --quiet --force origin HEAD:refs/heads/look
git submodule status
git worktree list
git pack-refs --all
git -C rebasing rebase --continue
git -C merging commit --quiet --no-edit
git -C merging commit --quiet --allow-empty --message look
bash -i -c true
bash -l -c true
"""


def folds_to_git(name: str) -> bool:
    """Return whether any file system takes a name for `.git`."""
    return unicodedata.normalize("NFKC", name).casefold().startswith((".g", "git"))


def repositories(top: Path) -> list[str]:
    """Return the folders that hold a `.git`, and those that could be one themselves."""
    found = []
    for folder, folders, files in os.walk(top):
        if any(name == "HEAD" or folds_to_git(name) for name in (*folders, *files)):
            found.append(folder)
    return sorted(found)


def run(line: str, folder: str) -> None:
    """Run a line of a shell there; how it ends is of no interest."""
    argv, nothing = ("timeout", "--kill-after=1", "9", "sh", "-c", line), subprocess.DEVNULL
    try:
        subprocess.run(
            argv, cwd=folder, stdin=nothing, capture_output=True, timeout=20, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        print(f"{line} in {folder}: {error}")


top = Path(sys.argv[1])
for line in ("git submodule update --force\n" + EVERYWHERE + AT_THE_TOP).splitlines():
    run(line, str(top))
for each in repositories(top):
    run(EVERYWHERE, each)
