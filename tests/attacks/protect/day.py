"""A day in which an agent in the guest and the person on the host work in one repository."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import sleep

from tests.attacks.protect import AGENT, HERE
from tests.attacks.protect.folder import Folder, changed
from tests.attacks.protect.guests import Guest

# What the two made, beside what the person had; the agent's commit takes up what was begun.
NEW = {"?? agent-tree/", "?? made/"}
BEGUN = " M src/file"


def day(folder: Folder, guest: Guest) -> None:
    """Let both work at the same time; afterwards both see the same, and nothing else is there."""
    before, status = folder.closed(), untracked(folder)
    in_guest = AGENT + (HERE / "day-guest.sh").read_text()
    on_host = (HERE / "day-host.sh").read_text()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(guest.run, in_guest)
        rounds = 0
        while rounds == 0 or not running.done():
            done = folder.as_person("sh", stdin=on_host)
            assert done.returncode == 0, (done.stderr, running.result().stderr)
            rounds += 1
            sleep(0.2)
        agent = running.result()
    assert agent.returncode == 0, agent.stderr
    assert rounds > 1

    for place in (".", "sub", "late", "added", "tree", "made"):
        done = folder.as_person("git", "-C", place, "fsck", "--strict")
        assert done.returncode == 0, (place, done.stderr)
    done = guest.run(f"{AGENT}\ncd $PROJECT && git fsck --strict >&2 && git for-each-ref")
    assert done.returncode == 0, done.stderr
    refs = folder.as_person("git", "for-each-ref").stdout
    assert done.stdout == refs, (done.stdout, refs)
    for name in ("work", "picked", "based", "aside", "agent/work", "seen"):
        assert f"/{name}\n" in refs
    assert "renamed" not in refs and "older" not in refs
    assert untracked(folder) == status - {BEGUN} | NEW, untracked(folder)
    others = [path for path in changed(before, folder) if path != ".git/config"]
    assert not others, others
    keys = folder.as_person("git", "config", "--local", "--get-regexp", r"^(branch\.work|remote)\.")
    assert "branch.work.remote agent\n" in keys.stdout
    assert folder.as_person("git", "lg").returncode == 0  # the person's alias and comment stay
    assert "# kept by hand: a comment" in (folder.project / ".git/config").read_text()
    ran = folder.look()
    assert not ran, ran


def untracked(folder: Folder) -> set[str]:
    """Return what `git status` shows, vagrantp's files among it."""
    done = folder.as_person("git", "status", "--porcelain", "--ignored")
    return {*done.stdout.splitlines()}
