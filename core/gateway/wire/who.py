"""Who may use which deployment: rules for peers of the socket, and keys."""

from __future__ import annotations

import msgspec

from core.gateway.wire.limits import Limits


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may, or with `deny` may not, use the deployments that `scope` matches: `*`, `deployment:chat`,
    `deployment:team-a-*`. A denial wins."""

    user: bool
    """`id` is a uid, else a gid."""
    id: int
    scope: str
    deny: bool = False
    until: float | None = None
    """Epoch seconds at which it ends."""
    glass: bool = False
    """No denial holds against it. (A gateway of one release back does not know this, and then the denial wins.)"""


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use the socket without a key: peers with one of these uids or groups use everything, the others what the
    rules give them. (A gateway of one release back knows no rules and refuses these.)"""

    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    rules: tuple[Rule, ...] = ()


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key. What its owner may not use, it may not: `rules` are the owner's (None: he may use everything)."""

    id: str
    name: str
    hash: str
    """SHA-256 of the secret, 64 hex digits; the secret itself is nowhere."""
    owner: str
    uid: int
    rules: tuple[Rule, ...] | None = None
    deployments: tuple[str, ...] = ("*",)
    """Names, a star at the end only."""
    endpoints: tuple[str, ...] = ()
    """Routes like `chat/completions`; empty: all."""
    sources: tuple[str, ...] = ()
    """CIDR networks that it may come from; empty: from everywhere, the Unix socket too."""
    until: float | None = None
    limits: Limits = Limits()
    """Its owner's word; what `Limited` says of the key holds beside it."""
    behind: int = -1
    """The uid of the user whose limits apply too, as its owner or as that of the service account that owns it."""
    groups: tuple[int, ...] = ()
    """Of this user, as numbers."""
    team: str = ""
    """The team whose limits apply too, in his place."""
    replaced: bool = False
    """This secret was rotated away: `until` is the end of its grace."""
    local: bool = False
    """It may come from the Unix socket though it is bound to networks. (One of one release back lets it anyway.)"""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that worked once and does not now. It opens nothing: it is told for the words of its refusal."""

    hash: str
    key: str
    """Id of its key."""
    name: str
    uid: int
    """Of the key's owner."""
    why: str
    """rotated, expired, revoked, owner gone, owner disabled"""
