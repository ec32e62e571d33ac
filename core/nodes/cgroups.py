"""What is free on this host within every cgroup limit above us, and how many cores may be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return None if text == "max" or not text.isdecimal() else int(text)


def _folders(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """(folder, is v2) from our own cgroup up to the root, for a controller."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "":
            base, v2 = (root / "unified" if (root / "unified").is_dir() else root), True
        elif controller in names.split(","):
            base, v2 = root / controller, False
        else:
            continue
        here = base / path.lstrip("/")
        while here.is_relative_to(base):
            yield here, v2
            if here == base:
                break
            here = here.parent


def memory_left(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that the tightest cgroup above us leaves; its reclaimable page cache counts as free. Above memory.high the
    kernel does not kill but holds a process up for good, so that it is a limit like memory.max."""
    left = UNLIMITED
    for folder, v2 in _folders("memory", root, own):
        names = ("memory.max", "memory.high") if v2 else ("memory.limit_in_bytes",)
        limit = min((found for name in names if (found := _number(folder / name)) is not None), default=UNLIMITED)
        used = _number(folder / ("memory.current" if v2 else "memory.usage_in_bytes"))
        if used is None or limit >= UNLIMITED:
            continue
        cache = 0
        try:
            for line in (folder / "memory.stat").read_text().splitlines():
                name, _, value = line.partition(" ")
                if name in (("inactive_file", "active_file") if v2 else ("total_inactive_file", "total_active_file")):
                    cache += int(value)
        except (OSError, ValueError):
            cache = 0
        left = min(left, max(0, limit - used + cache))
    return left


def cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Usable cores: the affinity mask and every quota above us, rounded down, at least 1."""
    usable = float(len(os.sched_getaffinity(0)))
    for folder, v2 in _folders("cpu", root, own):
        if v2:
            try:
                quota, period = (folder / "cpu.max").read_text().split()
            except (OSError, ValueError):
                continue
            if quota != "max":
                usable = min(usable, int(quota) / int(period))
        else:
            quota_us = _number(folder / "cpu.cfs_quota_us")
            period_us = _number(folder / "cpu.cfs_period_us")
            if quota_us and period_us:
                usable = min(usable, quota_us / period_us)
    return max(1, int(usable))
