"""API keys: made, limited, rotated, revoked; and what the gateway is told of them.

A key belongs to a user, a team or a service account and never may more than its owner may at that moment: the owner's
rights are looked up when the gateway is told, each time that rights change and each minute. Of a user who has left the
host no key works, and none of his service accounts'.
"""

from __future__ import annotations

import logging
import secrets as random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from core.access import keynames, keyrules, keytables
from core.access.accountrights import USE
from core.access.ended import Ended, ended
from core.access.gate import Gate
from core.access.keytables import KeyRow
from core.access.owners import Owners
from core.access.people import OWNERS, subject_named
from core.access.rights import Use
from core.access.secrets import SHOWN, hash_of, new_secret, well_formed
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound, missing
from core.nouns import Actor, FoundKey, Key, Limits, NewKey, Subject
from core.store import Store
from core.userfiles import UserChanges

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
GRACE_S = 30 * 86400.0
"""The longest time for which a secret works beside the one that replaced it."""


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
    replaced: bool = False
    """It was rotated away, and works beside the new one until then."""


class Keys:
    """The service that owns the noun. `start` reads them; `on_change` is called after each change."""

    def __init__(self, store: Store, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._rows: dict[str, KeyRow] = {}
        self._away: dict[str, tuple[str, float]] = {}
        """Of each secret that was rotated away, by its hash, the id of its key, and when."""
        self.owners = Owners(gate, clock=clock)
        self._changes = UserChanges()
        self._used: dict[str, tuple[float, str]] = {}
        """Uses that the database does not know yet."""
        self.on_change: list[Callable[[], None]] = []

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Read the keys and look at their owners."""
        self._rows = {row.key.id: row for row in await self._store.read(keytables.all_keys)}
        self._away = await self._store.read(keytables.away)
        await self._look()

    async def run(self, pause: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Look from time to time, and when the host's own files change, who is still there, and write down when keys
        were used, until cancelled."""
        while True:
            await (pause or self._changes.within)(LOOK_EVERY_S)
            if await self._look():
                self._tell()
            try:
                await self.write_uses()
            except CorralError as error:
                log.error("when keys were used is not written down: %s", error)

    async def _look(self) -> bool:
        return await self.owners.look([row.key for row in self._rows.values()])

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
            uses, there = self.owners.uses(key.owner)
            if not there:
                continue
            behind, groups = self.owners.behind(key.owner)
            found.append(Told(key, row.hash, key.until, uses, behind, groups))
            if row.old_hash is not None and key.old_until is not None and now < key.old_until:
                until = key.old_until if key.until is None else min(key.until, key.old_until)
                found.append(Told(key, row.old_hash, until, uses, behind, groups, replaced=True))
        return found

    def ended(self) -> list[Ended]:
        """Secrets that worked once and do not now, for the words with which they are refused."""
        return ended(self._rows.values(), self._away, self.owners.state, self._clock())

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
        return self.owners.owns(actor, key.owner) or self._gate.may(actor, "keys.read", _object(key))

    def all(self) -> list[Key]:
        """Every one, whoever asks: for names."""
        return [row.key for row in self._rows.values()]

    def known(self, id: str) -> Key | None:
        """The key with this id, revoked ones too, whoever asks: for names."""
        row = self._rows.get(id)
        return row.key if row is not None else None

    def _state(self, key: Key) -> Key:
        return msgspec.structs.replace(key, state=self.owners.state(key))

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
        return keynames.find(seen, lambda key: self.owners.owns(actor, key.owner), name)

    def matching(self, actor: Actor | None, text: str) -> list[Key]:
        """Those that `text` means (`keynames.matching`), revoked ones too. Of those that `actor` has himself; None: of
        all. Raises `NotFound`."""
        keys = [row.key for row in self._rows.values() if actor is None or self.owners.owns(actor, row.key.owner)]
        return keynames.matching(keys, text)

    async def whose(self, actor: Actor, hash: str) -> FoundKey:
        """The key with this hash of a secret, revoked ones too, and whether it was rotated away. Raises `NotFound`."""
        id, away = await self._store.read(lambda db: keytables.key_of(db, hash))
        row = self._rows.get(id)
        if row is None or not self._sees(actor, row.key):
            raise NotFound(
                "no key here has this secret", "it is another installation's, or one that was never made",
                "one that was rotated away before Corral kept that is not known either",
            )  # fmt: skip
        key, until = self._state(row.key), None
        if away is not None and hash == row.old_hash and key.state == "active":
            until = key.old_until if key.old_until is not None and self._clock() < key.old_until else None
        return FoundKey(**_fields(key), away_at=away, works_until=until)

    async def create(
        self, actor: Actor, request: str, name: str, *, owner: str = "", deployments: tuple[str, ...] = ("*",),
        endpoints: tuple[str, ...] = (), sources: tuple[str, ...] = (), limits: Limits | None = None,
        until: float | None = None,
    ) -> NewKey:  # fmt: skip
        """Make a key. Its secret is in the answer and nowhere else. Raises `Invalid`, `Conflict`, `NotAllowed`."""
        keyrules.check_name(name)
        whose = await subject_named(owner, OWNERS) if owner else Subject(kind="user", name=actor.name, id=actor.uid)
        if whose.kind == "group":
            raise Invalid(
                "a key belongs to a user, a team or a service account",
                todo="make a team of that group: corral access teams set",
            )
        limits = limits or Limits()
        keyrules.check(deployments, endpoints, sources, limits, until, self._clock())
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

        try:
            await self._act(actor, "keys.create", key, request, work, tried=key)
        except NotAllowed as error:
            if self.owners.owns(actor, whose) or self._gate.may(actor, "keys.manage", _object(key)):
                raise
            raise NotAllowed(f"{actor.name} may not make keys for {whose}", error.why, error.todo) from error
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
        keyrules.check(wanted.deployments, wanted.endpoints, wanted.sources, limits, others.get("until"), self._clock())

        def change(key: Key) -> Key:
            return msgspec.structs.replace(key, limits=limits, **others)

        return (await self._change(actor, "keys.limit", row, request, change, tried=changes)).key

    async def rotate(self, actor: Actor, request: str, name: str, grace: float) -> NewKey:
        """A new secret; the old one works for `grace` seconds more."""
        if not 0 <= grace <= GRACE_S:
            raise Invalid(f"a grace of {grace / 86400:.6g} days", f"it is 0 to {GRACE_S / 86400:.0f} days")
        row, secret, now = self._find(actor, name), new_secret(), self._clock()

        def change(key: Key) -> Key:
            self._holds(actor, key)
            self._works(key)
            return msgspec.structs.replace(
                key, begins=secret[:SHOWN], rotated_at=now, old_until=now + grace if grace else None
            )

        new = await self._change(actor, "keys.rotate", row, request, change, hash=hash_of(secret), keep=bool(grace))
        return _with_secret(self._state(new.key), secret)

    async def revoke(self, actor: Actor, request: str, name: str, reason: str = "") -> Key:
        """End it at once, with what it is being answered. It stays in the list, for `whose`."""
        row = self._find(actor, name)

        def change(key: Key) -> Key:
            return msgspec.structs.replace(key, revoked_at=self._clock(), old_until=None)

        return self._state((await self._change(actor, "keys.revoke", row, request, change, reason=reason)).key)

    async def _change(
        self, actor: Actor, verb: str, row: KeyRow, request: str, change: Callable[[Key], Key], *, hash: str = "",
        keep: bool = False, reason: str = "", tried: Any = None,
    ) -> KeyRow:  # fmt: skip
        def work(db: sqlite3.Connection) -> tuple[KeyRow, Any, Any]:
            self._may_manage(actor, row.key)
            now = next(each for each in keytables.all_keys(db) if each.key.id == row.key.id)
            if now.key.revoked_at is not None:
                raise Conflict(
                    f"the key {now.key.name} was revoked", "a revoked key stays so",
                    f"make another one: corral keys create {now.key.name}",
                )  # fmt: skip
            new = KeyRow(change(now.key), hash or now.hash, now.old_hash)
            if hash:
                new = new._replace(old_hash=now.hash if keep else None)
                keytables.put_away(db, now, self._clock())
                self._away[now.hash] = now.key.id, self._clock()  # if it comes to nothing, it is the key's own still
            keytables.put_key(db, new)
            return new, now.key, new.key

        return await self._act(actor, verb, row.key, request, work, reason=reason, tried=tried)

    def _works(self, key: Key) -> None:
        """Raises `Conflict` for a key whose new secret would open nothing."""
        state = self.owners.state(key)
        if state == "expired" and key.until is not None:
            raise Conflict(
                f"the key {key.name} has expired", f"it ended at {_moment(key.until)}: a new secret would open nothing",
                f"give it another end first: corral keys limit {key.name} --expires 30d",
            )  # fmt: skip
        if state in ("owner disabled", "owner gone"):
            how, todo = "gone", "make a key of somebody who is there"
            if state == "owner disabled":
                how, todo = "disabled", f"corral accounts enable {key.owner.name}"
            raise Conflict(
                f"the key {key.name} does not work", f"{key.owner} is {how}: a new secret would open nothing", todo
            )  # fmt: skip

    def _may_manage(self, actor: Actor, key: Key) -> None:
        """His own with `keys.own`, another's with `keys.manage`. Raises `NotAllowed`."""
        if self.owners.owns(actor, key.owner):
            if not self._gate.anywhere(actor, "keys.own"):
                raise NotAllowed(f"{actor.name} may not have keys", "no grant gives keys.own", "ask an admin")
        else:
            self._gate.require(actor, "keys.manage", _object(key))

    def _holds(self, actor: Actor, key: Key) -> None:
        """Whoever gets to see the secret of another's key could use what that other may: he must hold it himself.
        Raises `NotAllowed`."""
        if self.owners.owns(actor, key.owner):
            return
        for pattern in key.deployments:
            lacking = self._gate.rights.lacks(actor, USE, f"deployment:{pattern}", None, self._clock())
            if lacking:
                raise NotAllowed(f"{actor.name} may not hold a key of {key.owner}", lacking, "its owner may make it")

    async def _act(
        self, actor: Actor, verb: str, key: Key, request: str,
        work: Callable[[sqlite3.Connection], tuple[KeyRow, Any, Any]], *, reason: str = "", tried: Any = None,
    ) -> KeyRow:  # fmt: skip
        """Act in one transaction; it is in force when this returns, but for the gateway's word."""
        needs = "keys.own" if self.owners.owns(actor, key.owner) else "keys.manage"
        on = "*" if needs == "keys.own" else _object(key)
        row = await self._gate.act(
            actor, verb, _object(key), request, work, reason=reason, permission=needs, on=on, tried=tried
        )  # fmt: skip
        await self.follow([row])
        return self._rows[row.key.id]


def _object(key: Key) -> str:
    return f"key:{key.owner.name}/{key.name}"


def _with_secret(key: Key, secret: str) -> NewKey:
    return NewKey(**_fields(key), key=secret)


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M UTC}"


def _fields(key: Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.__struct_fields__}


__all__ = ["Keys", "Told", "hash_of", "well_formed"]
