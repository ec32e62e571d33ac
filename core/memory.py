"""What keeps memory off the disk: no core dumps, and no swapping where the host lets us. For daemon and gateway."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

PR_SET_DUMPABLE = 4
CAP_IPC_LOCK = 14
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE, SPARE = 1 << 20, 16 << 20
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
SWAPS, CGROUP, CGROUPS = Path("/proc/swaps"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
LIMIT = "LimitMEMLOCK=infinity"
"""Of a systemd unit; `ulimit -l unlimited` elsewhere."""


def no_dumps() -> None:
    """No core dump of this process, and no debugger of its user reads its memory. The limit is 1 byte and not 0: a
    program that core_pattern names (systemd-coredump, apport) is given the memory whatever the limit is, but for 1.

    The files below /proc/self belong to root from now on; what this process itself reads there it still may. Whoever
    looks at it from outside sees its state and its memory in pages, but not smaps or environ.
    """
    with contextlib.suppress(OSError, ValueError):
        most = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1  # unlimited is -1
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_back() -> None:
    """Have blocks of `LARGE` bytes and more given back to the host when they are freed, each by itself, and of the heap
    what is free at its end beyond `SPARE`. glibc does so with the first alone: from then on it puts blocks of that size
    (up to 32 MiB) into the heap, where they stay while anything lies above them. Another libc goes on as it does."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, SPARE)


def keep_in_memory() -> str:
    """Have the kernel swap nothing of this process out; why it may all the same, "" if it will not.

    Locked is what was touched (MCL_ONFAULT): it costs no memory. It is tried only where no limit on it holds: with one,
    the process would die of an allocation that goes over it.
    """
    if why_not := may_swap():
        with contextlib.suppress(OSError, ValueError):  # root may lift it
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        if hard != resource.RLIM_INFINITY and not _may_lock_all():
            return f"{why_not}, and it may lock {hard >> 10} KiB only ({LIMIT} lifts that)"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0:
                return ""
            return f"{why_not}, and the kernel did not lock it ({os.strerror(ctypes.get_errno())})"
        return f"{why_not}, and it could not be locked"
    return ""


def _may_lock_all() -> bool:
    """Whether limits do not hold against this process: it has CAP_IPC_LOCK (root of a container may have no more)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_IPC_LOCK & 1)
    return False


def may_swap(swaps: Path = SWAPS, own: Path = CGROUP, root: Path = CGROUPS) -> str:
    """Whether the host would swap this process out, as a sentence; "" where it has no swap or a cgroup forbids it."""
    try:
        if len(swaps.read_text().splitlines()) < 2:
            return ""
        lines = own.read_text().splitlines()
    except OSError:
        return "it is not known whether this host swaps"
    for line in lines:
        _, names, path = line.split(":", 2)
        if names:
            continue
        here = root / path.lstrip("/")
        while here != root and here.is_relative_to(root):
            with contextlib.suppress(OSError):
                if (here / "memory.swap.max").read_text().strip() == "0":
                    return ""
            here = here.parent
    return "this host swaps"
