"""What a container's cgroup limits, as the kernel has it."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def limits(number: str | int) -> tuple[int | None, float | None]:
    """Return the limits of the container whose first process is `number`.

    Memory in bytes and CPUs, as the kernel enforces them; None for no limit.

    Asked of the cgroup that its first process is in: crun sets the limits of a rootless container
    in one below the one that Podman names.
    """
    try:
        return _limits_in(Path(f"/proc/{number}/cgroup").read_text().splitlines())
    except FileNotFoundError:  # it has just stopped
        return None, None


def _limits_in(lines: list[str]) -> tuple[int | None, float | None]:
    groups = {line.split(":", 2)[1]: line.split(":", 2)[2].lstrip("/") for line in lines}
    if (CGROUP / "cgroup.controllers").exists():
        path = CGROUP / groups[""]
        memory = (path / "memory.max").read_text().strip()
        quota, period = (path / "cpu.max").read_text().split()
    else:  # cgroup v1, where "no limit" is a huge number and -1
        path = CGROUP / "memory" / groups["memory"]
        memory = (path / "memory.limit_in_bytes").read_text().strip()
        named = next(names for names in groups if "cpu" in names.split(","))
        path = CGROUP / named / groups[named]
        quota, period = (
            (path / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
        )
    return (
        None if memory == "max" else int(memory),
        None if quota in ("max", "-1") else int(quota) / int(period),
    )
