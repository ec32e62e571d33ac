"""The one gate: who, may they, is there room, record it, do it; refusals are recorded, nothing is half done."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from core.access.permissions import BEYOND, PERMISSIONS
from core.access.rights import Rights
from core.audit import Audit
from core.errors import CorralError, NotAllowed, StoreError, Unseen, missing
from core.nouns import Actor, Outcome
from core.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")
MAKING = ("models.import", "deployments.create", "limits.set", "keys.manage", "tiers.manage")
"""What they are about need not be there: `not found` would be no answer."""


class Effect(msgspec.Struct, frozen=True):
    """An effect outside the database whose intent is recorded and whose outcome is not yet."""

    id: str
    actor: Actor
    verb: str
    object: str
    request: str


def _nothing(db: sqlite3.Connection, effect: str) -> None:
    """What most intents write beside themselves."""


class Gate:
    """Passes or refuses, and records either in the transaction of the change."""

    def __init__(
        self, store: Store, audit: Audit, rights: Rights, *, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self._store = store
        self._audit = audit
        self._clock = clock
        self.rights = rights
        """Those in force. core.access.service replaces them, in the writer's thread and right after the commit."""
        self._owed: list[tuple[Effect, Outcome, Any, str]] = []
        """Outcomes that could not be written yet, oldest first."""
        self._owing = asyncio.Lock()

    def may(self, actor: Actor, permission: str, object: str) -> bool:
        """Whether `actor` may do it now."""
        return self.rights.decide(actor, permission, object, self._clock()).allowed

    def anywhere(self, actor: Actor, permission: str) -> bool:
        """Whether there may be an object on which `actor` may do it."""
        return self.rights.anywhere(actor, permission, self._clock())

    def require_somewhere(self, actor: Actor, permission: str) -> None:
        """Raises `NotAllowed` if there is nothing on which `actor` may do it."""
        if not self.anywhere(actor, permission):
            raise NotAllowed(
                f"{actor.name} may not {permission}", f"no grant gives {actor.name} that on anything",
                self._glass(actor) or _whom_to_ask(permission, "ask an admin: `corral access grant`"),
            )  # fmt: skip

    def require(self, actor: Actor, permission: str, object: str) -> None:
        """Raises `NotAllowed` with the reason, or `NotFound` for an object that `actor` may not even see."""
        decision = self.rights.decide(actor, permission, object, self._clock())
        if decision.allowed:
            return
        kind, _, name = object.partition(":")
        see = f"{kind}s.read"
        if see in PERMISSIONS and permission not in MAKING and not self.may(actor, see, object):
            raise missing(kind, name, reason=f"{actor.name} may not {permission} on {object}: {decision.why}")
        raise NotAllowed(
            f"{actor.name} may not {permission} on {object}", decision.why,
            self._glass(actor)
            or _whom_to_ask(
                permission,
                f"ask an admin, who sees why with `corral access explain {actor.name} {permission} {object}`",
            ),
        )  # fmt: skip

    def _glass(self, actor: Actor) -> str:
        """What somebody who may break the glass can do; "" for all others."""
        if not self.may(actor, "access.break-glass", "access:all"):
            return ""
        return "in an emergency: `corral access break-glass --reason ...`, which everybody is told of"

    async def act(
        self, actor: Actor, verb: str, object: str, request: str,
        fn: Callable[[sqlite3.Connection], tuple[T, Any, Any]], *, reason: str = "", permission: str = "",
        on: str = "", tried: Any = None,
    ) -> T:  # fmt: skip
        """Do `fn` (which gives result, before, after) and record it, in one transaction. `permission` is the verb and
        `on` the object where nothing else is said; `on="*"`: held anywhere is enough. A right that was taken away while
        this waited for its turn does not count any more.

        An error of the family rolls `fn` back, is recorded as `refused` with its reason and with what was `tried` where
        verb and object do not say it, and is raised.
        """

        def work(db: sqlite3.Connection) -> T | CorralError:
            db.execute("SAVEPOINT act")
            try:
                if on == "*":
                    self.require_somewhere(actor, permission or verb)
                else:
                    self.require(actor, permission or verb, on or object)
                result, before, after = fn(db)
            except CorralError as error:
                db.execute("ROLLBACK TO act")
                db.execute("RELEASE act")
                why = error.reason if isinstance(error, Unseen) else str(error)
                self._audit.append(
                    db, actor=actor, verb=verb, object=object, request=request, outcome="refused",
                    after=None if tried is None else {"tried": tried}, reason=why,
                )  # fmt: skip
                error.recorded = True
                return error
            db.execute("RELEASE act")
            self._audit.append(
                db, actor=actor, verb=verb, object=object, request=request, outcome="done", before=before,
                after=after, reason=reason,
            )  # fmt: skip
            return result

        outcome = await self._store.transact(work)
        if isinstance(outcome, CorralError):
            raise outcome
        return outcome

    async def intent(
        self, actor: Actor, verb: str, object: str, request: str, *, before: Any = None, after: Any = None,
        reason: str = "", also: Callable[[sqlite3.Connection, str], object] = _nothing,
    ) -> Effect:  # fmt: skip
        """Record that an effect outside the database is about to happen. No record, no effect.

        `also` gets the effect's id and runs in the same transaction.
        """
        effect = Effect(secrets.token_hex(6), actor, verb, object, request)

        def work(db: sqlite3.Connection) -> None:
            also(db, effect.id)
            self._audit.append(
                db, actor=actor, verb=verb, object=object, request=request, outcome="intent", effect=effect.id,
                before=before, after=after, reason=reason,
            )  # fmt: skip

        await self._store.transact(work)
        return effect

    async def outcome(self, effect: Effect, outcome: Outcome, *, after: Any = None, reason: str = "") -> None:
        """Record how the effect ended. It has ended, whatever the disk says: a record that cannot be written now is
        owed, and `recover` writes it later. If the daemon ends before, the next one records `interrupted`."""
        self._owed.append((effect, outcome, after, reason))
        try:
            await self.recover()
        except StoreError as error:
            log.error("the outcome of %s on %s is not recorded yet: %s", effect.verb, effect.object, error)

    async def recover(self) -> None:
        """Write the outcomes that are owed, in their order. Raises `StoreError`."""
        await asyncio.shield(self._pay())  # cancelled between the commit and the list, one would be written twice

    async def _pay(self) -> None:
        async with self._owing:
            while self._owed:
                effect, outcome, after, reason = self._owed[0]
                await self.record(
                    effect.actor, effect.verb, effect.object, effect.request, outcome, effect=effect.id, after=after,
                    reason=reason,
                )  # fmt: skip
                del self._owed[0]

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        return [f"{len(self._owed)} outcomes could not be recorded yet: look at the disk"] if self._owed else []

    async def refuse(self, actor: Actor, verb: str, object: str, request: str, reason: str) -> None:
        """Record a refusal."""
        await self.record(actor, verb, object, request, "refused", reason=reason)

    def denied(
        self, db: sqlite3.Connection, actor: Actor, verb: str, object: str, request: str, reason: str, *, after: Any
    ) -> None:
        """Record, in somebody else's transaction, that the gateway turned `actor` away."""
        self._audit.append(
            db, actor=actor, verb=verb, object=object, request=request, outcome="refused", after=after, reason=reason
        )

    async def record(
        self, actor: Actor, verb: str, object: str, request: str, outcome: Outcome, *, effect: str = "",
        before: Any = None, after: Any = None, reason: str = "",
    ) -> None:  # fmt: skip
        """Record what happened by itself: a start, a stop, a death."""

        def work(db: sqlite3.Connection) -> None:
            self._audit.append(
                db, actor=actor, verb=verb, object=object, request=request, outcome=outcome, effect=effect,
                before=before, after=after, reason=reason,
            )  # fmt: skip

        await self._store.transact(work)


def _whom_to_ask(permission: str, admin: str) -> str:
    """`admin`, unless no role has this permission."""
    if permission not in BEYOND:
        return admin
    glass = f"corral access break-glass --reason … --what {permission}"
    return f"no role has it: root of this host gives it, after `{glass}`"
