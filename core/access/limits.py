"""Limits: set and removed for subjects, told to the gateway, which counts; and what it says is left of them.

A subject counts all that it means together (`group:staff`: all its members), one that begins with `each:` everyone by
himself. What is set here holds beside what the owner of a key sets for his key.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from core.access.gate import Gate
from core.access.keys import Keys
from core.access.knownnames import KnownNames
from core.access.limitrules import check
from core.access.people import actor_named, names_of, subject_named
from core.errors import Invalid, NotFound
from core.gateway import wire
from core.nouns import Actor, Left, Limit, Limits, LimitView, Subject
from core.store import Store

REASON_LENGTH = 500
_SHARED = ("user", "group", "team", "key", "model", "deployment")
_EACH = ("each:user", "each:key")
_NAME = re.compile(r"[^\s*\x00-\x1f]{1,200}")
WORDS = (
    "user:alice, group:staff, team:ml, key:alice/ci, model:tiny, deployment:chat, or for everyone by himself each:user,"
)
WORDS += " each:key, each:group:staff, each:team:ml"

Ask = Callable[[tuple[str, ...], int | None, tuple[int, ...]], Awaitable[tuple[wire.Spent, ...] | None]]
"""Subjects as the gateway calls them, a person's uid and groups; None: it does not say."""


class Meant(NamedTuple):
    """A subject that was found: its canonical text, the number or id that it has now."""

    subject: str
    id: str = ""

    @property
    def object(self) -> str:
        """`limit:group/staff`"""
        return f"limit:{self.subject.replace(':', '/')}"


