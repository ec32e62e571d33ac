"""Limits: what a subject may use, and what is left of it."""

from __future__ import annotations

from core.nouns.base import Noun


class Limits(Noun, frozen=True, kw_only=True):
    """What a subject may use. 0: not said; -1: no limit, whatever a default for each user or key says. A minute slides;
    a day and a month are those of UTC."""

    rpm: int = 0
    """Requests a minute."""
    tpm: int = 0
    """Tokens a minute, in and out."""
    concurrency: int = 0
    """Requests at once."""
    daily_tokens: int = 0
    tpm_in: int = 0
    tpm_out: int = 0
    daily_in: int = 0
    daily_out: int = 0
    monthly_tokens: int = 0
    monthly_in: int = 0
    monthly_out: int = 0
    longest_prompt: int = 0
    """Tokens of one prompt, by the estimate of 4 bytes a token."""
    longest_answer: int = 0
    """Tokens of one answer: set where a request does not say max_tokens, refused where it says more."""
    hours: str = ""
    """`mon-fri 08:00-18:00, sat 09:00-12:00 Europe/Berlin`; `always`: at any time, whatever a default says."""


class Limit(Noun, frozen=True, kw_only=True):
    """What was set for one subject; what a key's owner sets for his key is the key's and holds beside it."""

    subject: str
    """`user:alice`, `group:staff`, `team:ml`, `key:alice/ci`, `model:tiny`, `deployment:chat`: all that it means count
    together. `each:user`, `each:key`, `each:group:staff`, `each:team:ml`: everyone by himself."""
    id: str = ""
    """The uid, the gid or the key's id that the name had when it was set; "" for the others."""
    limits: Limits
    reason: str = ""
    by: str
    at: float


class Left(Noun, frozen=True, kw_only=True):
    """What is left of one limit that applies to somebody."""

    subject: str
    """Whose it is: as `Limit.subject`, with a name."""
    kind: str
    """A field of `Limits`."""
    most: int
    used: int
    left: int
    free_at: float | None = None
    """When all of it is free again (for hours: when they begin), epoch seconds; None: it is, or nobody can say."""
    words: str = ""
    """Hours, as they were written."""


class LimitView(Noun, frozen=True, kw_only=True):
    """A limit, with what is left of it: nothing for what counts everyone by himself, None while the gateway does not
    say."""

    limit: Limit | None
    """None: nothing is set for it by name, but defaults apply."""
    left: tuple[Left, ...] | None = ()
