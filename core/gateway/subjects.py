"""Whose limits apply to a request, and what each of them has used: the meters of all subjects, over snapshots, restarts
and a gateway that is replaced by another.

A limit for each user (or key) is a default: what is said of one user or key by name takes its place, kind by kind, and
for a user so does what is said for each member of his groups and teams. Everything else holds together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from core.gateway import wire
from core.gateway.clock import Clock
from core.gateway.gauges import Period
from core.gateway.limits import Hold, Meter, Short
from core.gateway.windows import SLOTS

KEPT = 4096
"""People whose limits are remembered; then all are forgotten, and looked up again."""
LATER = 120.0
"""Seconds after which what was used in a minute is of no use any more."""
_AMOUNTS = tuple(name for name in wire.Limits.__struct_fields__ if name != "hours")
ALWAYS = "always"
_NONE = wire.Limits()


def tightest(limits: Iterable[wire.Limits]) -> wire.Limits:
    """All of them at once, but for hours."""
    there = list(limits)
    if len(there) < 2:
        return there[0] if there else _NONE
    found: dict[str, Any] = {}
    for name in _AMOUNTS:
        said = [getattr(each, name) for each in there]
        found[name] = min((n for n in said if n > 0), default=min(said, default=0))
    return wire.Limits(**found)


def over(strong: wire.Limits, weak: wire.Limits) -> wire.Limits:
    """What `strong` says, and of the rest what `weak` says; but for hours."""
    if strong == _NONE:
        return weak
    return wire.Limits(**{name: getattr(strong, name) or getattr(weak, name) for name in _AMOUNTS})


class Subjects:
    """The limits of one snapshot, and the meters that outlive it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.any = False
        """There is a limit on somebody or something."""
        self._limited: dict[str, wire.Limited] = {}
        self._shared: list[wire.Limited] = []
        self._each_of: list[wire.Limited] = []
        self._meters: dict[str, Meter] = {}
        self._people: dict[tuple[int, frozenset[int]], tuple[Meter, ...]] = {}
        self._keys: dict[str, wire.Key] = {}
        self.uses: dict[str, wire.Use] = {}
        """What was kept when it was written last, also of subjects that have no meter yet."""
        self._held: dict[str, wire.Held] = {}
        """Of a gateway before this one."""
        self._holds: set[Hold] = set()
        self._handing: list[Hold] | None = None
        self._day = self._pruned = self.clock.day

    # ---------------------------------------------------------------------------------------- who is meant

    def use(self, limited: Iterable[wire.Limited], keys: Iterable[wire.Key]) -> None:
        """Put these limits in force; what was used stays counted."""
        self._limited = {each.subject: each for each in limited}
        self._keys = {key.id: key for key in keys}
        kinds = [(each.subject.partition(":")[0], each) for each in self._limited.values()]
        self._shared = [each for kind, each in kinds if kind in ("group", "team")]
        self._each_of = [
            each for kind, each in kinds if kind == "each" and each.subject not in ("each:user", "each:key")
        ]
        self.any = bool(self._limited) or any(key.limits != _NONE for key in self._keys.values())
        self._people.clear()
        if self._pruned != self.clock.day:
            self._pruned = self.clock.day
            now = self.clock.now()
            for meter in list(self._meters.values()):
                meter.turn(now)
                if meter.idle():
                    del self._meters[meter.id]

    def of_person(self, uid: int, groups: frozenset[int], name: str = "") -> tuple[Meter, ...]:
        """The user's own, and those of his groups and teams."""
        key = (uid, groups)
        found = self._people.get(key)
        if found is None:
            if len(self._people) >= KEPT:
                self._people.clear()
            found = self._people[key] = self._of_person(uid, groups, name)
        return found

    def _of_person(self, uid: int, groups: frozenset[int], name: str) -> tuple[Meter, ...]:
        if not self._limited:
            return ()
        own = self._limited.get(f"user:{uid}")
        each = self._limited.get("each:user")
        of_groups = [of for of in self._each_of if _means(of, uid, groups)]
        strong = (
            over(own.limits, tightest(of.limits for of in of_groups))
            if own
            else tightest(of.limits for of in of_groups)
        )
        limits = over(strong, each.limits) if each else strong
        hours = [own.limits.hours] if own and own.limits.hours else [of.limits.hours for of in of_groups]
        if not any(hours) and each:
            hours = [each.limits.hours]
        name = own.name if own else name
        meter = self._meter(f"user:{uid}", limits, hours, f"user {name}" if name else f"uid {uid}")
        shared = [self._shared_meter(of) for of in self._shared if _means(of, uid, groups)]
        return _limiting([meter, *shared])

    def of_key(self, key: wire.Key) -> tuple[Meter, ...]:
        """The key's own, and those of the user or team that owns it."""
        said, each = self._limited.get(f"key:{key.id}"), self._limited.get("each:key")
        layers = [of.limits for of in (said, each) if of is not None]
        limits = tightest([key.limits, *([over(layers[0], layers[-1])] if layers else [])])
        given = next((of.hours for of in layers if of.hours), "")
        meter = self._meter(f"key:{key.id}", limits, [key.limits.hours, given], f"the key {key.name} of {key.owner}")
        found = [meter]
        if key.team:
            found += [self._shared_meter(of) for of in self._shared if of.subject == f"team:{key.team}"]
        elif key.behind >= 0:
            found += self.of_person(key.behind, frozenset(key.groups), key.owner if key.uid == key.behind else "")
        return _limiting(found)

    def of_target(self, deployment: str, model: str) -> tuple[Meter, ...]:
        """The deployment's, and its model's."""
        found = []
        for subject, whose in (
            (f"deployment:{deployment}", f"deployment {deployment}"),
            # Neither its name nor that of another deployment with it is for everybody who may use this one.
            (f"model:{model}", "the model of this deployment"),
        ):
            of = self._limited.get(subject)
            if of is not None:
                found.append(self._meter(subject, of.limits, [of.limits.hours], whose))
        return _limiting(found)

    def _shared_meter(self, of: wire.Limited) -> Meter:
        kind = of.subject.partition(":")[0]
        return self._meter(of.subject, of.limits, [of.limits.hours], f"{kind} {of.name}")

    def _meter(self, id: str, limits: wire.Limits, hours: Iterable[str], whose: str) -> Meter:
        meter = self._meters.get(id)
        new = meter is None
        if meter is None:
            meter = self._meters[id] = Meter(id, self.clock)
        meter.whose = whose
        meter.follow(limits, [each for each in hours if each not in ("", ALWAYS)])
        if new:
            if id in self.uses:
                meter.restore(self.uses[id], self.clock.now())
            if id in self._held:
                meter.beside(self._held[id], self.clock.now())
        return meter

    # ---------------------------------------------------------------------------------------- one request

    def admit(
        self, meters: tuple[Meter, ...], tokens_in: int, tokens_out: int, used: Callable[[], tuple[int, int]],
        answers: int = 1,
    ) -> Hold | Short:  # fmt: skip
        """Reserve on all of them, or on none: then which limit has no room the longest. `used`: what the request has
        used so far, in and out. `answers`: at once."""
        clock = self.clock
        now, tick = clock.now(), clock.tick
        wanted = 1, tokens_in, tokens_out, tokens_in + tokens_out
        full = False
        for meter in meters:
            if meter.tick != tick:
                meter.turn(now)
            full = meter.full(wanted, answers) or full
        if full and (shorts := [short for each in meters if (short := each.short(now, wanted, answers))]):
            return max(shorts, key=_seconds)
        for meter in meters:
            meter.take(tokens_in, tokens_out, answers)
        hold = Hold(meters, wanted, now, clock, used, answers)
        self._holds.add(hold)
        if self._handing is not None:
            self._handing.append(hold)
        return hold

    def settle(self, hold: Hold, tokens_in: int, tokens_out: int) -> None:
        """The request has ended and used so many."""
        self._holds.discard(hold)
        now, tick = self.clock.now(), self.clock.tick
        hold.final = tokens_in, tokens_out
        _, reserved_in, reserved_out, _ = hold.amounts
        more_in, more_out = tokens_in - reserved_in, tokens_out - reserved_out
        for meter, gauges in zip(hold.meters, hold.taken, strict=True):
            meter.busy -= hold.answers
            meter.touched = True
            if meter.tick == hold.tick == tick and gauges is meter.gauges:
                meter.came_in += more_in
                meter.came_out += more_out
            else:
                meter.settle(hold, gauges, now, more_in, more_out)

    def correct(self, hold: Hold, tokens_in: int, tokens_out: int) -> None:
        """One that was settled has used so many after all."""
        had_in, had_out = hold.final or (tokens_in, tokens_out)
        hold.final = tokens_in, tokens_out
        now = self.clock.now()
        for meter, gauges in zip(hold.meters, hold.taken, strict=True):
            meter.touched = True
            meter.settle(hold, gauges, now, tokens_in - had_in, tokens_out - had_out)

    # ---------------------------------------------------------------------------------------- for people

    def spent(self, asked: wire.Ask) -> tuple[wire.Spent, ...]:
        """What is used of the limits that the daemon asks about."""
        now = self.clock.now()
        meters: dict[str, Meter] = {}
        for subject in asked.subjects:
            meters |= {each.id: each for each in self._counting(subject)}
        if asked.uid is not None:
            meters |= {each.id: each for each in self.of_person(asked.uid, frozenset(asked.groups))}
        return tuple(spent for meter in meters.values() for spent in meter.spent(now))

    def _counting(self, subject: str) -> tuple[Meter, ...]:
        kind, _, name = subject.partition(":")
        if kind == "key":
            return self.of_key(self._keys[name]) if name in self._keys else ()
        if kind == "deployment":
            return self.of_target(name, "")
        if kind == "model":
            return self.of_target("", name)
        if kind == "user":
            return tuple(each for each in self._meters.values() if each.id == subject)
        return tuple(self._shared_meter(of) for of in self._shared if of.subject == subject)

    # ---------------------------------------------------------------------------------------- over a restart

    @property
    def handing(self) -> bool:
        """Another gateway counts from now on, or is about to."""
        return self._handing is not None

    def kept(self) -> dict[str, wire.Use] | None:
        """What a gateway that starts goes on from; None if that is what was given last. Called each second."""
        self.clock.look()
        now = self.clock.now()
        told = {meter.id: meter for meter in self._meters.values() if meter.touched}
        for hold in self._holds:
            told |= {meter.id: meter for meter in hold.meters}
        for meter in told.values():
            meter.turn(now)
        for hold in self._holds:
            hold.open()
        changed = False
        for id, meter in told.items():
            use = meter.kept(now)
            meter.touched = False
            if use != self.uses.get(id):
                self.uses[id] = use
                changed = True
        if self._day != self.clock.day:
            self._day = self.clock.day
            self.uses = {id: use for id, use in self.uses.items() if id in self._meters or self._counts(use, now)}
            changed = True
        return self.uses if changed else None

    def _counts(self, use: wire.Use, now: float) -> bool:
        slots = [slot for kind in use.minutes.values() for slot in kind]
        return use.day == self.clock.day or use.month == self.clock.month or max(slots, default=0) > now - LATER

    def restore(self, uses: dict[str, wire.Use]) -> None:
        """Go on from what an earlier gateway has kept, also for subjects that come with a later snapshot."""
        self.uses = {**self.uses, **uses}
        now = self.clock.now()
        for id, use in uses.items():
            if id in self._meters:
                self._meters[id].restore(use, now)

    def hand_over(self, begun: bool) -> None:
        """From now on (until it is called with False) note what differs from what is kept at this moment."""
        self._handing = list(self._holds) if begun else None
        for hold in self._holds:
            hold.base = hold.used()

    def in_flight(self) -> dict[str, wire.Held]:
        """What a gateway that was handed the listener has to count beside its own."""
        now = self.clock.now()
        found: dict[str, dict[str, list[int]]] = {}
        for hold in self._handing or ():
            runs, later, base = hold.final is None, hold.base is None, hold.base or (0, 0)
            used = hold.used() if hold.final is None else hold.final
            _, *reserved, _ = hold.amounts
            four = [max(0, reserved[n] - used[n]) * runs for n in (0, 1)] + [used[n] - base[n] for n in (0, 1)]
            recent = now - hold.at < SLOTS + 1
            today = self.clock.date
            counts = {"minute": recent, "day": hold.date.day == today.day, "month": hold.date.month == today.month}
            for meter in hold.meters:
                told = found.setdefault(meter.id, {"flags": [0, 0], **{per: [0] * 4 for per in counts}})
                told["flags"][0] += runs * hold.answers
                told["flags"][1] += later and recent
                for per in (per for per, there in counts.items() if there):
                    told[per] = [had + more for had, more in zip(told[per], four, strict=True)]
        return {id: _held(told) for id, told in found.items()}

    def beside(self, held: dict[str, wire.Held]) -> None:
        """Take what the gateway before this one still does; nothing: it has ended, and what it used is ours."""
        now = self.clock.now()
        if not held:
            for id, each in self._held.items():
                if id not in self._meters:
                    self.uses[id] = _with(self.uses.get(id, wire.Use()), each, self.clock, now)
            for meter in self._meters.values():
                meter.alone(now)
            self._held = {}
            return
        self._held = held
        for id, each in held.items():
            if id in self._meters:
                self._meters[id].beside(each, now)

    def beside_older(self, busy: dict[str, int], settled: dict[str, int]) -> None:
        """The same from a gateway of one release back, which speaks of keys alone."""
        for id, meter in self._meters.items():
            name = id.removeprefix("key:")
            meter.elsewhere = busy.get(name, 0)
            for gauge in meter.gauges:
                if gauge.kind == "daily_tokens" and isinstance(gauge, Period):
                    gauge.sum = max(0, gauge.sum + settled.get(name, 0))


