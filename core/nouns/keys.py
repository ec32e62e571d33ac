"""API keys: what people see of them. The secret is in none but the one that was just made."""

from __future__ import annotations

from core.nouns.access import Grant, ServiceAccount, Subject
from core.nouns.base import Noun
from core.nouns.limits import Limits

ENDPOINTS = (
    "chat/completions", "completions", "embeddings", "responses", "messages", "rerank", "tokenize", "detokenize",
    "models",
)  # fmt: skip
"""What a key may be bound to. With `responses` and `messages` go the routes that count their tokens."""


class Key(Noun, frozen=True, kw_only=True):
    """An API key of a user, a team or a service account. It may never do more than its owner."""

    id: str
    name: str
    """Of its owner's keys the only one with this name that is in use."""
    owner: Subject
    begins: str
    """The first characters of its secret, to know it by."""
    deployments: tuple[str, ...] = ("*",)
    """Names of deployments, a star at the end only."""
    endpoints: tuple[str, ...] = ()
    """Routes like `chat/completions`; empty: all."""
    sources: tuple[str, ...] = ()
    """CIDR networks; empty: everywhere."""
    limits: Limits = Limits()
    until: float | None = None
    created_at: float
    created_by: str
    rotated_at: float | None = None
    old_until: float | None = None
    """Until when the secret before the last rotation still works."""
    revoked_at: float | None = None
    used_at: float | None = None
    used_from: str = ""
    """`unix` or an address."""
    state: str = "active"
    """active, expired, revoked, `owner gone` (the host no longer knows the user) or `owner disabled` (the account)."""


class FoundKey(Key, frozen=True, kw_only=True):
    """The key that a secret is of, or was."""

    away_at: float | None = None
    """When that secret was rotated away (epoch seconds); None: it is the key's own."""
    works_until: float | None = None
    """Until when it works all the same, beside the one that replaced it; None: no more."""


class AccountDetail(Noun, frozen=True, kw_only=True):
    """A service account with what it was granted, its keys, and what comes of it now."""

    account: ServiceAccount
    grants: tuple[Grant, ...]
    keys: tuple[Key, ...]
    uses: tuple[str, ...]
    """Scopes of deployments that it may use now: what it was granted, as far as its owner may."""
    barred: tuple[str, ...] = ()
    """Scopes that are denied to it or to its owner, whatever `uses` says."""


class NewKey(Key, frozen=True, kw_only=True):
    """A key that was just made or rotated, with its secret, which is shown this once."""

    key: str
