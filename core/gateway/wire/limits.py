"""What subjects may use, and what they have used: as told, kept over a restart and handed over."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject may use. 0: not said; -1: no limit, whatever a default for each says. A minute slides; a day and a
    month are those of UTC. (A gateway of one release back knows the first four, of keys.)"""

    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0
    daily_tokens: int = 0
    tpm_in: int = 0
    tpm_out: int = 0
    daily_in: int = 0
    daily_out: int = 0
    monthly_tokens: int = 0
    monthly_in: int = 0
    monthly_out: int = 0
    longest_prompt: int = 0
    longest_answer: int = 0
    hours: str = ""
    """As core.hours reads them; `always`: at any time, whatever a default for each says."""


class Limited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a subject: `user:1000`, `group:100`, `team:ml`, `key:k1a2b3c4d`, `model:tiny`, `deployment:chat`. All
    that it means count together; of `each:user`, `each:group:100`, `each:team:ml` and `each:key` every one by itself.
    """

    subject: str
    name: str
    """Of the user, group or team."""
    limits: Limits
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    """Whom it means, for users, groups and teams."""


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject has used, for the gateway that starts next; without what is reserved. `tokens` are those of the
    `day`, in and out. (A gateway of one release back knows these two alone, of keys.)"""

    day: str = ""
    tokens: int = 0
    daily_in: int = 0
    daily_out: int = 0
    month: str = ""
    monthly_tokens: int = 0
    monthly_in: int = 0
    monthly_out: int = 0
    minutes: dict[str, dict[int, int]] = {}
    """By kind of limit: how much in which second since the boot."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """`counts.json`: what all subjects have used, and the clock by which they did."""

    version: int = 1
    boot: str
    offset: float
    """From seconds since the boot to unix time."""
    at: float
    """Unix time by this clock."""
    uses: dict[str, Use]


Four = tuple[int, int, int, int]
"""Tokens that are reserved beyond what was used, in and out; and used since the hand-over, in and out."""


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway that was replaced still does for one subject: answers in flight, requests let in since the
    hand-over that count in a minute, and tokens of the last minute, of the day and of the month that it is now."""

    requests: int = 0
    asked: int = 0
    minute: Four = (0, 0, 0, 0)
    day: Four = (0, 0, 0, 0)
    month: Four = (0, 0, 0, 0)


class Spent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject has used of one limit (`kind`: a field of `Limits`). `seconds`: until all of it is free, for hours
    until they begin, 0 while they are. Hours have `words` and no number."""

    subject: str
    whose: str
    kind: str
    most: int
    used: int
    seconds: float = 0.0
    words: str = ""