class Limiter:
    """The service that owns limits. `start` reads them; `on_change` is called after each change."""

    def __init__(self, store: Store, gate: Gate, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._keys = keys
        self._clock = clock
        self._rows: dict[str, Limit] = {}
        self._known = KnownNames(self._named)
        self.on_change: list[Callable[[], None]] = []
        self.ask: Ask = _nobody

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Read the limits and look at whom they name."""
        self._rows = {each.subject: each for each in await self._store.read(_all)}
        await self._known.look()

    async def run(self, pause: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Look from time to time whether users were renamed or have left, until cancelled."""
        await self._known.run(self._tell, pause)

    def _named(self) -> set[int]:
        """The uids that limits and teams name."""
        uids = {int(each.id) for each in self._rows.values() if each.subject.startswith("user:")}
        return uids | {
            member.id for team in self._gate.rights.teams.values() for member in team.members if member.id >= 0
        }

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()

    # ---------------------------------------------------------------------------------------- for the gateway

    def told(self) -> tuple[wire.Limited, ...]:
        """What the gateway has to keep. Limits of a user who has left, or whose name another has now, are none."""
        found = []
        for each in self._rows.values():
            members = self._members(each)
            if members is not None:
                uids = tuple(m.id for m in members if m.kind == "user")
                gids = tuple(m.id for m in members if m.kind == "group")
                limits = wire.Limits(**msgspec.structs.asdict(each.limits))
                name = each.subject.rpartition(":")[2]
                found.append(wire.Limited(subject=_wire(each), name=name, limits=limits, uids=uids, gids=gids))
        return tuple(found)

    def _members(self, limit: Limit) -> list[Subject] | None:
        """The users and groups that are meant; None for a user who is not there any more."""
        kind, _, name = limit.subject.removeprefix("each:").partition(":")
        if not name or kind in ("key", "model", "deployment"):
            return []
        if kind == "team":
            team = self._gate.rights.teams.get(name)
            members = team.members if team is not None else ()
            return [each for each in members if each.kind == "group" or self._known.names.get(each.id) == each.name]
        if kind == "group":
            return [Subject(kind="group", name=name, id=int(limit.id))]
        there = self._known.names.get(int(limit.id)) == name
        return [Subject(kind="user", name=name, id=int(limit.id))] if there else None

    # ---------------------------------------------------------------------------------------- for people

    async def meant(self, actor: Actor, text: str) -> Meant:
        """The subject that is written so. Raises `Invalid`, `NotFound`, `Conflict`."""
        if text in _EACH:
            return Meant(text)
        if text.startswith("account:"):
            raise Invalid(
                f"{text[:100]!r} has no limits of its own", "it counts as its owner, and through its keys",
                f"limit one of its keys, key:{text[8:100]}/NAME, or its owner",
            )  # fmt: skip
        each, rest = ("each:", text.removeprefix("each:")) if text.startswith("each:") else ("", text)
        kind, _, name = rest.partition(":")
        if kind not in (("group", "team") if each else _SHARED) or not _NAME.fullmatch(name):
            raise Invalid(f"{text[:100]!r} is nobody and nothing that has limits", todo=f"say {WORDS}")
        if kind == "key":
            key = self._keys.get(actor, name)
            return Meant(f"key:{key.owner.name}/{key.name}", key.id)
        if kind in ("model", "deployment"):
            return Meant(rest)
        if kind == "team":
            if name not in self._gate.rights.teams:
                raise NotFound(f"there is no team {name}", todo="corral access teams")
            return Meant(each + rest)
        found = await subject_named(rest)
        return Meant(each + rest, str(found.id))

    def _sees(self, actor: Actor, limit: Limit) -> bool:
        """Whoever may read limits, and whom they concern."""
        if self._gate.may(actor, "limits.read", Meant(limit.subject).object):
            return True
        kind, _, name = limit.subject.removeprefix("each:").partition(":")
        if not name:
            return True
        if kind == "deployment":
            return self._gate.may(actor, "deployments.use", limit.subject)
        if kind == "model":
            return self._gate.may(actor, "models.read", limit.subject)
        if kind == "key":
            return any(key.id == limit.id for key in self._keys.ls(actor))
        members = self._members(limit) or []
        return any(self._gate.rights.meant(each, actor) for each in members)

    async def ls(self, actor: Actor) -> list[LimitView]:
        """Those that `actor` sees, with what is left of each that counts together."""
        seen = [each for each in self._rows.values() if self._sees(actor, each)]
        shared = {_wire(each): each for each in seen if not each.subject.startswith("each:")}
        left = await self._left(tuple(shared), None, ()) if shared else ()
        if left is None:
            return [LimitView(limit=each, left=None) for each in seen]
        return [
            LimitView(limit=each, left=tuple(of for of in left if of.subject == each.subject) or _unused(each))
            for each in sorted(seen, key=lambda each: each.subject)
        ]  # fmt: skip

    async def get(self, actor: Actor, text: str) -> LimitView:
        """What is set for one subject, and what is left of all that applies to it. Raises `NotFound`."""
        meant = await self.meant(actor, text)
        limit = self._rows.get(meant.subject)
        himself = meant.subject == f"user:{actor.name}" and meant.id == str(actor.uid)
        key = meant.subject.startswith("key:")  # whoever does not see the key has not found it
        if not (himself or key or (limit is not None and self._sees(actor, limit))):
            self._gate.require(actor, "limits.read", meant.object)
        if limit is None and not meant.subject.startswith(("user:", "key:")):
            raise NotFound(f"no limit is set for {meant.subject}", todo="corral limits ls")
        if meant.subject.startswith("user:"):
            person = await actor_named(meant.subject)
            left = await self._left((), person.uid, person.groups)
        elif meant.subject.startswith("each:"):
            left = ()
        else:
            left = await self._left((_id(meant),), None, ())
        return LimitView(limit=limit, left=left)

    async def left_of(self, actor: Actor) -> tuple[Left, ...] | None:
        """What is left of all that applies to `actor`, and to his own keys; None while the gateway does not say."""
        keys = self._keys.ls(actor)
        mine = tuple(
            f"key:{each.id}" for each in keys if self._keys.owners.owns(actor, each.owner) and each.state == "active"
        )
        return await self._left(mine, actor.uid, actor.groups)

    async def _left(
        self, subjects: tuple[str, ...], uid: int | None, groups: tuple[int, ...]
    ) -> tuple[Left, ...] | None:
        spent = await self.ask(subjects, uid, groups)
        if spent is None:
            return None
        names = {_wire(each): each.subject for each in self._rows.values()}
        names |= {f"key:{key.id}": f"key:{key.owner.name}/{key.name}" for key in self._keys.all()}
        names |= {f"user:{number}": f"user:{name}" for number, name in (await _known(spent)).items()}
        return tuple(self._as_left(each, names) for each in spent)

    def _as_left(self, spent: wire.Spent, names: Mapping[str, str]) -> Left:
        return Left(
            subject=names.get(spent.subject, spent.subject), kind=spent.kind, most=spent.most, used=spent.used,
            left=max(0, spent.most - spent.used), words=spent.words,
            free_at=round(self._clock() + spent.seconds) if spent.seconds else None,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- changes

    async def set(
        self, actor: Actor, request: str, text: str, changes: Mapping[str, Any], *, reason: str = "",
        there: Collection[str] = (),
    ) -> Limit:  # fmt: skip
        """Set limits of a subject by name of the field; what is not named stays, 0 (and no hours) takes one away.
        `there`: the models and deployments that there are. Raises `Invalid`, `NotFound`, `NotAllowed`."""
        meant = await self.meant(actor, text)
        kind = meant.subject.partition(":")[0]
        if len(reason) > REASON_LENGTH:
            raise Invalid("the reason is too long", f"it may have {REASON_LENGTH} characters")
        check(Limits(**changes), lifts=kind in ("user", "key") or meant.subject.startswith(("each:group", "each:team")))

        def work(db: sqlite3.Connection) -> tuple[Limit, Any, Any]:
            before = _one(db, meant.subject)
            if before is None and kind in ("model", "deployment") and meant.subject not in there:
                raise NotFound(f"there is no {kind} {meant.subject.partition(':')[2]}", todo=f"corral {kind}s ls")
            limits = msgspec.structs.replace(before.limits if before else Limits(), **changes)
            if limits == Limits():
                raise Invalid("no limit would be left", todo=f"corral limits rm {meant.subject}")
            new = Limit(
                subject=meant.subject, id=meant.id, limits=limits, reason=reason, by=actor.name, at=self._clock()
            )
            db.execute(
                "INSERT OR REPLACE INTO limits (subject, data) VALUES (?, ?)",
                (new.subject, msgspec.json.encode(new).decode()),
            )
            return new, before, new

        new = await self._gate.act(actor, "limits.set", meant.object, request, work, reason=reason, tried=changes)
        self._rows[new.subject] = new
        await self._changed()
        return new

    async def rm(self, actor: Actor, request: str, text: str, *, reason: str = "") -> Limit:
        """Take all limits of a subject away, also of one that is not there any more."""
        subject = text if text in self._rows else (await self.meant(actor, text)).subject

        def work(db: sqlite3.Connection) -> tuple[Limit, Any, Any]:
            before = _one(db, subject)
            if before is None:
                raise NotFound(f"no limit is set for {subject}", todo="corral limits ls")
            db.execute("DELETE FROM limits WHERE subject = ?", (subject,))
            return before, before, None

        gone = await self._gate.act(
            actor, "limits.rm", Meant(subject).object, request, work, reason=reason, permission="limits.set"
        )
        self._rows.pop(subject, None)
        await self._changed()
        return gone

    async def _changed(self) -> None:
        await self._known.look()
        self._tell()


def _unused(limit: Limit) -> tuple[Left, ...]:
    """What is left where the gateway has counted nothing yet."""
    if limit.subject.startswith("each:"):
        return ()
    there = msgspec.structs.asdict(limit.limits)
    there.pop("hours")
    return tuple(Left(subject=limit.subject, kind=kind, most=n, used=0, left=n) for kind, n in there.items() if n > 0)


async def _nobody(subjects: tuple[str, ...], uid: int | None, groups: tuple[int, ...]) -> None:
    """Before there is a gateway to ask."""


async def _known(spent: Iterable[wire.Spent]) -> dict[int, str]:
    return await names_of({int(each.subject[5:]) for each in spent if each.subject.startswith("user:")})


def _wire(limit: Limit) -> str:
    """As the gateway calls the subject: users and groups by number, keys by id."""
    return _id(Meant(limit.subject, limit.id))


def _id(meant: Meant) -> str:
    if not meant.id:
        return meant.subject
    kind = meant.subject.rpartition(":")[0] if not meant.subject.startswith("key:") else "key"
    return f"{kind}:{meant.id}"


def _all(db: sqlite3.Connection) -> list[Limit]:
    rows = db.execute("SELECT data FROM limits ORDER BY subject")
    return [msgspec.json.decode(row[0], type=Limit) for row in rows]


def _one(db: sqlite3.Connection, subject: str) -> Limit | None:
    row = db.execute("SELECT data FROM limits WHERE subject = ?", (subject,)).fetchone()
    return msgspec.json.decode(row[0], type=Limit) if row is not None else None