def _seconds(short: Short) -> float:
    return short.seconds


def _means(of: wire.Limited, uid: int, groups: frozenset[int]) -> bool:
    return uid in of.uids or not groups.isdisjoint(of.gids)


def _limiting(meters: Iterable[Meter]) -> tuple[Meter, ...]:
    return tuple(dict.fromkeys(meter for meter in meters if meter.limits))


def _held(told: dict[str, list[int]]) -> wire.Held:
    requests, asked = told["flags"]
    minute, day, month = ((n[0], n[1], n[2], n[3]) for n in (told["minute"], told["day"], told["month"]))
    return wire.Held(requests=requests, asked=asked, minute=minute, day=day, month=month)


def _with(use: wire.Use, held: wire.Held, clock: Clock, now: float) -> wire.Use:
    """What a subject that has no meter yet has used, with what a gateway before this one has added."""
    day, month = use.day == clock.day, use.month == clock.month
    (*_, day_in, day_out), (*_, month_in, month_out), (*_, tokens_in, tokens_out) = held.day, held.month, held.minute
    added = {"rpm": held.asked, "tpm": tokens_in + tokens_out, "tpm_in": tokens_in, "tpm_out": tokens_out}
    minutes = {kind: dict(use.minutes.get(kind, {})) for kind in added}
    for kind, amount in added.items():
        minutes[kind][int(now)] = minutes[kind].get(int(now), 0) + amount
    return wire.Use(
        day=clock.day, month=clock.month, minutes=minutes,
        tokens=day_in + day_out + (use.tokens if day else 0),
        daily_in=day_in + (use.daily_in if day else 0), daily_out=day_out + (use.daily_out if day else 0),
        monthly_tokens=month_in + month_out + (use.monthly_tokens if month else 0),
        monthly_in=month_in + (use.monthly_in if month else 0),
        monthly_out=month_out + (use.monthly_out if month else 0),
    )  # fmt: skip
