"""Reports to vagrantp what a playbook did, one JSON object a line.

`{"tasks": [number, total]}` as each task starts; `{"failed": …}` for each one that failed: play,
task, place (file:line) and message; `{"nobody": text}` for a play that matched no host; at the end
`{"counts": …}`: how many tasks were ok and changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

EVENTS = Path("/run/vagrantp/events")
Theirs = Any  # ansible has no types
DOCUMENTATION = """
    name: vagrantp
    type: notification
    short_description: reports to vagrantp what a playbook did
    description: see the module
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible calls its methods."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "vagrantp"

    def __init__(self) -> None:
        super().__init__()
        self._play = self._place = ""
        self._to_do: set[str] = set()
        self._total = 0
        self._items: dict[str, str] = {}  # why the first one failed, by task

    def v2_playbook_on_start(self, playbook: Theirs) -> None:
        """Count the tasks, without those that are included only while it runs."""
        blocks = [block for play in playbook.get_plays() for block in play.compile()]
        self._to_do = {task._uuid for task in _tasks(blocks) if not task.implicit}
        self._total = len(self._to_do)

    def v2_playbook_on_task_start(self, task: Theirs, is_conditional: bool) -> None:
        """Report which of the tasks starts."""
        if task._uuid in self._to_do:
            self._to_do.remove(task._uuid)
            self._report({"tasks": [self._total - len(self._to_do), self._total]})

    def v2_playbook_on_play_start(self, play: Theirs) -> None:
        """Take note of the play."""
        self._play, self._place = play.get_name(), play.get_path()

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Report that the play matches no host, which Ansible takes for success."""
        self._report({"nobody": f'play "{self._play}" ({self._place}): no host matched'})

    def v2_runner_item_on_failed(self, result: Theirs) -> None:
        """Remember why a loop's item failed: since ansible-core 2.21 the task does not say so."""
        task, found = _parts(result)
        self._items.setdefault(task._uuid, _message(found))

    def v2_runner_on_failed(self, result: Theirs, ignore_errors: bool = False) -> None:
        """Report a failure that counts."""
        if not ignore_errors:
            self._report_failure(result)

    def v2_runner_on_unreachable(self, result: Theirs) -> None:
        """Report that ssh failed."""
        self._report_failure(result)

    def v2_playbook_on_stats(self, stats: Theirs) -> None:
        """Report the counts, of all hosts together."""
        found = [stats.summarize(host) for host in stats.processed]
        counts = {kind: sum(host[kind] for host in found) for kind in ("ok", "changed")}
        self._report({"counts": counts})

    def _report_failure(self, result: Theirs) -> None:
        task, found = _parts(result)
        failure = {
            "play": self._play,
            "task": task.get_name(),
            "place": task.get_path() or "",
            "message": self._items.get(task._uuid) or _message(found),
        }
        self._report({"failed": failure})

    def _report(self, event: dict[str, Any]) -> None:
        with EVENTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def _parts(result: Theirs) -> tuple[Theirs, dict[str, Any]]:
    """Return the task of a result, and what it found; before 2.19 under other names."""
    task = getattr(result, "task", None) or result._task
    return task, getattr(result, "result", None) or result._result


def _tasks(blocks: list[Theirs]) -> Iterator[Theirs]:
    """Yield the tasks of blocks and of those within them, but for what is done after a failure."""
    for block in blocks:
        if hasattr(block, "block"):
            yield from _tasks([*block.block, *block.always])
        else:
            yield block


def _message(found: dict[str, Any]) -> str:
    """Return why a task failed: its message, and the last line that a command printed."""
    texts = [str(found.get("msg") or found.get("censored") or "")]
    if "rc" in found:
        said = str(found.get("stderr") or found.get("stdout") or "").strip().splitlines()
        texts += [f"exit status {found['rc']}", *said[-1:]]
    return ": ".join(text for text in texts if text) or "no reason given"
