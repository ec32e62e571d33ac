"""Admission: what is free on a host, beside the host's reserve and what replicas hold but have not touched."""

from __future__ import annotations

from collections.abc import Sequence

from core.nouns import NodeFacts, NodeSample, Noun
from core.settings import CapacityTable


class Room(Noun, frozen=True, kw_only=True):
    """Bytes. `left` is what a new replica's plan may take."""

    free_bytes: int
    reserve_bytes: int
    reserved_bytes: int

    @property
    def left(self) -> int:
        return self.free_bytes - self.reserve_bytes - self.reserved_bytes


class Holding(Noun, frozen=True, kw_only=True):
    """What one replica holds: its reservation and how much of it is touched (bytes).

    Mapped weights are clean page cache, which the kernel counts as available: only private memory is touched.
    """

    plan_bytes: int
    anon_bytes: int


def default_reserve(memory_bytes: int) -> int:
    """Memory kept for the host: a tenth, at least 512 MiB, at most 8 GiB."""
    return min(max(memory_bytes // 10, 512 << 20), 8 << 30)


def room(sample: NodeSample, table: CapacityTable, holdings: Sequence[Holding]) -> Room:
    """What is left on the host now."""
    return Room(
        free_bytes=sample.free_bytes,
        reserve_bytes=table.reserve_bytes or default_reserve(sample.memory_bytes),
        reserved_bytes=sum(max(0, held.plan_bytes - held.anon_bytes) for held in holdings),
    )


def threads_for(facts: NodeFacts, table: CapacityTable, running: int) -> int:
    """Threads of one more replica beside `running` others: usable cores less one, shared among them.

    As many threads as cores beside one busy process collapsed decoding from 65 to some 5 tokens/s (measured).
    """
    cores = table.threads or max(1, facts.cores - 1)
    return max(1, min(cores, facts.cores) // max(1, running + 1))
