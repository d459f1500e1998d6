"""F4: a guest commits a closed file that the person has not, and starts again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from vagrantp_guard.contract import Tracked, tracked_path

from tests.attacks.protect import AGENT
from tests.attacks.protect.folder import Folder
from tests.attacks.protect.guests import Namespaces, mount, state_of

TASKS, SETTINGS = ".vscode/tasks.json", ".vscode/settings.json"


@contextmanager
def guest(folder: Folder, name: str) -> Iterator[Namespaces]:
    target = folder.base / name
    try:
        yield mount(folder, target, folder.base / "lib")
    finally:
        subprocess.run(("umount", "--lazy", target), check=True)


def can_write(guest: Namespaces, name: str) -> bool:
    return guest.run(f'echo >>"$PROJECT/{name}"').returncode == 0


def test_what_a_guest_commits_stays_closed_until_a_person_agrees(folder: Folder) -> None:
    folder.as_person("sh", stdin=f"echo '{{}}' >{TASKS}")
    record = tracked_path(state_of(folder))
    with guest(folder, "first") as first:
        assert can_write(first, SETTINGS) and not can_write(first, TASKS)
        done = first.run(f"{AGENT}\ncd $PROJECT && git add {TASKS} && git commit -qm x {TASKS}")
        assert TASKS in folder.as_person("git", "ls-tree", "-r", "HEAD").stdout, done.stderr
    with guest(folder, "second") as second:
        assert can_write(second, SETTINGS) and not can_write(second, TASKS)
    known = Tracked.from_json(json.loads(record.read_text()))
    assert SETTINGS in known.released and known.since == {TASKS}

    record.write_text(json.dumps(Tracked(known.released | known.since).to_json()))  # up --accept
    with guest(folder, "third") as third:
        assert can_write(third, TASKS)
    record.write_text("{")  # of what cannot be read, nothing is released
    with guest(folder, "fourth") as fourth:
        assert not can_write(fourth, SETTINGS) and not can_write(fourth, TASKS)
