"""The routing table: snapshots in, the least busy replica out (or the one that knows the conversation), and a bounded
queue when all slots are taken."""

from __future__ import annotations

import asyncio
import math
import os
import time
from pathlib import Path

import msgspec

from core.gateway import wire
from core.gateway.errors import TOO_MANY, Refusal, too_many
from core.gateway.keys import Keys
from core.gateway.limits import Meter
from core.gateway.queue import Caller, Queue, Waiter
from core.gateway.sessions import STAY, Sessions
from core.gateway.subjects import Subjects
from core.gateway.upstream import Pool
from core.gateway.users import Users

SHUN_S = 1.0
"""How long a replica that did not take a request gets none while another one is there."""
FEATURES: frozenset[str] = frozenset({"limits"})
"""What a snapshot may `need` of this gateway."""


def unknown(name: str) -> Refusal:
    """What is said of a deployment that is not there, or not for whoever asks."""
    return Refusal(404, f"there is no deployment {name[:200]!r}", "model_not_found")


class Seat:
    """A replica as the gateway sees it: its route, its connections, how busy it is. `elsewhere` counts the slots that
    a gateway before this one still holds; one that is `shunned` did not take a request just now."""

    __slots__ = ("elsewhere", "errors", "in_flight", "pool", "requests", "route", "shunned", "tokens", "ttft_ms")

    def __init__(self, route: wire.ReplicaRoute) -> None:
        self.route = route
        self.pool = Pool(route.endpoint, route.at)
        self.in_flight = 0
        self.elsewhere = 0
        self.requests = 0
        self.errors = 0
        self.shunned = False
        self.tokens = 0
        self.ttft_ms: float | None = None

    @property
    def busy(self) -> int:
        """Slots taken, by whichever gateway."""
        return self.in_flight + self.elsewhere


class Target:
    """A deployment: its route, its seats, its queue, and which seat has had which conversation."""

    def __init__(self, route: wire.Route) -> None:
        self.route = route
        self.seats: list[Seat] = []
        self.queue: Queue[Seat] = Queue(time.monotonic)
        self.sessions: Sessions[Seat] = Sessions()
        self.meters: tuple[Meter, ...] = ()
        """Of its own limits, and its model's."""

    @property
    def ready(self) -> bool:
        """Whether any replica takes requests."""
        return not all(seat.route.draining for seat in self.seats)

    @property
    def slots(self) -> int:
        """Of all its replicas that take requests."""
        return sum(seat.route.slots for seat in self.seats if not seat.route.draining)

    @property
    def widest(self) -> int:
        """Slots of the replica that has the most; 0 where none takes requests."""
        return max((seat.route.slots for seat in self.seats if not seat.route.draining), default=0)


def _ends(of: wire.Snapshot) -> list[float]:
    rules = [*of.allowed.rules, *(rule for key in of.keys for rule in key.rules or ())]
    ends = {rule.until for rule in rules} | {key.until for key in of.keys}
    return sorted((end for end in ends if end is not None), reverse=True)


