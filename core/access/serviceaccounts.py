"""Service accounts: programs with a name of their own, which act through API keys and belong to a user or a team.

An account may what it was granted, and never more than its owner may at that moment. With a user who has left the host
go the keys of his accounts; those of a team stay.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from core.access import keytables, tables
from core.access.accountrights import owns
from core.access.gate import Gate
from core.access.keys import Keys
from core.access.keytables import KeyRow
from core.access.people import actor_named, group_of, subject_named
from core.access.rights import Rights
from core.access.service import Access
from core.errors import Conflict, Invalid, NotAllowed, NotFound, missing
from core.nouns import AccountDetail, Actor, ServiceAccount, Subject

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
WORDS = 200
"""Characters of what it is for."""


class ServiceAccounts:
    """The service that owns the noun."""

    def __init__(self, gate: Gate, access: Access, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._gate = gate
        self._access = access
        self._keys = keys
        self._clock = clock

    @property
    def _rights(self) -> Rights:
        return self._gate.rights

    # ---------------------------------------------------------------------------------------- what is there

    def ls(self, actor: Actor) -> list[ServiceAccount]:
        """Those that `actor` sees, by name."""
        return [self._state(each) for each in self._rights.accounts.values() if self._sees(actor, each)]

    def get(self, actor: Actor, name: str) -> AccountDetail:
        """With its grants and keys, and what comes of them now. Raises `NotFound`."""
        account = self._rights.accounts.get(name)
        if account is None or not self._sees(actor, account):
            raise missing("account", name)
        uses, there = self._keys.owners.uses(account.subject)
        now = self._clock()
        lasting = [use for use in uses or () if use.until is None or now < use.until] if there else []
        return AccountDetail(
            account=self._state(account),
            grants=tuple(each for each in self._rights.grants if each.subject == account.subject),
            keys=tuple(self._keys.of(account.subject)),
            uses=tuple(sorted({use.scope for use in lasting if not use.deny})),
            barred=tuple(sorted({use.scope for use in lasting if use.deny})),
        )

    def _sees(self, actor: Actor, account: ServiceAccount) -> bool:
        return owns(self._rights, actor, account.subject) or self._gate.may(
            actor, "accounts.read", f"account:{account.name}"
        )

    def _state(self, account: ServiceAccount) -> ServiceAccount:
        state = "active" if self._keys.owners.uses(account.owner)[1] else "owner gone"
        return msgspec.structs.replace(account, state=state if account.disabled_at is None else "disabled")

    # ---------------------------------------------------------------------------------------- verbs

    async def create(
        self, actor: Actor, request: str, name: str, *, owner: str = "", words: str = ""
    ) -> ServiceAccount:  # fmt: skip
        """Make one; it may nothing until something is granted to it. `owner`: `user:alice` or `team:ml`, by default who
        asks. Raises `Invalid`, `Conflict`, `NotFound`, `NotAllowed`."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a service account", "a-z, 0-9, _ and -, up to 63 of them")
        whose = await subject_named(owner) if owner else Subject(kind="user", name=actor.name, id=actor.uid)
        if whose.kind not in ("user", "team"):
            raise Invalid("a service account belongs to a user or a team",
                          todo="make a team of that group: corral access teams set")  # fmt: skip
        await _not_a_person(name)
        account = ServiceAccount(
            name=name, owner=whose, words=words[:WORDS], created_at=self._clock(), created_by=actor.name
        )

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            rights = self._rights
            if whose.kind == "team" and whose.name not in rights.teams:
                raise NotFound(f"there is no team {whose.name}", todo="corral access teams")
            if not rights.meant(whose, actor) and not self._gate.may(actor, "accounts.manage", f"account:{name}"):
                raise NotAllowed(f"{actor.name} may not make service accounts of {whose}",
                                 f"no grant gives accounts.manage on account:{name}", "ask an admin")  # fmt: skip
            if name in rights.accounts:
                raise Conflict(f"there is a service account {name} already", todo="take another name")
            if any(row.key.owner == account.subject for row in keytables.all_keys(db)):
                raise Conflict(f"{name} was a service account before", "its revoked keys and its usage bear that name",
                               "take another name")  # fmt: skip
            if name in rights.teams:
                raise Conflict(f"there is a team {name}", "one would be taken for the other", "take another name")
            tables.put_account(db, account)
            self._access.put_in_force(db)
            return None, None, account

        needs = "accounts.own" if self._rights.meant(whose, actor) else "accounts.manage"
        await self._act(actor, "accounts.create", name, request, work, needs=needs, on="*")
        return self._state(account)

    async def disable(self, actor: Actor, request: str, name: str, reason: str = "") -> ServiceAccount:
        """End its keys at once, with what they are being answered, until `enable`."""

        def change(old: ServiceAccount) -> ServiceAccount:
            if old.disabled_at is not None:
                raise Conflict(f"{name} is disabled already", f"by {old.disabled_by}")
            return msgspec.structs.replace(
                old, disabled_at=self._clock(), disabled_by=actor.name, disabled_for=reason[:500]
            )

        return await self._change(actor, "accounts.disable", name, request, change, reason)

    async def enable(self, actor: Actor, request: str, name: str, reason: str = "") -> ServiceAccount:
        """Let its keys work again. What somebody who is no owner of it disabled, no owner enables."""

        def change(old: ServiceAccount) -> ServiceAccount:
            if old.disabled_at is None:
                raise Conflict(f"{name} is not disabled")
            if old.disabled_by != actor.name and not self._gate.may(actor, "accounts.manage", f"account:{name}"):
                raise NotAllowed(f"{old.disabled_by} disabled {name}", old.disabled_for, "ask him, or an admin")
            return msgspec.structs.replace(old, disabled_at=None, disabled_by="", disabled_for="")

        return await self._change(actor, "accounts.enable", name, request, change, reason)

    async def _change(
        self, actor: Actor, verb: str, name: str, request: str, change: Callable[[ServiceAccount], ServiceAccount],
        reason: str,
    ) -> ServiceAccount:  # fmt: skip
        def work(db: sqlite3.Connection) -> tuple[ServiceAccount, Any, Any]:
            old = self._managed(actor, name)
            new = change(old)
            tables.put_account(db, new)
            self._access.put_in_force(db)
            return new, old, new

        return self._state(await self._act(actor, verb, name, request, work, reason=reason))

    async def rm(self, actor: Actor, request: str, name: str, reason: str = "") -> None:
        """Remove it: its keys are revoked and its grants go with it, in one transaction."""
        ended: list[KeyRow] = []

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            old = self._managed(actor, name)
            grants = [each for each in self._rights.grants if each.subject == old.subject]
            for grant in grants:
                tables.delete_grant(db, grant.id)
            ended[:] = _revoked(db, old.subject, self._clock())
            tables.delete_account(db, name)
            self._access.put_in_force(db)
            return None, {"account": old, "grants": grants, "keys": [row.key.id for row in ended]}, None

        await self._act(actor, "accounts.rm", name, request, work, reason=reason, ended=ended)

    def _managed(self, actor: Actor, name: str) -> ServiceAccount:
        """One that `actor` may change. Raises `NotFound`, `NotAllowed`."""
        account = self._rights.accounts.get(name)
        if account is None or not self._sees(actor, account):
            raise missing("account", name)
        if owns(self._rights, actor, account.subject):
            if not self._gate.anywhere(actor, "accounts.own"):
                raise NotAllowed(f"{actor.name} may not have service accounts", "no grant gives accounts.own",
                                 "ask an admin")  # fmt: skip
        else:
            self._gate.require(actor, "accounts.manage", f"account:{name}")
        return account

    async def _act(
        self, actor: Actor, verb: str, name: str, request: str,
        work: Callable[[sqlite3.Connection], tuple[Any, Any, Any]], *, reason: str = "", needs: str = "", on: str = "",
        ended: Sequence[KeyRow] = (),
    ) -> Any:  # fmt: skip
        if not needs:
            mine = owns(self._rights, actor, Subject(kind="account", name=name))
            needs = "accounts.own" if mine else "accounts.manage"
        on = on or ("*" if needs == "accounts.own" else f"account:{name[:63]}")
        result = await self._gate.act(
            actor, verb, f"account:{name[:63]}", request, work, reason=reason, permission=needs, on=on
        )  # fmt: skip
        await self._keys.follow(ended)
        return result


async def _not_a_person(name: str) -> None:
    """Raises `Conflict` for the name of a user or a group of the host: usage and the trail would be misread."""
    looks: tuple[tuple[str, Callable[[str], Awaitable[object]]], ...] = (("user", actor_named), ("group", group_of))
    for kind, look in looks:
        try:
            await look(name)
        except NotFound:
            continue
        raise Conflict(f"this host has a {kind} {name}", "one would be taken for the other", "take another name")


def _revoked(db: sqlite3.Connection, owner: Subject, now: float) -> list[KeyRow]:
    """Revoke all keys of `owner`; those that were not yet."""
    found = []
    for row in keytables.all_keys(db):
        if row.key.owner == owner and row.key.revoked_at is None:
            row = row._replace(key=msgspec.structs.replace(row.key, revoked_at=now, old_until=None))
            keytables.put_key(db, row)
            found.append(row)
    return found
