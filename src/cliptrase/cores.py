"""How many cores this process may keep busy: a container's quota counts, not only its affinity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cores() -> int:
    """Cores that this process may use, 1 or more.

    Those of its affinity, or fewer where a control group allows less of their time (`docker run
    --cpus 2`, a Kubernetes limit): 1.5 cores count as one.
    """
    pinned, quota = len(os.sched_getaffinity(0)), cpu_quota()
    return pinned if quota is None else max(1, min(pinned, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many cores' worth of time the control groups of this process allow; None: all.

    The least of what its own group and those above say, in version 1 or 2. `root`: of the files.
    """
    quotas = [_quota(folder) for folder in _groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, as far as they can be seen from here.

    In a container the own group is what is mounted, whatever name it has outside.
    """
    own = {}  # controllers → path; version 2 has no controllers here
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    for line in _lines(root / "proc/self/mounts"):
        _, mount, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            paths = [own.get("", "/")]
        elif kind == "cgroup" and "cpu" in options.split(","):
            paths = [path for names, path in own.items() if "cpu" in names.split(",")]
        else:
            continue
        for path in paths:
            group = Path(path.lstrip("/"))
            yield from (root / mount.lstrip("/") / one for one in (group, *group.parents))


def _quota(group: Path) -> float | None:
    """The cores of one group by cpu.max (version 2) or cpu.cfs_quota_us (1); None: no limit."""
    said = " ".join(_lines(group / "cpu.max")).split()
    if not said:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        said = [line for name in names for line in _lines(group / name)]
    try:
        quota, period = map(int, said)  # "max" is no number
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
