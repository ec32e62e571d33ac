"""API keys as the gateway knows them: by the hash of their secret, with what each may do and has used."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from core.gateway import wire
from core.gateway.errors import Refusal
from core.gateway.limits import Hold, Meter, Short, estimate

log = logging.getLogger("gateway")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL = "unix"
"""The source of a request on the Unix socket."""


def matches(pattern: str, name: str) -> bool:
    """A star stands at a pattern's end only."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


class Holder:
    """One key. `meter` outlives the snapshots."""

    __slots__ = ("_networks", "key", "meter", "source", "used_at")

    def __init__(self, key: wire.Key, meter: Meter) -> None:
        self.key = key
        self.meter = meter
        self.used_at = 0.0
        self.source = ""
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(each, strict=False) for each in key.sources)

    def come_from(self, source: str, now: float) -> None:
        """Raises `Refusal` if it has ended or may not come from there (`unix`, or an address)."""
        key = self.key
        if key.until is not None and now >= key.until:
            raise Refusal(401, f"the key {key.name} has expired", "invalid_api_key")
        if self._networks and source != LOCAL:
            address = ipaddress.ip_address(source)
            if not any(address in network for network in self._networks):
                raise Refusal(403, f"the key {key.name} may not be used from {source}", "not_allowed")
        self.used_at, self.source = now, source

    def may_ask(self, path: str) -> bool:
        """May it ask this route (`/v1/chat/completions`)?"""
        endpoints = self.key.endpoints
        return not endpoints or path.removeprefix("/v1/") in endpoints

    def may_use(self, deployment: str, now: float) -> bool:
        """May it, and may its owner, use `deployment`?"""
        if not any(matches(pattern, deployment) for pattern in self.key.deployments):
            return False
        return self.key.rules is None or allowed(self.key.rules, deployment, now)

    def admit(self, body: int, answer: int | None, ctx_per_slot: int) -> Hold:
        """Reserve for a request. Raises `Refusal` (429) that names the limit and when to come again."""
        limits, tokens = self.key.limits, 0
        if limits.tpm or limits.daily_tokens:
            tokens = estimate(body, answer, ctx_per_slot)
        short = self.meter.short(limits, tokens)
        if short is not None:
            raise self._refusal(short)
        return self.meter.take(tokens)

    def _refusal(self, short: Short) -> Refusal:
        seconds = max(1, round(short.seconds + 0.5))
        again = f"in {seconds} s" if short.limit != "concurrency" else "when an answer has ended"
        unit = {"concurrency": "requests at once", "requests": "requests a minute", "tokens": "tokens a minute"}
        message = (
            f"the key {self.key.name} of {self.key.owner} has reached its limit of {short.most}"
            f" {unit.get(short.limit, short.limit)}; there is room again {again}"
        )
        headers = b"Retry-After: %d\r\n" % seconds + self.headers()
        return Refusal(429, message, "rate_limit_exceeded", headers=headers)

    def headers(self) -> bytes:
        """x-ratelimit-* as OpenAI's clients read them; nothing for a key without limits."""
        out = b""
        for name, most, left, reset in self.meter.left(self.key.limits):
            out += b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %.1fs\r\n" % (
                name.encode(), most, name.encode(), left, name.encode(), reset,
            )  # fmt: skip
        return out


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


class Keep:
    """What keys have used of their day, in a file: after a kill -9 what was used in the last second or so is free."""

    def __init__(self, file: Path, keys: Keys) -> None:
        self._file = file
        self._keys = keys
        self._written: dict[str, wire.KeyUse] = {}

    def load(self) -> None:
        """Go on from the file; one that cannot be read is as none, and said."""
        try:
            self._written = msgspec.json.decode(self._file.read_bytes(), type=dict[str, wire.KeyUse])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.error("what keys have used today is not known, so it counts from now on: %s", error)
            return
        self._keys.restore(self._written)

    def write(self) -> None:
        """Called each second and at the end; a disk that refuses is said and tried again."""
        now = self._keys.kept()
        if now == self._written:
            return
        temporary = self._file.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(now))
            temporary.replace(self._file)
        except OSError as error:
            log.error("what keys have used is not on the disk: %s", error.strerror)
        else:
            self._written = now


class Keys:
    """All keys of the snapshot in force."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_hash: dict[str, Holder] = {}
        self._meters: dict[str, Meter] = {}
        self._kept: dict[str, wire.KeyUse] = {}

    def use(self, keys: Iterable[wire.Key]) -> None:
        """Put these in force; what a key has used stays counted."""
        before = {holder.key.id: holder for holder in self._by_hash.values()}
        found: dict[str, Holder] = {}
        for key in keys:
            holder = Holder(key, self._meter(key.id))
            old = before.get(key.id)
            if old is not None:
                holder.used_at, holder.source = old.used_at, old.source
            found[key.hash] = holder
        self._by_hash = found
        there = {holder.key.id for holder in found.values()}
        self._meters = {id: meter for id, meter in self._meters.items() if id in there or meter.busy}

    def _meter(self, id: str) -> Meter:
        meter = self._meters.get(id)
        if meter is None:
            meter = self._meters[id] = Meter()
            if id in self._kept:
                meter.restore(self._kept.pop(id))
        return meter

    def find(self, secret: bytes, source: str) -> Holder:
        """The key with this secret. Raises `Refusal`: 401 for none, an ended or a revoked one, which look the same."""
        holder = self._by_hash.get(hashlib.sha256(secret).hexdigest())
        if holder is None:
            raise Refusal(401, "this API key is not known: it is wrong, or was revoked", "invalid_api_key")
        holder.come_from(source, self._clock())
        return holder

    def now(self) -> float:
        return self._clock()

    def seen(self) -> tuple[dict[str, float], dict[str, str]]:
        """Of keys that were ever used: when, and from where, last."""
        used = [holder for holder in self._by_hash.values() if holder.used_at]
        return {h.key.id: round(h.used_at, 3) for h in used}, {h.key.id: h.source for h in used}

    def hold(self, busy: dict[str, int], settled: dict[str, int]) -> None:
        """Take what a gateway before this one still has in flight, and by how much its reservations were wrong."""
        for id, meter in self._meters.items():
            meter.elsewhere = busy.get(id, 0)
            meter.day_tokens = max(0, meter.day_tokens + settled.get(id, 0))

    def in_flight(self) -> tuple[dict[str, int], dict[str, int]]:
        """For the gateway after this one: requests by key, and what `Meter.drift` has come to since the last call."""
        busy = {id: meter.busy for id, meter in self._meters.items() if meter.busy}
        settled = {id: drift for id, meter in self._meters.items() if (drift := meter.take_drift())}
        return busy, settled

    def kept(self) -> dict[str, wire.KeyUse]:
        """What the next gateway goes on from."""
        return {**self._kept, **{id: meter.kept() for id, meter in self._meters.items() if meter.day_tokens}}

    def restore(self, kept: dict[str, wire.KeyUse]) -> None:
        """Go on from what an earlier gateway has kept, also for keys that come with a later snapshot."""
        for id, use in kept.items():
            meter = self._meters.get(id)
            if meter is not None:
                meter.restore(use)
            else:
                self._kept[id] = use
