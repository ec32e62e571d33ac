"""API keys: made, limited, rotated, revoked; and what the gateway is told of them.

A key belongs to a user, a team or a service account and never may more than its owner may at that moment: the owner's
rights are looked up when the gateway is told, each time that rights change and each minute. Of a user who has left the
host no key works, and none of his service accounts'.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets as random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from core.access import keytables
from core.access.accountrights import USE, owns
from core.access.gate import Gate
from core.access.keytables import KeyRow
from core.access.limitrules import check
from core.access.people import actor_named, subject_named
from core.access.rights import Use, both
from core.access.secrets import SHOWN, hash_of, new_secret, well_formed
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound, missing
from core.nouns import ENDPOINTS, Actor, Grant, Key, Limits, NewKey, Subject
from core.store import Store

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
GRACE_S = 30 * 86400.0
"""The longest time for which a secret works beside the one that replaced it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\*?|\*")


class Told(NamedTuple):
    """One secret of a key, for the gateway: until when it works, and what its owner may use (None: everything)."""

    key: Key
    hash: str
    until: float | None
    uses: tuple[Use, ...] | None
    behind: Subject
    """The user or team whose limits apply too: its owner, or the owner of the service account that owns it."""
    groups: tuple[int, ...] = ()
    """Of that user."""


