"""Nodes: what a host is, and what was measured on it."""

from __future__ import annotations

from core.nouns.base import Noun


class NodeFacts(Noun, frozen=True, kw_only=True):
    """What a host is; -1 or "" where it cannot be known."""

    name: str
    boot_id: str
    machine: str
    """x86_64, aarch64"""
    system: str
    cores: int
    """Usable: the affinity mask and the cgroup's quota, whichever is smaller, rounded down, at least 1."""
    memory_bytes: int
    cpus: int = 1
    """In the affinity mask, quotas aside: programs start so many threads of their own accord."""
    python: str = ""
    cpu_model: str = ""
    avx2: bool = True
    gpus: tuple[str, ...] = ()


class NodeLabels(Noun, frozen=True, kw_only=True):
    """What people call a node by."""

    node: str
    labels: dict[str, str]
    """zone: secure"""


class NodeSample(Noun, frozen=True, kw_only=True):
    """One look at a host."""

    time: float
    node: str
    cpu_percent: float
    """Of all cores together, 0-100."""
    load1: float
    memory_bytes: int
    free_bytes: int
    """The smallest of MemAvailable and of what every cgroup above us leaves."""
    pressure: float
    """PSI memory some avg10, -1 where the kernel has none."""
    disk_free_bytes: int
    disk_bytes: int
    """What is used and what may be, as df counts it: without what the file system keeps for root."""


class ProcessSample(Noun, frozen=True, kw_only=True):
    """One look at one launch; `pss_bytes` is the last one measured (every 30 s and on demand)."""

    time: float
    launch: str
    cpu_percent: float
    """Of one core: 150 is one and a half cores."""
    rss_bytes: int
    anon_bytes: int
    pss_bytes: int = 0
    stopped: bool = False
    """By a signal or a tracer: it lives and does nothing."""


class Counters(Noun, frozen=True, kw_only=True):
    """What an engine counted since it started; None where it does not say."""

    time: float
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None
    slots_busy: int | None = None
    queued: int | None = None
