"""What programs/play.py tells of a playbook while it runs: real Ansible, that touches nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vagrantp.commands import PLAY

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=1
    - block:
        - debug: msg=2
        - fail: msg=3
      rescue:
        - debug: msg=uncounted
      always:
        - debug: msg=4
    - include_tasks: included.yml
- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=6
      when: false
"""


def test_tasks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(PLAYBOOK)
    (tmp_path / "included.yml").write_text("- debug: msg=uncounted\n")
    events = tmp_path / "events"
    done = subprocess.run(
        [
            *(sys.executable, PLAY, "/", "", events, ""),
            *("--inventory=guest,", "--connection=local", tmp_path / "site.yml"),
        ],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [event["tasks"] for event in told if "tasks" in event] == [[n, 6] for n in range(1, 7)]
