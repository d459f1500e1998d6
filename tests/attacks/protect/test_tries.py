"""F4: what root in a guest writes into the folder, and what the person's programs obey of it.

The tries are in tries/*.toml; README.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.attacks.protect import TRIES, Try, in_one_go
from tests.attacks.protect.day import day
from tests.attacks.protect.folder import Folder, changed
from tests.attacks.protect.guests import Guest, Namespaces, Plain, mount_by_user


def attack(folder: Folder, guest: Guest) -> None:
    """Let root of a guest try everything, one after another: nothing runs, nothing changed."""
    before = folder.closed()
    done = guest.run(in_one_go(TRIES, folder.environment))
    assert done.returncode == 0, done.stderr
    for place in (".", "sub", "tree", "nested", "merging", "rebasing"):
        works = folder.as_person("git", "-C", place, "status")
        assert works.returncode == 0, (place, works.stderr)
    problems = {
        "changed": changed(before, folder),
        "obeyed": sorted(folder.obeyed("closed")),
        "ran": sorted(folder.look()),
    }
    assert problems == {"changed": [], "obeyed": [], "ran": []}


def test_nothing_that_a_guest_writes_is_obeyed(folder: Folder, shared_folder: Namespaces) -> None:
    attack(folder, shared_folder)


@pytest.mark.soak
@pytest.mark.parametrize("what", [attack, day])
def test_in_a_users_container(folder: Folder, what: Callable[[Folder, Guest], None]) -> None:
    with mount_by_user(folder, folder.base / "own", folder.base / "lib") as guest:
        what(folder, guest)


@pytest.mark.soak
def test_each_try_is_one(base: Path) -> None:
    """Without protection it runs, or changes what is obeyed, on this very host."""

    def has_effect(each: Try) -> bool:
        folder = Folder(base / each.name).prepare()
        before = folder.closed()
        Plain(folder).run(in_one_go([each], folder.environment))
        if changed(before, folder) or folder.obeyed("closed") or folder.obeyed("reported"):
            return True
        return bool(folder.look())  # last: where git waits for a FIFO, it takes minutes

    with ThreadPoolExecutor(2) as pool:
        assert [
            t.name for t, has in zip(TRIES, pool.map(has_effect, TRIES), strict=True) if not has
        ] == []
