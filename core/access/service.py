"""Roles, grants and teams: written down, checked against escalation, and put in force as one picture.

Nobody gives away, through a grant, a role or a team, what he does not hold himself; nobody takes a denial away whose
opposite he could not grant; the last admin stays.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from core.access import accountrights, questions, tables
from core.access.gate import Gate
from core.access.people import actor_named, group_names, names_of, subject_named
from core.access.permissions import BUILTIN, PERMISSIONS
from core.access.rights import ACCOUNT, Rights, Use
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nouns import CORRAL, Actor, Decision, Difference, Grant, Held, Role, Subject, Team, Whoami
from core.store import Store

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SCOPE = re.compile(r"(?P<kind>[a-z]+):(?P<name>[^*\s:]{0,128}\*?)")
KINDS = frozenset(each.kind for each in PERMISSIONS.values())
REASON_LENGTH = 500
LOOK_EVERY_S = 60.0
NOBODY = 2**32 - 2
"""A uid that no user has."""

log = logging.getLogger(__name__)


class Access:
    """The service that owns roles, grants and teams. `start` puts what is in the database in force."""

    def __init__(self, store: Store, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._names: dict[int, str] = {}
        self.on_change: list[Callable[[], None]] = []
        """Called, on the event loop, after each change of the rights: what was allowed may not be any more."""

    @property
    def rights(self) -> Rights:
        return self._gate.rights

    async def start(self, admins: Subject | None = None) -> None:
        """Read the rights. In a database that never had any, `admins` (system mode: the group whose members could do
        everything before there were grants) become admins by a grant that can be seen and revoked."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            tables.mark_seeded(db)
            grant = self._made(CORRAL, "allow", "admin", admins, "*", "the first admins", None) if admins else None
            if grant is not None:
                tables.put_grant(db, grant)
            self.put_in_force(db)
            return None, None, grant

        if admins is not None and not await self._store.read(tables.seeded):
            await self._gate.act(CORRAL, "access.grant", f"access:{admins}", "first-admins", work)
        else:
            await self._store.transact(self.put_in_force)

        await self._look()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Look from time to time whether users were renamed or have left the host, until cancelled."""
        while True:
            await pause(LOOK_EVERY_S)
            before = self._names
            await self._look()
            if self._names != before:
                self._tell()

    async def _look(self) -> None:
        try:
            self._names = await names_of(sorted(self.rights.uids()))
        except CorralError as error:  # those that were known stay known: a slow directory locks nobody out
            log.warning("%s", error)

    def uses(self, permission: str) -> list[Use]:
        """Who has `permission` on what, for those that decide elsewhere (the gateway)."""
        return self.rights.uses(permission, self._names)

    def put_in_force(self, db: sqlite3.Connection) -> None:
        """What this transaction leaves behind is in force from its commit on: also for the next one in the queue."""
        new = self._gate.rights.of_rows(tables.everything(db))

        def put() -> None:
            self._gate.rights = new

        self._store.on_commit(put)

    # ---------------------------------------------------------------------------------------- grants

    async def grant(
        self, actor: Actor, request: str, *, what: str, subject: str, scope: str = "*", deny: bool = False,
        reason: str = "", until: float | None = None,
    ) -> Grant:  # fmt: skip
        """Allow or deny `what` to `subject` (`user:alice`, `group:staff`, `team:ml`, `account:ci`). Raises `Invalid`,
        `NotFound`, `NotAllowed`, `Conflict`."""
        whom = await self._subject(subject)
        self.check(what, scope, reason, until)

        def work(db: sqlite3.Connection) -> tuple[Grant, object, object]:
            rights = self._gate.rights
            self.check_what(rights, what)
            if whom.kind == "team" and whom.name not in rights.teams:
                raise NotFound(f"there is no team {whom.name}", todo="corral access teams set NAME --member user:...")
            if whom.kind == "account":
                accountrights.check_grant(rights, whom, what, scope)
            made = self._made(actor, "deny" if deny else "allow", what, whom, scope, reason, until)
            same = [g for g in rights.grants if _alike(g, made)]
            if same:
                raise Conflict(f"grant {same[0].id} says the same already", todo=f"revoke it first: {same[0].id}")
            # A denial gives nothing away, but whoever denies must be above it: else a clerk could lock the admins out.
            self._hold(rights, actor, what, scope, until if not deny else None)
            tables.put_grant(db, made)
            self.put_in_force(db)
            return made, None, made

        verb, (needs, on) = "access.grant", self._needs(actor, whom)
        made = await self._gate.act(
            actor, verb, f"access:{whom}", request, work, reason=reason, permission=needs, on=on
        )  # fmt: skip
        await self.changed()
        return made

    async def revoke(self, actor: Actor, request: str, id: str, *, reason: str = "") -> Grant:
        """Take a grant back. Raises `NotFound`, `NotAllowed`, `Conflict` (the last admin)."""

        def work(db: sqlite3.Connection) -> tuple[Grant, object, object]:
            rights = self._gate.rights
            grant = next((each for each in rights.grants if each.id == id), None)
            if grant is None:
                raise NotFound(f"there is no grant {id}", todo="corral access grants")
            if not grant.glass and (grant.by != actor.name or grant.effect == "deny"):
                self._hold(rights, actor, grant.what, grant.scope, None if grant.effect == "deny" else grant.until)
            tables.delete_grant(db, id)
            self._keep_an_admin(db, rights)
            self.put_in_force(db)
            return grant, grant, None

        found = next((each for each in self.rights.grants if each.id == id), None)
        object = f"access:{found.subject}" if found else f"access:{id[:32]}"
        others_denial = found is not None and found.effect == "deny" and found.by != actor.name
        needs, on = self._needs(actor, found.subject) if found and not others_denial else ("access.grant", "")
        verb = "access.grant"
        if found is not None and found.glass:
            verb = "access.glass-whole"
            needs = "access.break-glass" if self.rights.meant(found.subject, actor) else needs
        grant = await self._gate.act(
            actor, verb, object, request, work, reason=reason, permission=needs, on=on
        )  # fmt: skip
        await self.changed()
        return grant

    def _needs(self, actor: Actor, whom: Subject) -> tuple[str, str]:
        """The permission to grant something to `whom`, and on what: owners manage their own service accounts."""
        if accountrights.owns(self.rights, actor, whom) and self._gate.anywhere(actor, "accounts.own"):
            return "accounts.own", "*"
        return "access.grant", ""

    def _made(
        self, actor: Actor, effect: str, what: str, subject: Subject, scope: str, reason: str, until: float | None
    ) -> Grant:
        return Grant(
            id=f"g{secrets.token_hex(4)}", effect="deny" if effect == "deny" else "allow", what=what, subject=subject,
            scope=scope, reason=reason, by=actor.name, at=self._clock(), until=until,
        )  # fmt: skip

    def check(self, what: str, scope: str, reason: str, until: float | None) -> None:
        """Raises `Invalid` for a grant that would mean nothing."""
        match = _SCOPE.fullmatch(scope)
        if scope != "*" and (match is None or match["kind"] not in KINDS):
            kinds = ", ".join(sorted(KINDS))
            raise Invalid(
                f"{scope!r} is no scope", f"it is * or kind:name, a star at the end only; kinds are {kinds}",
                "for example deployment:team-a-*",
            )  # fmt: skip
        if len(reason) > REASON_LENGTH:
            raise Invalid(f"the reason is over {REASON_LENGTH} characters")
        if until is not None and until <= self._clock():
            raise Invalid("the grant would end before it begins", todo="give an end that lies ahead")
        named = PERMISSIONS.get(what)
        if named is not None and match is not None and match["kind"] != named.kind:
            raise Invalid(f"{what} is about {named.kind}:..., so on {scope} it would mean nothing")

    def check_what(self, rights: Rights, what: str) -> None:
        """Raises `Invalid`, `NotFound` where there is no such permission or role."""
        if "." in what or what == "*":
            if not rights.permissions_of(what):
                raise Invalid(f"there is no permission {what!r}", todo="corral access permissions")
        elif what not in rights.roles:
            known = ", ".join(sorted(rights.roles))
            raise NotFound(f"there is no role {what!r}", f"there are: {known}", "corral access roles")

    # ---------------------------------------------------------------------------------------- roles and teams

    async def put_roles(self, actor: Actor, request: str, wanted: Sequence[Role]) -> list[Role]:
        """Define roles, or define them anew for all who have them: all or none. Raises `Invalid`, `Conflict`,
        `NotAllowed`."""
        for role in wanted:
            if not _NAME.fullmatch(role.name):
                raise Invalid(f"{role.name!r} is no name of a role", "a-z, 0-9, _ and -, up to 63 of them")
            if role.name in BUILTIN:
                raise Conflict(f"{role.name} is built in", "its meaning does not change", "take another name")
            if not role.allows:
                raise Invalid(f"the role {role.name} would allow nothing", todo="name permissions, or remove it")
        made = [
            msgspec.structs.replace(role, builtin=False, allows=tuple(dict.fromkeys(role.allows))) for role in wanted
        ]

        def work(db: sqlite3.Connection) -> tuple[list[Role], object, object]:
            before = now = self._gate.rights
            for role in made:
                now = self._define(db, actor, now, role)
            self._keep_an_admin(db, before)
            self.put_in_force(db)
            return made, [old for role in made if (old := before.roles.get(role.name)) is not None], made

        object = f"access:role:{made[0].name}" if len(made) == 1 else "access:roles"
        await self._gate.act(actor, "access.roles", object, request, work)
        await self.changed()
        return made

    def _define(self, db: sqlite3.Connection, actor: Actor, rights: Rights, role: Role) -> Rights:
        """Write a role down; the rights with it. Whoever changes what it means must hold what it gains or loses."""
        for each in role.allows:
            if "." not in each and each != "*":
                raise Invalid(f"{each!r} is no permission", "a role is made of permissions, not of roles")
            self.check_what(rights, each)
        had = rights.permissions_of(role.name) if role.name in rights.roles else frozenset[str]()
        new = questions.changed(rights, role=role)
        for permission in sorted(had ^ new.permissions_of(role.name)):
            self._hold(rights, actor, permission, "*", None)
        tables.put_role(db, role)
        return new

    async def rm_role(self, actor: Actor, request: str, name: str) -> None:
        """Remove a role that no grant names. Raises `NotFound`, `Conflict`."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            rights = self._gate.rights
            if name in BUILTIN:
                raise Conflict(f"{name} is built in", "it stays")
            if name not in rights.roles:
                raise NotFound(f"there is no role {name!r}", todo="corral access roles")
            used = [g.id for g in rights.grants if g.what == name]
            if used:
                raise Conflict(f"the role {name} is used", f"by {', '.join(used[:5])}", "revoke these first")
            tables.delete_role(db, name)
            self.put_in_force(db)
            return None, rights.roles[name], None

        await self._gate.act(actor, "access.roles", f"access:role:{name[:63]}", request, work)
        await self.changed()

    async def put_team(self, actor: Actor, request: str, name: str, members: Sequence[str]) -> Team:
        """Say who is in a team. Whoever changes it must hold all that the team was granted or denied."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a team", "a-z, 0-9, _ and -, up to 63 of them")
        found = [await self._subject(each) for each in dict.fromkeys(members)]
        if any(each.kind == "team" for each in found):
            raise Invalid("a team has users and groups of the host in it, and no teams")
        team = Team(name=name, members=tuple(found))

        def work(db: sqlite3.Connection) -> tuple[Team, object, object]:
            rights = self._gate.rights
            self._hold_of_team(rights, actor, name)
            tables.put_team(db, team)
            self._keep_an_admin(db, rights)
            self.put_in_force(db)
            return team, rights.teams.get(name), team

        made = await self._gate.act(actor, "access.teams", f"access:team:{name}", request, work)
        await self.changed()
        return made

    async def rm_team(self, actor: Actor, request: str, name: str) -> None:
        """Remove a team that no grant names. Raises `NotFound`, `Conflict`."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            rights = self._gate.rights
            if name not in rights.teams:
                raise NotFound(f"there is no team {name!r}", todo="corral access teams")
            used = [g.id for g in rights.grants if g.subject.kind == "team" and g.subject.name == name]
            if used:
                raise Conflict(f"the team {name} has grants", ", ".join(used[:5]), "revoke these first")
            owned = [a.name for a in rights.accounts.values() if (a.owner.kind, a.owner.name) == ("team", name)]
            if owned:
                raise Conflict(f"the team {name} has service accounts", ", ".join(owned[:5]), "remove these first")
            tables.delete_team(db, name)
            self.put_in_force(db)
            return None, rights.teams[name], None

        await self._gate.act(actor, "access.teams", f"access:team:{name[:63]}", request, work)
        await self.changed()

    # ---------------------------------------------------------------------------------------- questions

    async def explain(self, subject: str, permission: str, object: str) -> Decision:
        """Whether a user (`alice` or `user:alice`) or a service account (`account:ci`) may do it now, and by which
        grant."""
        if permission not in PERMISSIONS:
            raise Invalid(f"there is no permission {permission!r}", todo="corral access permissions")
        if not _SCOPE.fullmatch(object) or object.endswith("*"):
            raise Invalid(f"{object!r} is no object", todo="for example deployment:chat")
        if subject.startswith("account:"):
            return await accountrights.decide(
                self.rights, await self._subject(subject), permission, object, self._clock()
            )
        actor = await actor_named(subject)
        return self.rights.decide(actor, permission, object, self._clock())

    def matrix(self) -> list[Held]:
        """Who holds what."""
        return questions.matrix(self.rights, self._clock())

    async def whoami(self, actor: Actor) -> Whoami:
        """Who asks, and what he may do."""
        return questions.whoami(self.rights, actor, await group_names(actor.groups), self._clock())

    async def simulate(
        self, objects: Sequence[str], *, what: str = "", subject: str = "", scope: str = "*", deny: bool = False,
        until: float | None = None, revoke: str = "", role: Role | None = None,
    ) -> list[Difference]:  # fmt: skip
        """What a grant, a revocation or a role would give or take from whom on `objects`. Nothing is changed."""
        rights = self.rights
        grant, concerned = None, questions.concerned(rights)
        if revoke:
            if all(each.id != revoke for each in rights.grants):
                raise NotFound(f"there is no grant {revoke}", todo="corral access grants")
        elif role is not None:
            for each in role.allows:
                self.check_what(rights, each)
        else:
            whom = await self._subject(subject)
            self.check(what, scope, "", until)
            self.check_what(rights, what)
            grant = self._made(CORRAL, "deny" if deny else "allow", what, whom, scope, "", until)
            concerned = list(dict.fromkeys([*concerned, *([whom] if whom.kind != "team" else [])]))
        after = questions.changed(rights, grant=grant, revoke=revoke, role=role)
        there = questions.scope_objects([*(g.scope for g in rights.grants), scope], objects)
        actors = [(str(each), actor) for each in concerned if (actor := await self._stands_for(each)) is not None]
        return questions.differences(rights, after, actors, there, self._clock())

    async def _stands_for(self, subject: Subject) -> Actor | None:
        """The user with his groups, or for a group somebody who is in no other."""
        if subject.kind == "group":
            return Actor(uid=NOBODY, name=f"a member of {subject.name}", groups=(subject.id,))
        if subject.kind == "account":
            return Actor(uid=ACCOUNT, name=subject.name)
        try:
            return await actor_named(subject.name)
        except CorralError:
            return None

    async def _subject(self, text: str) -> Subject:
        return await subject_named(text)

    # ---------------------------------------------------------------------------------------- rules

    def _hold(self, rights: Rights, actor: Actor, what: str, scope: str, until: float | None) -> None:
        """Raises `NotAllowed` unless `actor` holds it himself, as wide and as long."""
        lacking = rights.lacks(actor, what, scope, until, self._clock())
        if lacking:
            raise NotAllowed(
                f"{actor.name} may not decide about {what} on {scope}", lacking, "ask somebody who holds it"
            )  # fmt: skip

    def _hold_of_team(self, rights: Rights, actor: Actor, name: str) -> None:
        for grant in rights.grants:
            if grant.subject.kind == "team" and grant.subject.name == name:
                self._hold(rights, actor, grant.what, grant.scope, None if grant.effect == "deny" else grant.until)

    def _keep_an_admin(self, db: sqlite3.Connection, before: Rights) -> None:
        """Raises `Conflict` if there was a lasting admin and there would be none."""
        if before.mode != "system" or not before.admins(self._clock()):
            return
        after = before.of_rows(tables.everything(db))
        if not after.admins(self._clock()):
            raise Conflict("the last admin stays", "nobody but root could grant anything after that",
                           "make somebody else an admin first")  # fmt: skip

    async def changed(self) -> None:
        """What follows each change of the rights."""
        await self._look()
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()


def _alike(one: Grant, other: Grant) -> bool:
    return (one.effect, one.what, one.subject, one.scope, one.until) == (
        other.effect, other.what, other.subject, other.scope, other.until,
    )  # fmt: skip
