"""The queue of a deployment: a line for each caller, and the slots that become free shared among the lines.

It is start-time fair queueing, counted in seconds of a slot, since slots are what is waited for. The line that has had
least is served next, one waiter at a time. A waiter is charged with what its caller's requests took of late (at first
with what all did), and that is corrected when it ends, as Kubernetes' API Priority and Fairness does. A caller who
comes, or comes back, begins with what the one served last had had: nobody saves up by staying away (decision 0009).
What was used while there was no queue counts for nothing, and costs nothing.

Where n requests wait, each call takes O(log n) at most.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.gateway.errors import Refusal

Caller = str | int
"""Id of a key, or the uid of who asks without one."""
COUNTED = 256
"""Places in a caller's own line up to which the place among all is counted; farther back it is the last one."""
STALE = 64
"""So many entries without a use are kept before they are looked for."""
LATELY = 16
"""The mean of a request's time in a slot goes over so many, roughly."""

S = TypeVar("S")


class Waiter(Generic[S]):
    """A request in the queue, `turn` if it is one. `ready` is called with its seat, `refuse` when there is none. It
    needs so many `slots` at once."""

    __slots__ = (
        "caller", "charged", "estimate_s", "line", "place", "ready", "refuse", "session", "slots", "timer", "turn",
    )  # fmt: skip

    def __init__(
        self, caller: Caller, ready: Callable[[S], None], refuse: Callable[[Refusal], None], turn: str = "",
        session: int = 0, slots: int = 1,
    ) -> None:  # fmt: skip
        self.caller = caller
        self.ready = ready
        self.refuse = refuse
        self.turn = turn
        self.session = session
        self.slots = slots
        self.timer: asyncio.TimerHandle | None = None
        self.line: Line[S] | None = None
        self.place = 0
        """Among all that waited when it came, from 1."""
        self.estimate_s = 0.0
        """How long it would take by that; 0 where nothing is known yet."""
        self.charged = 0.0

    def headers(self, waited_s: float) -> bytes:
        """What its client is told of the queue."""
        told = b"x-corral-queue-position: %d\r\nx-corral-queue-ms: %d\r\n" % (self.place, waited_s * 1000)
        if self.estimate_s:
            told += b"x-corral-queue-estimate-ms: %d\r\n" % (self.estimate_s * 1000)
        return told


class Line(Generic[S]):
    """The waiters of one caller, the oldest first. `used` is what the caller has had, in seconds of a slot."""

    __slots__ = ("mean_s", "stamp", "used", "waiters")

    def __init__(self, used: float) -> None:
        self.used = used
        self.mean_s = 0.0
        """As `Queue.mean_s`, of this caller's; 0 until one has ended."""
        self.stamp = -1
        """Of its entry in the heap; -1 while nothing waits in it."""
        self.waiters: OrderedDict[Waiter[S], None] = OrderedDict()


