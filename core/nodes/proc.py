"""What /proc says of processes and of the host; every function copes with a process that has just gone."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Start of a living process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, seconds; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a tracer: it lives and does nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def resident(pid: int) -> tuple[int, int]:
    """(resident, private) bytes: statm's resident set, and that less the mapped files (RssAnon). 0.02 ms."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return 0, 0
    rss, shared = int(fields[1]) * PAGE, int(fields[2]) * PAGE
    return rss, max(0, rss - shared)


def proportional(pid: int) -> int:
    """PSS in bytes, 0 where it can't be read. 4-5 ms for a 500 MB replica."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0
