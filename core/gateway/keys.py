"""API keys as the gateway knows them: by the hash of their secret, with what each may do and has used."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from collections.abc import Callable, Iterable

from core.gateway import wire
from core.gateway.errors import Refusal
from core.gateway.limits import Meter
from core.gateway.subjects import Subjects

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAY = 256
"""Deployments of which a key remembers that it may use them."""
LEFT = 1000
"""Keys that are in no snapshot any more, of which the last use is known still."""
NEVER = (math.inf, math.inf)
LOCAL = "unix"
"""The source of a request on the Unix socket."""


def matches(pattern: str, name: str) -> bool:
    """A star stands at a pattern's end only."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def refused(name: str, why: str, key: tuple[int, str]) -> Refusal:
    """The refusal of a secret of the key `name` that has ended; `why` as `wire.Ended` has it."""
    says = {
        "rotated": f"this secret of the key {name} was rotated away: use the new one",
        "expired": f"the key {name} has expired",
        "revoked": f"the key {name} was revoked",
        "owner gone": f"the owner of the key {name} is gone",
        "owner disabled": f"the owner of the key {name} is disabled",
    }
    return Refusal(401, says.get(why, f"the key {name} works no more"), "invalid_api_key", key=key)


def taken_away(deployment: str) -> Refusal:
    """The refusal of what was allowed when it began."""
    return Refusal(403, f"the right to use {deployment} was taken away", "not_allowed")


class Holder:
    """One key, and what limits it: its own meters and those of its owner."""

    __slots__ = ("_came", "_may", "_networks", "_until", "key", "meters", "source", "used_at")

    def __init__(self, key: wire.Key, meters: tuple[Meter, ...] = ()) -> None:
        self.key = key
        self.meters = meters
        self.used_at = 0.0
        self.source = ""
        self._until = math.inf if key.until is None else key.until
        self._came = ""
        """From where it was last found that it may come."""
        self._may: dict[str, tuple[float, float]] = {}
        """Deployments that it may use, and between which unix times that need not be looked at again."""
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(each, strict=False) for each in key.sources)

    def come_from(self, source: str, now: float) -> None:
        """Raises `Refusal` if it has ended or may not come from there (`unix`, or an address)."""
        if now >= self._until:
            raise refused(self.key.name, "rotated" if self.key.replaced else "expired", (self.key.uid, self.key.id))
        if self._networks and source != self._came:
            self._from(source)
            self._came = source
        self.used_at, self.source = now, source

    def _from(self, source: str) -> None:
        """Raises `Refusal` for a source that is none of its networks."""
        name = self.key.name
        if source == LOCAL:
            if self.key.local:
                return
            why = f"the key {name} may not be used from the Unix socket, which is none of its networks: its owner lets"
            why += f" it with `corral keys limit {name} --from local` (and --from for each network)"
        else:
            address = ipaddress.ip_address(source)
            if any(address in network for network in self._networks):
                return
            why = f"the key {name} may not be used from {source}"
        raise Refusal(403, why, "not_allowed", key=(self.key.uid, self.key.id))

    def may_ask(self, scope: str) -> bool:
        """May it ask routes of this name (`chat/completions`)?"""
        endpoints = self.key.endpoints
        return not endpoints or scope in endpoints

    def may_some(self, now: float) -> bool:
        """May its owner use any deployment?"""
        rules = self.key.rules
        return rules is None or any(not rule.deny and (rule.until is None or now < rule.until) for rule in rules)

    def may_use(self, deployment: str, now: float) -> bool:
        """May it, and may its owner, use `deployment`?"""
        since, until = self._may.get(deployment, NEVER)
        if since <= now < until:
            return True
        if not any(matches(pattern, deployment) for pattern in self.key.deployments):
            return False
        rules = self.key.rules or ()
        if self.key.rules is not None and not allowed(rules, deployment, now):
            return False
        if len(self._may) >= MAY:  # names that are there nowhere count too
            self._may.clear()
        ends = (rule.until for rule in rules if rule.until is not None and rule.until > now)
        self._may[deployment] = now, min(ends, default=math.inf)
        return True


def allowed(rules: Iterable[wire.Rule], deployment: str, now: float) -> bool:
    """By rules that are somebody's: a denial wins."""
    found = False
    object = f"deployment:{deployment}"
    for rule in rules:
        if matches(rule.scope, object) and (rule.until is None or now < rule.until):
            if rule.deny:
                return False
            found = True
    return found


class Keys:
    """All keys of the snapshot in force."""

    def __init__(self, subjects: Subjects, clock: Callable[[], float] = time.time) -> None:
        self._subjects = subjects
        self._clock = clock
        self._by_hash: dict[str, Holder] = {}
        self._ended: dict[str, wire.Ended] = {}
        self._left: dict[str, Holder] = {}
        """By id, those of snapshots before that were used, the last ones: one may have ended before that was told."""

    def use(self, keys: Iterable[wire.Key], ended: Iterable[wire.Ended] = ()) -> None:
        """Put these in force, after the limits of the same snapshot."""
        latest = sorted(self._by_hash.values(), key=lambda each: each.used_at)
        before = self._left | {holder.key.id: holder for holder in latest}
        found: dict[str, Holder] = {}
        for key in keys:
            holder = Holder(key, self._subjects.of_key(key))
            old = before.get(key.id)
            if old is not None:
                holder.used_at, holder.source = old.used_at, old.source
            found[key.hash] = holder
        there = {holder.key.id for holder in found.values()}
        kept = [(id, holder) for id, holder in before.items() if holder.used_at and id not in there]
        self._by_hash, self._left = found, dict(kept[-LEFT:])
        self._ended = {each.hash: each for each in ended}

    def find(self, secret: bytes, source: str) -> Holder:
        """The key with this secret. Raises `Refusal`: 401 for none and for one that has ended."""
        hash = hashlib.sha256(secret).hexdigest()
        holder = self._by_hash.get(hash)
        if holder is None:
            if (ended := self._ended.get(hash)) is not None:
                raise refused(ended.name, ended.why, (ended.uid, ended.key))
            raise Refusal(401, "this API key is not known: it is wrong, or was revoked", "invalid_api_key")
        holder.come_from(source, self._clock())
        return holder

    def again(self, holder: Holder, source: str) -> bool:
        """Is a key that was found for the same secret before in force still? Raises `Refusal` as `find` does."""
        if self._by_hash.get(holder.key.hash) is not holder:
            return False
        holder.come_from(source, self._clock())
        return True

    def barred(self, holder: Holder, secret: bytes, source: str, deployment: str) -> Refusal | None:
        """Why a request that came with this secret, of `holder` then, may use `deployment` no more; None: it may."""
        now = self._clock()
        try:
            may = self.find(secret, source).may_use(deployment, now)
        except Refusal as refusal:
            if refusal.key is not None:
                return refusal
            # It was known when the request came, and the snapshot says nothing of it any more.
            key = holder.key
            over = key.until is not None and now >= key.until
            return refused(key.name, "expired" if over else "revoked", (key.uid, key.id))
        return None if may else taken_away(deployment)

    def now(self) -> float:
        return self._clock()

    def seen(self) -> tuple[dict[str, float], dict[str, str]]:
        """Of keys that were ever used: when, and from where, last."""
        used = [holder for holder in (*self._left.values(), *self._by_hash.values()) if holder.used_at]
        used.sort(key=lambda holder: holder.used_at)  # of two secrets of one key the later use is told
        return {h.key.id: round(h.used_at, 3) for h in used}, {h.key.id: h.source for h in used}