class Keys:
    """The service that owns the noun. `start` reads them; `on_change` is called after each change."""

    def __init__(self, store: Store, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._rows: dict[str, KeyRow] = {}
        self._owners: dict[Subject, Actor | None] = {}
        """Of users that own keys: as they are now; None: the host does not know them any more."""
        self._used: dict[str, tuple[float, str]] = {}
        """Uses that the database does not know yet."""
        self.on_change: list[Callable[[], None]] = []

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Read the keys and look at their owners."""
        self._rows = {row.key.id: row for row in await self._store.read(keytables.all_keys)}
        await self._look()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Look from time to time who is still there, and write down when keys were used, until cancelled."""
        while True:
            await pause(LOOK_EVERY_S)
            before = self._owners
            await self._look()
            if self._owners != before:
                self._tell()
            try:
                await self.write_uses()
            except CorralError as error:
                log.error("when keys were used is not written down: %s", error)

    async def _look(self) -> None:
        found: dict[Subject, Actor | None] = {}
        accounts = self._gate.rights.accounts
        owners = {row.key.owner for row in self._rows.values() if row.key.revoked_at is None}
        owners |= {account.owner for account in accounts.values()}
        for owner in (each for each in owners if each.kind == "user"):
            try:
                actor = await actor_named(owner.name)
            except NotFound:
                found[owner] = None
            except CorralError as error:  # a slow directory locks nobody out
                log.warning("%s", error)
                found[owner] = self._owners.get(owner)
            else:
                found[owner] = actor if actor.uid == owner.id else None
        self._owners = found

    async def follow(self, rows: Iterable[KeyRow] = ()) -> None:
        """Owners have changed, and with them these keys: look at them anew, and tell."""
        for row in rows:
            self._keep(row)
        await self._look()
        self._tell()

    def _keep(self, row: KeyRow) -> None:
        used = self._used.get(row.key.id)
        if used is not None:
            row = row._replace(key=msgspec.structs.replace(row.key, used_at=used[0], used_from=used[1]))
        self._rows[row.key.id] = row

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()

    # ---------------------------------------------------------------------------------------- for the gateway

    def told(self) -> list[Told]:
        """Every secret that works now, with what it may."""
        now, found = self._clock(), []
        for row in self._rows.values():
            key = row.key
            if key.revoked_at is not None or (key.until is not None and now >= key.until):
                continue
            uses, there = self.uses(key.owner)
            if not there:
                continue
            account = self._gate.rights.accounts.get(key.owner.name) if key.owner.kind == "account" else None
            behind = account.owner if account is not None else key.owner
            owner = self._owners.get(behind)
            groups = owner.groups if owner is not None else ()
            found.append(Told(key, row.hash, key.until, uses, behind, groups))
            if row.old_hash is not None and key.old_until is not None and now < key.old_until:
                until = key.old_until if key.until is None else min(key.until, key.old_until)
                found.append(Told(key, row.old_hash, until, uses, behind, groups))
        return found

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
        actor = self._owners.get(owner)
        if actor is None:
            return (), False
        barred = self._barred(owner, actor)
        if rights.almighty(actor):
            return (Use("user", owner.id, False, "*", None), *barred) if barred else None, True
        return (*_uses(owner, rights.of(actor, self._clock())), *barred), True

    def _barred(self, owner: Subject, actor: Actor | None = None) -> tuple[Use, ...]:
        """Deployments that are sensitive, and whose groups this owner is in none of. A team is in none but itself."""
        rights = self._gate.rights
        return tuple(
            Use("user", owner.id, True, f"deployment:{mark.deployment}", None)
            for mark in rights.marks.values()
            if not any(group == owner or (actor is not None and rights.meant(group, actor)) for group in mark.groups)
        )

    def _granted(self, owner: Subject) -> tuple[Use, ...]:
        """What was granted or denied to a team or an account by name."""
        rights = self._gate.rights
        return _uses(owner, [(g, rights.permissions_of(g.what)) for g in rights.grants if g.subject == owner])

    def used(self, when: Mapping[str, float], sources: Mapping[str, str]) -> None:
        """The gateway tells when keys were used last, and from where."""
        for id, at in when.items():
            row = self._rows.get(id)
            if row is not None:
                source = sources.get(id, row.key.used_from)
                self._rows[id] = row._replace(key=msgspec.structs.replace(row.key, used_at=at, used_from=source))
                self._used[id] = (at, source)

    async def write_uses(self) -> None:
        """Write down what `used` was told; at the end too. Raises `StoreError`."""
        news, self._used = self._used, {}

        def work(db: sqlite3.Connection) -> None:
            for row in keytables.all_keys(db):
                if row.key.id in news:
                    at, source = news[row.key.id]
                    keytables.put_key(
                        db, row._replace(key=msgspec.structs.replace(row.key, used_at=at, used_from=source))
                    )

        if news:
            try:
                await self._store.transact(work)
            except CorralError:
                self._used = {**news, **self._used}
                raise

    # ---------------------------------------------------------------------------------------- for people

    def _sees(self, actor: Actor, key: Key) -> bool:
        return self._owns(actor, key.owner) or self._gate.may(actor, "keys.read", _object(key))

    def all(self) -> list[Key]:
        """Every one, whoever asks: for names."""
        return [row.key for row in self._rows.values()]

    def owns(self, actor: Actor, owner: Subject) -> bool:
        """Is a key of `owner` his own, or a team's that he is in?"""
        return self._owns(actor, owner)

    def _owns(self, actor: Actor, owner: Subject) -> bool:
        """His own, a team's that he is in, or a service account's of either."""
        rights = self._gate.rights
        return owns(rights, actor, owner) if owner.kind == "account" else rights.meant(owner, actor)

    def _state(self, key: Key) -> Key:
        if key.revoked_at is not None:
            state = "revoked"
        elif key.until is not None and self._clock() >= key.until:
            state = "expired"
        elif self.uses(key.owner)[1]:
            state = "active"
        else:
            account = self._gate.rights.accounts.get(key.owner.name) if key.owner.kind == "account" else None
            state = "owner disabled" if account is not None and account.disabled_at is not None else "owner gone"
        return msgspec.structs.replace(key, state=state)

    def ls(self, actor: Actor) -> list[Key]:
        """Those that `actor` sees, oldest first."""
        return [self._state(row.key) for row in self._rows.values() if self._sees(actor, row.key)]

    def of(self, owner: Subject) -> list[Key]:
        """All of an owner, oldest first."""
        return [self._state(row.key) for row in self._rows.values() if row.key.owner == owner]

    def get(self, actor: Actor, name: str) -> Key:
        """By its id, its name, or OWNER/NAME. Raises `NotFound`, `Conflict` for a name of several."""
        return self._state(self._find(actor, name).key)

    def _find(self, actor: Actor, name: str) -> KeyRow:
        seen = [row for row in self._rows.values() if self._sees(actor, row.key)]
        found = [row for row in seen if row.key.id == name]
        if not found:
            owner, _, bare = name.rpartition("/")
            found = [row for row in seen if row.key.name == bare and (not owner or row.key.owner.name == owner)]
            active = [row for row in found if row.key.revoked_at is None]
            mine = [row for row in active if self._owns(actor, row.key.owner)]
            found = mine if len(mine) == 1 else active or found[-1:]
        if not found:
            raise NotFound(f"there is no key {name!r}", todo="see `corral keys ls`")
        if len(found) > 1:
            names = ", ".join(f"{row.key.owner.name}/{row.key.name}" for row in found[:5])
            raise Conflict(f"{name!r} is the name of several keys", names, "say OWNER/NAME, or the id")
        return found[0]

    def whose(self, actor: Actor, hash: str) -> Key:
        """The key with this hash of a secret, revoked ones too. Raises `NotFound`."""
        for row in self._rows.values():
            if hash in (row.hash, row.old_hash) and self._sees(actor, row.key):
                return self._state(row.key)
        raise NotFound("no key here has this secret", "it is another installation's, or one that was never made")

    async def create(
        self, actor: Actor, request: str, name: str, *, owner: str = "", deployments: tuple[str, ...] = ("*",),
        endpoints: tuple[str, ...] = (), sources: tuple[str, ...] = (), limits: Limits | None = None,
        until: float | None = None,
    ) -> NewKey:  # fmt: skip
        """Make a key. Its secret is in the answer and nowhere else. Raises `Invalid`, `Conflict`, `NotAllowed`."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a key", "a-z, 0-9, ., _ and -, up to 63 of them")
        whose = await subject_named(owner) if owner else Subject(kind="user", name=actor.name, id=actor.uid)
        if whose.kind == "group":
            raise Invalid(
                "a key belongs to a user, a team or a service account",
                todo="make a team of that group: corral access teams set",
            )
        limits = limits or Limits()
        _check(deployments, endpoints, sources, limits, until, self._clock())
        secret = new_secret()
        key = Key(
            id=f"k{random.token_hex(4)}", name=name, owner=whose, begins=secret[:SHOWN], deployments=deployments,
            endpoints=endpoints, sources=sources, limits=limits, until=until, created_at=self._clock(),
            created_by=actor.name,
        )  # fmt: skip
        row = KeyRow(key, hash_of(secret), None)

        def work(db: sqlite3.Connection) -> tuple[KeyRow, Any, Any]:
            self._may_manage(actor, key)
            self._holds(actor, key)
            if whose.kind == "team" and whose.name not in self._gate.rights.teams:
                raise NotFound(f"there is no team {whose.name}", todo="corral access teams")
            if whose.kind == "account" and whose.name not in self._gate.rights.accounts:
                raise missing("account", whose.name)
            for other in keytables.all_keys(db):
                if (other.key.owner, other.key.name) == (whose, name) and other.key.revoked_at is None:
                    raise Conflict(
                        f"{whose.name} has a key {name} already", other.key.id, "revoke it, or take another name"
                    )
            keytables.put_key(db, row)
            return row, None, key

        await self._act(actor, "keys.create", key, request, work)
        return _with_secret(self._state(key), secret)

    async def limit(self, actor: Actor, request: str, name: str, changes: Mapping[str, Any]) -> Key:
        """Change what a key may: limits by name (rpm, tpm, concurrency, daily_tokens), `deployments`, `endpoints`,
        `sources`, `until`. What is not named stays."""
        row = self._find(actor, name)
        limits = msgspec.structs.replace(
            row.key.limits, **{k: v for k, v in changes.items() if k in Limits.__struct_fields__}
        )
        others = {k: v for k, v in changes.items() if k in ("deployments", "endpoints", "sources", "until")}
        wanted = msgspec.structs.replace(row.key, limits=limits, **others)
        _check(wanted.deployments, wanted.endpoints, wanted.sources, limits, others.get("until"), self._clock())

        def change(key: Key) -> Key:
            return msgspec.structs.replace(key, limits=limits, **others)

        return (await self._change(actor, "keys.limit", row, request, change)).key

    async def rotate(self, actor: Actor, request: str, name: str, grace: float) -> NewKey:
        """A new secret; the old one works for `grace` seconds more."""
        if not 0 <= grace <= GRACE_S:
            raise Invalid(f"a grace of {grace:g} s", f"it is 0 to {GRACE_S / 86400:.0f} days")
        row, secret, now = self._find(actor, name), new_secret(), self._clock()

        def change(key: Key) -> Key:
            self._holds(actor, key)
            return msgspec.structs.replace(
                key, begins=secret[:SHOWN], rotated_at=now, old_until=now + grace if grace else None
            )

        new = await self._change(
            actor, "keys.rotate", row, request, change, hash=hash_of(secret), old=row.hash if grace else None
        )
        return _with_secret(self._state(new.key), secret)

    async def revoke(self, actor: Actor, request: str, name: str, reason: str = "") -> Key:
        """End it at once, with what it is being answered. It stays in the list, for `whose`."""
        row = self._find(actor, name)

        def change(key: Key) -> Key:
            return msgspec.structs.replace(key, revoked_at=self._clock(), old_until=None)

        return self._state((await self._change(actor, "keys.revoke", row, request, change, reason=reason)).key)

    async def _change(
        self, actor: Actor, verb: str, row: KeyRow, request: str, change: Callable[[Key], Key], *, hash: str = "",
        old: str | None = None, reason: str = "",
    ) -> KeyRow:  # fmt: skip
        def work(db: sqlite3.Connection) -> tuple[KeyRow, Any, Any]:
            self._may_manage(actor, row.key)
            now = next(each for each in keytables.all_keys(db) if each.key.id == row.key.id)
            if now.key.revoked_at is not None:
                raise Conflict(f"the key {now.key.name} was revoked", todo="make a new one")
            new = KeyRow(change(now.key), hash or now.hash, old if hash else now.old_hash)
            keytables.put_key(db, new)
            return new, now.key, new.key

        return await self._act(actor, verb, row.key, request, work, reason=reason)

    def _may_manage(self, actor: Actor, key: Key) -> None:
        """His own with `keys.own`, another's with `keys.manage`. Raises `NotAllowed`."""
        if self._owns(actor, key.owner):
            if not self._gate.anywhere(actor, "keys.own"):
                raise NotAllowed(f"{actor.name} may not have keys", "no grant gives keys.own", "ask an admin")
        else:
            self._gate.require(actor, "keys.manage", _object(key))

    def _holds(self, actor: Actor, key: Key) -> None:
        """Whoever gets to see the secret of another's key could use what that other may: he must hold it himself.
        Raises `NotAllowed`."""
        if self._owns(actor, key.owner):
            return
        for pattern in key.deployments:
            lacking = self._gate.rights.lacks(actor, USE, f"deployment:{pattern}", None, self._clock())
            if lacking:
                raise NotAllowed(f"{actor.name} may not hold a key of {key.owner}", lacking, "its owner may make it")

    async def _act(
        self, actor: Actor, verb: str, key: Key, request: str,
        work: Callable[[sqlite3.Connection], tuple[KeyRow, Any, Any]], *, reason: str = "",
    ) -> KeyRow:  # fmt: skip
        """Act in one transaction; it is in force when this returns, but for the gateway's word."""
        needs = "keys.own" if self._owns(actor, key.owner) else "keys.manage"
        on = "*" if needs == "keys.own" else _object(key)
        row = await self._gate.act(actor, verb, _object(key), request, work, reason=reason, permission=needs, on=on)
        await self.follow([row])
        return self._rows[row.key.id]


def _uses(owner: Subject, grants: Iterable[tuple[Grant, frozenset[str]]]) -> tuple[Use, ...]:
    return tuple(
        Use("user", owner.id, grant.effect == "deny", grant.scope, grant.until)
        for grant, means in grants
        if USE in means
    )


def _object(key: Key) -> str:
    return f"key:{key.owner.name}/{key.name}"


def _with_secret(key: Key, secret: str) -> NewKey:
    return NewKey(**{name: getattr(key, name) for name in Key.__struct_fields__}, key=secret)


def _check(
    deployments: tuple[str, ...], endpoints: tuple[str, ...], sources: tuple[str, ...], limits: Limits,
    until: float | None, now: float,
) -> None:  # fmt: skip
    """Raises `Invalid`."""
    if not deployments:
        raise Invalid("the key could use no deployment", todo="name some, or say *")
    for pattern in deployments:
        if not _PATTERN.fullmatch(pattern):
            raise Invalid(f"{pattern!r} is no name of deployments", "a star stands at the end only")
    for endpoint in endpoints:
        if endpoint not in ENDPOINTS:
            raise Invalid(f"there is no endpoint {endpoint!r}", f"there are: {', '.join(ENDPOINTS)}")
    for source in sources:
        try:
            ipaddress.ip_network(source, strict=False)
        except ValueError as error:
            raise Invalid(f"{source!r} is no network", str(error), "for example 10.1.0.0/16") from None
    check(limits, lifts=False)
    if until is not None and until <= now:
        raise Invalid("the key would end before it begins", todo="give an end that lies ahead")


__all__ = ["Keys", "Told", "hash_of", "well_formed"]
