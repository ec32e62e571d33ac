"""What answers of a model took on this host, compared with what was reckoned: the correction of the next reckoning."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from core.catalog.speed import CORRECTION, bucket
from core.nouns import Noun, Seen

SHORT_ANSWER, SHORT_PROMPT = 16, 64
"""Tokens: what is shorter says little of a rate."""
NEWEST = 0.3
"""How much the newest counts at least: a host changes."""


class Answered(Noun, frozen=True, kw_only=True):
    """One request that a replica answered as a stream; times in seconds."""

    ended: float
    total_s: float
    queue_s: float
    first_s: float
    """To its first token, from its beginning on, the queue included."""
    prompt: int
    cached: int
    answer: int

    @property
    def began(self) -> float:
        """When it had its slot."""
        return self.ended - self.total_s + self.queue_s

    @property
    def first(self) -> float:
        return self.ended - self.total_s + self.first_s


class Observation(Noun, frozen=True, kw_only=True):
    """A rate, and what it was measured with."""

    what: str
    rate: float
    users: int
    ctx: int
    """Cells that were filled on average."""
    prompt: int
    at: float
    measured: bool = False
    """By `models bench`: it counts alone, and how far it is from what was seen before is how much that varies."""


def observe(answered: Sequence[Answered]) -> list[Observation]:
    """What the requests of one replica say, all that ran at these times being among them."""
    ordered = sorted(answered, key=lambda each: each.began)
    begins = [each.began for each in ordered]
    longest = max((each.ended - each.began for each in ordered), default=0.0)
    found = []
    for each in ordered:
        near = ordered[bisect_left(begins, each.began - longest) : bisect_right(begins, each.ended)]
        others = [other for other in near if other is not each]
        if each.answer >= SHORT_ANSWER and each.ended > each.first:
            users = 1 + sum(_shared(each.first, each.ended, other) for other in others)
            found.append(_decoded(each, max(1, round(users))))
        alone = not any(_shared(each.began, each.first, other) for other in others)
        if alone and each.prompt - each.cached >= SHORT_PROMPT and each.first > each.began:
            found.append(_read(each))
    return found


def _decoded(each: Answered, users: int) -> Observation:
    rate = (each.answer - 1) / (each.ended - each.first)
    ctx = each.prompt + each.answer // 2
    return Observation(what="decode", rate=rate, users=users, ctx=ctx, prompt=each.prompt, at=each.ended)


def _read(each: Answered) -> Observation:
    read = each.prompt - each.cached
    rate = read / (each.first - each.began)
    return Observation(what="prefill", rate=rate, users=1, ctx=each.prompt, prompt=read, at=each.ended)


def _shared(begin: float, end: float, other: Answered) -> float:
    """For what part of a time another one had its slot too."""
    return max(0.0, min(end, other.ended) - max(begin, other.began)) / (end - begin) if end > begin else 0.0


def fold(
    old: Seen | None, observation: Observation, expected: float, *, sha256: str, engine: str, version: str, threads: int
) -> Seen | None:
    """The mean with one more; None for one that is no measurement of this model (beyond the bounds). `expected` is what
    was reckoned, 0 where nothing could be."""
    ratio = observation.rate / expected if expected > 0 else 1.0
    if not CORRECTION[0] <= ratio <= CORRECTION[1] or not math.isfinite(ratio):
        return None
    if old is None or old.version != version:  # another build is another program
        return Seen(
            sha256=sha256, engine=engine, version=version, threads=threads, users=bucket(observation.users),
            what=observation.what, rate=observation.rate, ratio=ratio, spread=0.0, count=1, at=observation.at,
        )  # fmt: skip
    part = 1.0 if observation.measured else max(NEWEST, 1 / (old.count + 1))
    mean = math.exp((1 - part) * math.log(old.ratio) + part * math.log(ratio))
    spread = (1 - part) * old.spread + part * abs(ratio / mean - 1)
    if observation.measured:
        spread = max(abs(ratio / old.ratio - 1), (1 - NEWEST) * old.spread)
    return Seen(
        sha256=sha256, engine=engine, version=version, threads=threads, users=old.users, what=old.what,
        rate=(1 - part) * old.rate + part * observation.rate, ratio=mean, spread=spread, count=old.count + 1,
        at=observation.at,
    )  # fmt: skip
