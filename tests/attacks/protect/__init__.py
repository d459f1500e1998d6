"""F4: root in a guest against the project folder, and the person who works in it afterwards."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

HERE = Path(__file__).parent
SECONDS = 5  # that a try has: one that waits for a FIFO has no end of its own


@dataclass(frozen=True)
class Try:
    """What root in a guest tries. `is_python`: of its script; else it is one of sh(1)."""

    name: str
    kind: str
    origin: str
    script: str
    is_python: bool


def _tries() -> list[Try]:
    found = []
    for path in sorted((HERE / "tries").glob("*.toml")):
        for name, each in tomllib.loads(path.read_text()).items():
            script = each.get("python") or each["sh"]
            found.append(Try(name, path.stem, each["origin"], script, "python" in each))
    return found


TRIES = _tries()
AGENT = (HERE / "agent.sh").read_text()


def in_one_go(tries: Iterable[Try], environment: dict[str, str]) -> str:
    """Return a script for the guest that tries all of them, each in a process of its own."""
    lines = [AGENT]
    lines += [f"export {name}={quote(value)}" for name, value in environment.items()]
    for name in ("prelude.sh", "prelude.py"):
        text = (HERE / name).read_text()
        lines.append(f'cat >"$SCRATCH/{name}" <<\\END_OF_FILE\n{text}END_OF_FILE')
    for each in tries:
        interpreter = 'PYTHONPATH="$SCRATCH" python3' if each.is_python else "sh"
        prelude = "from prelude import *" if each.is_python else '. "$SCRATCH/prelude.sh"'
        lines.append(
            f'(cd "$SCRATCH"; TRY={each.name} timeout --kill-after=1 {SECONDS} env {interpreter} -'
            f" <<\\END_OF_TRY\n{prelude}\n{each.script}\nEND_OF_TRY\n"
            f') >>"$SCRATCH/log" 2>&1 || echo {each.name}'
        )
    return "\n".join((*lines, ""))
