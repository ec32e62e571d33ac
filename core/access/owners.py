"""Who owns API keys, as they are now: whether they are still there, and what they may use at this moment.

A key never may more than its owner. Of a user who has left the host no key works, and none of his service accounts'.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from core.access.accountrights import USE, bars, owns
from core.access.gate import Gate
from core.access.people import actor_named
from core.access.rights import Use, both
from core.errors import CorralError, NotFound
from core.nouns import Actor, Grant, Key, Subject

log = logging.getLogger(__name__)


class Owners:
    """The users that own keys or service accounts, looked up from time to time."""

    def __init__(self, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._gate = gate
        self._clock = clock
        self._there: dict[Subject, Actor | None] = {}
        """As they are now; None: the host does not know them any more."""

    async def look(self, keys: Iterable[Key]) -> bool:
        """Look again at who owns these keys that still work; whether anything has changed."""
        found: dict[Subject, Actor | None] = {}
        accounts = self._gate.rights.accounts
        owners = {key.owner for key in keys if key.revoked_at is None}
        owners |= {account.owner for account in accounts.values()}
        for owner in (each for each in owners if each.kind == "user"):
            try:
                actor = await actor_named(owner.name)
            except NotFound:
                found[owner] = None
            except CorralError as error:  # a slow directory locks nobody out
                log.warning("%s", error)
                found[owner] = self._there.get(owner)
            else:
                found[owner] = actor if actor.uid == owner.id else None
        before, self._there = self._there, found
        return found != before

    def owns(self, actor: Actor, owner: Subject) -> bool:
        """Is it he himself, a team that he is in, or a service account of either?"""
        rights = self._gate.rights
        return owns(rights, actor, owner) if owner.kind == "account" else rights.meant(owner, actor)

    def behind(self, owner: Subject) -> tuple[Subject, tuple[int, ...]]:
        """The user or team whose limits apply too (the owner, or the owner of the service account), and of a user his
        groups."""
        account = self._gate.rights.accounts.get(owner.name) if owner.kind == "account" else None
        behind = account.owner if account is not None else owner
        actor = self._there.get(behind)
        return behind, actor.groups if actor is not None else ()

    def uses(self, owner: Subject) -> tuple[tuple[Use, ...] | None, bool]:
        """What an owner may use (None: everything), and whether he is there. A service account may what it was granted,
        as far as its own owner may."""
        rights = self._gate.rights
        if owner.kind == "account":
            account = rights.accounts.get(owner.name)
            if account is None or account.disabled_at is not None:
                return (), False
            his, there = self.uses(account.owner)
            return (both(self._granted(owner), his), True) if there else ((), False)
        if owner.kind == "team":
            if owner.name not in rights.teams:
                return (), False
            return (*self._granted(owner), *self._barred(owner)), True
        actor = self._there.get(owner)
        if actor is None:
            return (), False
        barred = self._barred(owner, actor)
        if rights.almighty(actor):
            return (Use("user", owner.id, False, "*", None), *barred) if barred else None, True
        return (*_uses(owner, rights.unbroken.of(actor, self._clock())), *barred), True

    def _barred(self, owner: Subject, actor: Actor | None = None) -> tuple[Use, ...]:
        """Deployments that are sensitive, and whose groups this owner is in none of. A team is in none but itself."""
        rights = self._gate.rights
        return tuple(
            Use("user", owner.id, True, f"deployment:{mark.deployment}", None)
            for mark in rights.marks.values()
            if bars(rights, mark, owner, actor)
        )

    def _granted(self, owner: Subject) -> tuple[Use, ...]:
        """What was granted or denied to a team or an account by name."""
        rights = self._gate.rights
        return _uses(owner, [(g, rights.permissions_of(g.what)) for g in rights.grants if g.subject == owner])

    def state(self, key: Key) -> str:
        """active, or why it is not."""
        if key.revoked_at is not None:
            return "revoked"
        if key.until is not None and self._clock() >= key.until:
            return "expired"
        if self.uses(key.owner)[1]:
            return "active"
        account = self._gate.rights.accounts.get(key.owner.name) if key.owner.kind == "account" else None
        return "owner disabled" if account is not None and account.disabled_at is not None else "owner gone"


def _uses(owner: Subject, grants: Iterable[tuple[Grant, frozenset[str]]]) -> tuple[Use, ...]:
    return tuple(
        Use("user", owner.id, grant.effect == "deny", grant.scope, grant.until)
        for grant, means in grants
        if USE in means
    )