class Table:
    """The snapshot in force."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.snapshot = wire.Snapshot(
            database="", epoch=0, n=0, routes=(), allowed=wire.Allowed(), limits=wire.GatewayLimits()
        )
        self.limits = self.snapshot.limits
        self.targets: dict[str, Target] = {}
        self.seats: dict[tuple[str, str], Seat] = {}
        self.withdrawn: dict[tuple[str, str], Seat] = {}
        """Those that have no route any more and may still be answering."""
        self.blocked = ""
        self._elsewhere: dict[str, int] = {}
        self.users = Users(wire.Allowed())
        self.subjects = Subjects()
        self.keys = Keys(self.subjects)
        self._applying = asyncio.Lock()
        self._ends: list[float] = []
        """When keys and rights end by themselves (unix times), the next one last."""

    def load(self) -> None:
        """Take the last snapshot from disk; one that cannot be read is as none."""
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=wire.Snapshot)
        except (OSError, msgspec.DecodeError):
            return
        if not self._block(found):
            self._use(found)

    def _block(self, new: wire.Snapshot) -> str:
        """Refuse every request while the settings need what this gateway lacks: it never fails open."""
        lacking = sorted(set(new.needs) - FEATURES)
        if lacking:
            self.blocked = f"this gateway lacks what its settings need ({', '.join(lacking)}): restart it"
            return self.blocked
        return ""

    async def apply(self, new: wire.Snapshot) -> str:
        """Put `new` in force; returns why not, or an empty string. Written in a thread, so that no stream waits."""
        async with self._applying:
            old = self.snapshot
            if new.database == old.database and (new.epoch, new.n) < (old.epoch, old.n):
                return f"snapshot {new.epoch}/{new.n} is older than {old.epoch}/{old.n}"
            try:
                await asyncio.to_thread(self._keep, msgspec.json.encode(new))
            except OSError as error:
                return f"the snapshot could not be kept: {error.strerror}"
            # Kept on disk first: what blocks this gateway blocks it after a restart too.
            if reason := self._block(new):
                return reason
            self._use(new)
            return ""

    def _keep(self, data: bytes) -> None:
        temporary = self._file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)

    def hold(self, in_flight: dict[str, int]) -> None:
        """Take what a gateway before this one still has in flight (`wire.Busy`); what it has ended is free."""
        self._elsewhere = in_flight
        for (replica, launch), seat in (self.seats | self.withdrawn).items():
            seat.elsewhere = in_flight.get(f"{replica} {launch}", 0)
        for target in self.targets.values():
            self.feed(target)

    def living(self) -> list[Seat]:
        """The seats with a route, and those without one that still have requests."""
        self.withdrawn = {key: seat for key, seat in self.withdrawn.items() if seat.busy}
        return [*self.seats.values(), *self.withdrawn.values()]

    def _use(self, new: wire.Snapshot) -> None:
        seats: dict[tuple[str, str], Seat] = {}
        targets: dict[str, Target] = {}
        for route in new.routes:
            target = self.targets.get(route.name) or Target(route)
            target.route = route
            target.seats = []
            for replica in route.replicas:
                key = (replica.id, replica.launch)
                seat = self.seats.get(key) or self.withdrawn.pop(key, None)
                if seat is None or (seat.route.endpoint, seat.route.at) != (replica.endpoint, replica.at):
                    seat = Seat(replica)
                elif key not in self.seats:  # it was withdrawn and comes back
                    seat.pool = Pool(replica.endpoint, replica.at)
                seat.route = replica
                seat.elsewhere = self._elsewhere.get(f"{replica.id} {replica.launch}", 0)
                seats[key] = seat
                target.seats.append(seat)
            target.sessions.keep(target.seats)
            targets[route.name] = target
        gone = [target for name, target in self.targets.items() if name not in targets]
        for key, seat in self.seats.items():
            if seats.get(key) is not seat:
                seat.pool.close()
                if key not in seats:
                    self.withdrawn[key] = seat
        self.snapshot, self.limits, self.targets, self.seats, self.blocked = new, new.limits, targets, seats, ""
        self.users = Users(new.allowed)
        self._ends = _ends(new)
        self.subjects.use(new.limited, new.keys)
        self.keys.use(new.keys, new.ended)
        for name, target in targets.items():
            target.meters = self.subjects.of_target(name, target.route.model)
        for target in gone:
            self._refuse_all(target, Refusal(404, f"deployment {target.route.name} was removed", "model_not_found"))
        for target in targets.values():
            if not (target.ready or target.route.expected):
                self._refuse_all(target, self._not_ready(target))
            self.feed(target)

    def lapsed(self, now: float) -> bool:
        """Has a key or a right ended since this was asked last? No snapshot tells it: the daemon may be away."""
        before = len(self._ends)
        while self._ends and self._ends[-1] <= now:
            self._ends.pop()
        return len(self._ends) < before

    def target(self, name: str) -> Target:
        """Raises `Refusal` for a name that is not there."""
        if self.blocked:
            raise Refusal(503, self.blocked, "not_ready")
        try:
            return self.targets[name]
        except KeyError:
            raise unknown(name) from None

    def _not_ready(self, target: Target) -> Refusal:
        return Refusal(503, f"deployment {target.route.name} is not ready: {target.route.state}", "not_ready")

    def take(self, target: Target, session: int = 0, slots: int = 1) -> Seat | None:
        """The least busy seat with so many free slots, taken; None if all are busy, or one is still to come. Raises
        `Refusal` if there is none at all, or none that has so many. Shunned ones count only where all are. The seat
        that had `session` last is as good as one with fewer than `STAY` requests less."""
        if len(target.seats) == 1 and not session:
            only = target.seats[0]
            if only.in_flight + only.elsewhere + slots <= only.route.slots and not only.route.draining:
                only.in_flight += slots
                only.requests += 1
                return only
        best: Seat | None = None
        least = 0
        some = well = False
        knows = target.sessions.get(session) if session else None
        for seat in target.seats:
            if seat.route.draining or (well and seat.shunned):
                continue
            some = True
            if not seat.shunned and not well:
                best, well = None, True
            busy = seat.in_flight + seat.elsewhere
            if seat is knows:
                busy_there = busy
                busy -= STAY - 1
                if busy_there + slots > seat.route.slots:
                    continue
            elif busy + slots > seat.route.slots:
                continue
            if best is None or busy < least:
                best, least = seat, busy
        if best is not None:
            best.in_flight += slots
            best.requests += 1
            if session:
                target.sessions.put(session, best)
        elif not some and not target.route.expected:
            raise self._not_ready(target)
        elif slots > 1 and some and target.widest < slots:
            raise too_many(slots, target.widest, f"a replica of deployment {target.route.name} makes")
        return best

    def shun(self, target: Target, seat: Seat) -> None:
        """Give a replica that did not take a request no other one for a while, unless it is the only one: it has
        nothing to do, so it would be the least busy."""
        if not seat.shunned:
            seat.shunned = True
            asyncio.get_running_loop().call_later(SHUN_S, self._forgive, target, seat)

    def _forgive(self, target: Target, seat: Seat) -> None:
        seat.shunned = False
        self.feed(target)

    def wait(self, target: Target, waiter: Waiter[Seat], seconds: float = math.inf, *, again: bool = False) -> None:
        """Queue for a seat, for `seconds` at most; `again`: it had one already that took nothing. When the queue is
        full, the newest of the longest line makes room. Raises `Refusal` (429) if that is its own line."""
        queue = target.queue
        if len(queue) >= self.limits.queue and not again:
            other = queue.last_of_longest(waiter.caller)
            if other is None:
                raise self._full(target)
            self.leave(target, other)
            other.refuse(self._full(target))
        queue.add(waiter, first=again)
        slots = target.slots
        if slots:
            waiter.estimate_s = queue.mean_s * waiter.place / slots
        seconds = min(seconds, self.limits.queue_timeout_s)
        waiter.timer = asyncio.get_running_loop().call_later(seconds, self._too_long, target, waiter, seconds)

    def places(self) -> dict[str, tuple[int, float]]:
        """Of each turn that waits, its place in its queue now, from 1, and the seconds expected there."""
        found: dict[str, tuple[int, float]] = {}
        for target in self.targets.values():
            if not any(each.turn for each in target.queue):
                continue
            each_s = target.queue.mean_s / target.slots if target.slots else 0.0
            for place, waiter in enumerate(target.queue.order(), 1):
                if waiter.turn:
                    found[waiter.turn] = (place, round(place * each_s, 1))
        return found

    def _full(self, target: Target) -> Refusal:
        waiting, slots = len(target.queue), target.slots
        again = max(1, math.ceil(target.queue.mean_s * waiting / slots)) if slots else 1
        message = f"{waiting} requests wait for deployment {target.route.name}, and no caller has more of them than you"
        if not waiting:
            message = f"every slot of deployment {target.route.name} is taken, and nothing may wait for one"
        return Refusal(429, message, "queue_full", headers=b"Retry-After: %d\r\n" % again)

    def leave(self, target: Target, waiter: Waiter[Seat]) -> None:
        """Leave the queue."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        target.queue.remove(waiter)

    def give_up(self, target: Target, waiter: Waiter[Seat]) -> None:
        """Leave the queue without a seat: slots that were kept for one that needs several go to the next."""
        kept = waiter.slots > 1 and waiter.line is not None
        self.leave(target, waiter)
        if kept:
            self.feed(target)

    def give_back(
        self, target: Target, seat: Seat, caller: Caller, seconds: float, charged: float, slots: int = 1
    ) -> None:
        """Free so many slots of a seat that `caller` has had for `seconds`, and let the next in the queue have them.
        `charged`: what the queue has charged for it (`Waiter.charged`)."""
        seat.in_flight -= slots
        queue = target.queue
        queue.note(seconds)
        if queue:
            queue.ended(caller, seconds, charged, slots)
            self.feed(target)

    def _too_long(self, target: Target, waiter: Waiter[Seat], seconds: float) -> None:
        self.give_up(target, waiter)
        what = f"no slot of {target.route.name} was free" if target.ready else f"{target.route.name} was not ready"
        waiter.refuse(Refusal(503, f"{what} for {seconds:g} s", "queue_timeout"))

    def feed(self, target: Target) -> None:
        """Let those whose turn it is have what is free. Nobody passes one that waits for several slots."""
        while target.queue:
            waiter = target.queue.next()
            try:
                seat = self.take(target, waiter.session, waiter.slots)
            except Refusal as refusal:
                if refusal.code != TOO_MANY:
                    return
                self.leave(target, waiter)  # the replica is gone that had so many
                waiter.refuse(refusal)
                continue
            if seat is None:
                return
            target.queue.take(waiter)
            self.leave(target, waiter)
            waiter.ready(seat)

    def _refuse_all(self, target: Target, refusal: Refusal) -> None:
        for waiter in list(target.queue):
            self.leave(target, waiter)
            waiter.refuse(refusal)