class Queue(Generic[S]):
    """All lines of a deployment. `clock` is monotonic, in seconds."""

    __slots__ = (
        "_clock", "_count", "_heap", "_levels", "_lines", "_many", "_served", "_since", "_stamps", "mean_s", "wide",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: dict[Caller, Line[S]] = {}
        self._levels: list[dict[Line[S], None]] = []
        """The lines with at least 1, 2, 3, … waiters: at even shares, those of the first level are served first."""
        self._heap: list[tuple[float, int, Line[S]]] = []
        """(used, stamp, line); an entry with another stamp than its line's is stale."""
        self._stamps = itertools.count()
        self._count = 0
        self._served = 0.0
        """What the line served last had had."""
        self._since = 0.0
        """When the queue began."""
        self._many = STALE
        self.mean_s = 0.0
        """What a request has taken of a slot lately, in seconds."""
        self.wide = 0
        """Waiters that need several slots: while there are any, a slot that is free may be one of theirs."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiter[S]]:
        return itertools.chain.from_iterable(line.waiters for line in self._levels[0]) if self._levels else iter(())

    def add(self, waiter: Waiter[S], *, first: bool = False) -> None:
        """Take a waiter and tell it its place. `first`: before the others of its line."""
        if not self._count:
            self._since = self._clock()
        line = self._line(waiter.caller)
        depth = len(line.waiters)
        if depth == len(self._levels):
            self._levels.append({})
        self._levels[depth][line] = None
        line.waiters[waiter] = None
        waiter.line = line
        self._count += 1
        self.wide += waiter.slots > 1
        if depth == 0:
            line.used = max(line.used, self._served)
            self._push(line)
        elif first:
            line.waiters.move_to_end(waiter, last=False)
            depth = 0
        waiter.place = sum(map(len, self._levels[: depth + 1])) if depth < COUNTED else self._count

    def remove(self, waiter: Waiter[S]) -> None:
        """Take a waiter out, wherever it stands; nothing if it does not wait."""
        line, waiter.line = waiter.line, None
        if line is None:
            return
        del line.waiters[waiter]
        depth = len(line.waiters)
        level = self._levels[depth]
        del level[line]
        if not level:
            self._levels.pop()
        if depth == 0:
            line.stamp = -1
        self._count -= 1
        self.wide -= waiter.slots > 1
        if not self._count:
            self._lines.clear()
            self._heap.clear()
            self._served, self._many = 0.0, STALE

    def next(self) -> Waiter[S]:
        """Whose turn it is; it stays where it is. Raises IndexError if nobody waits."""
        while self._heap[0][1] != self._heap[0][2].stamp:
            heapq.heappop(self._heap)
        return next(iter(self._heap[0][2].waiters))

    def order(self) -> list[Waiter[S]]:
        """All of them, in the order in which they would be served if nobody else came and each took what its caller's
        requests took of late. O(n log n): once a second is often enough."""
        lines = [
            (line.used, line.stamp, line, iter(line.waiters)) for line in (self._levels[0] if self._levels else ())
        ]
        heapq.heapify(lines)
        later, found = itertools.count(1 << 62), []  # stamps after all that were given out
        while lines:
            used, _, line, waiters = lines[0]
            waiter = next(waiters, None)
            if waiter is None:
                heapq.heappop(lines)
                continue
            found.append(waiter)
            charged = (line.mean_s or self.mean_s) * waiter.slots
            heapq.heapreplace(lines, (used + charged, next(later), line, waiters))
        return found

    def take(self, waiter: Waiter[S]) -> None:
        """Take out the one whose turn it is, and charge its line with what requests take."""
        line = waiter.line
        assert line is not None
        self._served = max(self._served, line.used)
        waiter.charged = (line.mean_s or self.mean_s) * waiter.slots
        self._charge(line, waiter.charged)
        self.remove(waiter)

    def ended(self, caller: Caller, seconds: float, charged: float, slots: int = 1) -> None:
        """While others wait, a request has ended that had `slots` for `seconds`; `charged` of them in all were counted
        when it left the queue."""
        line = self._line(caller)
        line.mean_s = line.mean_s + (seconds - line.mean_s) / LATELY if line.mean_s else seconds
        before = self._since - (self._clock() - seconds)
        if before > 0:  # it was charged in a queue that is over
            seconds, charged = seconds - before, 0.0
        self._charge(line, seconds * slots - charged)

    def last_of_longest(self, caller: Caller) -> Waiter[S] | None:
        """The newest waiter of the longest line, if that is longer than `caller`'s would be with one more."""
        line = self._lines.get(caller)
        if len(self._levels) < 2 + (len(line.waiters) if line is not None else 0):
            return None
        longest, _ = self._levels[-1].popitem()
        self._levels[-1][longest] = None
        return next(reversed(longest.waiters))

    def _line(self, caller: Caller) -> Line[S]:
        line = self._lines.get(caller)
        if line is None:
            if len(self._lines) >= self._many:
                # Who waits for nothing and has had no more than those who wait is as one who comes for the first time.
                self._lines = {
                    each: line for each, line in self._lines.items() if line.waiters or line.used > self._served
                }
                self._many = 2 * len(self._lines) + STALE
            line = self._lines[caller] = Line(self._served)
        return line

    def _charge(self, line: Line[S], seconds: float) -> None:
        line.used += seconds
        if line.waiters:
            self._push(line)

    def _push(self, line: Line[S]) -> None:
        if len(self._heap) >= 2 * len(self._levels[0]) + STALE:
            self._heap = [each for each in self._heap if each[1] == each[2].stamp]
            heapq.heapify(self._heap)
        line.stamp = next(self._stamps)
        heapq.heappush(self._heap, (line.used, line.stamp, line))

    def note(self, seconds: float) -> None:
        """A request had a slot for so long."""
        self.mean_s = self.mean_s + (seconds - self.mean_s) / LATELY if self.mean_s else seconds
