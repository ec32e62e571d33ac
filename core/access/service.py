"""Roles, grants and teams: written down, checked against escalation, and put in force as one picture.

Nobody gives away, through a grant, a role or a team, what he does not hold himself; nobody takes a denial away whose
opposite he could not grant; the last admin stays.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from core.access import accountrights, questions, tables
from core.access.gate import Gate
from core.access.grantrules import alike, check, check_what, new_grant
from core.access.knownnames import KnownNames
from core.access.people import NOBODY, people_of, subject_named
from core.access.permissions import BEYOND, BUILTIN
from core.access.rights import Rights, Use
from core.errors import Conflict, Invalid, NotAllowed, NotFound, TimedOut
from core.nouns import CORRAL, Actor, Grant, Role, Subject, Team
from core.store import Store

log = logging.getLogger(__name__)
People = Callable[[Subject], Iterable[Actor]]
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Access:
    """The service that owns roles, grants and teams. `start` puts what is in the database in force."""

    def __init__(self, store: Store, gate: Gate, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._known = KnownNames(lambda: self.rights.uids())
        self.on_change: list[Callable[[], None]] = []
        """Called, on the event loop, after each change of the rights: what was allowed may not be any more."""
        self._no_admin = False

    @property
    def rights(self) -> Rights:
        return self._gate.rights

    async def start(self, admins: Subject | None = None) -> None:
        """Read the rights. In a database that never had any, `admins` (system mode: the group whose members could do
        everything before there were grants) become admins by a grant that can be seen and revoked."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            tables.mark_seeded(db)
            grant = None
            if admins:
                grant = new_grant(CORRAL, "allow", "admin", admins, "*", "the first admins", None, self._clock())
                tables.put_grant(db, grant)
            self.put_in_force(db)
            return None, None, grant

        if admins is not None and not await self._store.read(tables.seeded):
            await self._gate.act(CORRAL, "access.grant", f"access:{admins}", "first-admins", work)
        else:
            await self._store.transact(self.put_in_force)

        await self._known.look()
        await self._mind_admins()

    async def run(self, pause: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Look from time to time whether users were renamed or have left the host or a group, until cancelled."""
        await self._known.run(self._tell, pause, also=self._mind_admins)

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        if not self._no_admin:
            return []
        return [
            "nobody is an admin any more: whom grants and teams make one has left this host or his group, or is denied"
            " access.grant; root: `corral access break-glass --reason ...`, then `corral access grant admin user:NAME`"
        ]

    def uses(self, permission: str) -> list[Use]:
        """Who has `permission` on what, for those that decide elsewhere (the gateway)."""
        return self.rights.uses(permission, self._known.names)

    def gone(self, subject: Subject) -> str:
        """Why nobody is this user any more; "" while somebody is."""
        return self._known.gone(subject)

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
        whom = await subject_named(subject)
        check(what, scope, reason, until, self._clock())
        new = new_grant(actor, "deny" if deny else "allow", what, whom, scope, reason, until, self._clock())
        people = await self._people(questions.changed(self.rights, grant=new))

        def work(db: sqlite3.Connection) -> tuple[Grant, object, object]:
            rights = self._gate.rights
            check_what(rights, what)
            if whom.kind == "team" and whom.name not in rights.teams:
                raise NotFound(f"there is no team {whom.name}", todo="corral access teams set NAME --member user:...")
            if whom.kind == "account":
                accountrights.check_grant(rights, whom, what, scope)
            same = [g for g in rights.grants if alike(g, new)]
            if same:
                raise Conflict(f"grant {same[0].id} says the same already", todo=f"revoke it first: {same[0].id}")
            if deny and (who := _above(rights, whom)):
                raise Conflict(
                    f"a denial does not hold against {whom}", f"he is {who} and could write the files anyway",
                    "run a shared daemon (`corral daemon --system`), where root and admins are held to theirs",
                )  # fmt: skip
            if deny:
                self._take(rights, actor, what, scope, None)
            else:
                self._hold(rights, actor, what, scope, until)
            tables.put_grant(db, new)
            self._keep_an_admin(db, rights, people)
            self.put_in_force(db)
            return new, None, new

        verb, (needs, on) = "access.deny" if deny else "access.grant", self._needs(actor, whom)
        grant = await self._gate.act(
            actor, verb, f"access:{whom}", request, work, reason=reason, permission=needs, on=on, tried=new
        )  # fmt: skip
        await self.changed()
        return grant

    async def revoke(self, actor: Actor, request: str, id: str, *, reason: str = "") -> Grant:
        """Take a grant back. Raises `NotFound`, `NotAllowed`, `Conflict` (the last admin)."""
        people = await self._people(questions.changed(self.rights, revoke=id))

        def work(db: sqlite3.Connection) -> tuple[Grant, object, object]:
            rights = self._gate.rights
            grant = next((each for each in rights.grants if each.id == id), None)
            if grant is None:
                raise NotFound(f"there is no grant {id}", todo="corral access grants")
            if grant.effect == "deny":
                self._hold(rights, actor, grant.what, grant.scope, None)
            elif not grant.glass and grant.by != actor.name:
                self._take(rights, actor, grant.what, grant.scope, grant.until)
            tables.delete_grant(db, id)
            self._keep_an_admin(db, rights, people)
            self.put_in_force(db)
            return grant, grant, None

        found = next((each for each in self.rights.grants if each.id == id), None)
        object = f"access:{found.subject}" if found else f"access:{id[:32]}"
        others_denial = found is not None and found.effect == "deny" and found.by != actor.name
        needs, on = self._needs(actor, found.subject) if found and not others_denial else ("access.grant", "")
        verb = "access.revoke"
        if found is not None and found.glass:
            verb = "access.glass-whole"
            needs = "access.break-glass" if self.rights.meant(found.subject, actor) else needs
        grant = await self._gate.act(
            actor, verb, object, request, work, reason=reason, permission=needs, on=on, tried=found
        )  # fmt: skip
        await self.changed()
        return grant

    def _needs(self, actor: Actor, whom: Subject) -> tuple[str, str]:
        """The permission to grant something to `whom`, and on what: owners manage their own service accounts."""
        if accountrights.owns(self.rights, actor, whom) and self._gate.anywhere(actor, "accounts.own"):
            return "accounts.own", "*"
        return "access.grant", ""

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

        after = self.rights
        for role in made:
            after = questions.changed(after, role=role)
        people = await self._people(after)

        def work(db: sqlite3.Connection) -> tuple[list[Role], object, object]:
            before = now = self._gate.rights
            for role in made:
                now = self._define(db, actor, now, role)
            self._keep_an_admin(db, before, people)
            self.put_in_force(db)
            return made, [old for role in made if (old := before.roles.get(role.name)) is not None], made

        object = f"access:role:{made[0].name}" if len(made) == 1 else "access:roles"
        await self._gate.act(actor, "access.roles", object, request, work, tried=made)
        await self.changed()
        return made

    def _define(self, db: sqlite3.Connection, actor: Actor, rights: Rights, role: Role) -> Rights:
        """Write a role down; the rights with it. Whoever changes what it means must hold what it gains or loses."""
        for each in role.allows:
            if "." not in each and each != "*":
                raise Invalid(f"{each!r} is no permission", "a role is made of permissions, not of roles")
            check_what(rights, each)
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
        found = [await subject_named(each) for each in dict.fromkeys(members)]
        if any(each.kind == "team" for each in found):
            raise Invalid("a team has users and groups of the host in it, and no teams")
        team = Team(name=name, members=tuple(found))
        people = await self._people(questions.changed(self.rights, team=team))

        def work(db: sqlite3.Connection) -> tuple[Team, object, object]:
            rights = self._gate.rights
            self._hold_of_team(rights, actor, name)
            tables.put_team(db, team)
            self._keep_an_admin(db, rights, people)
            self.put_in_force(db)
            return team, rights.teams.get(name), team

        made = await self._gate.act(actor, "access.teams", f"access:team:{name}", request, work, tried=team)
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

    # ---------------------------------------------------------------------------------------- rules

    def _hold(self, rights: Rights, actor: Actor, what: str, scope: str, until: float | None) -> None:
        """Raises `NotAllowed` unless `actor` holds it himself, as wide and as long."""
        lacking = rights.lacks(actor, what, scope, until, self._clock())
        if lacking:
            todo = "ask somebody who holds it (`corral access grants`)"
            if beyond := sorted(rights.permissions_of(what) & frozenset(BEYOND)):
                one = f"`corral access break-glass --reason … --what {beyond[0]}`"
                todo = f"no role has {', '.join(beyond)}: root of this host gives it, after {one}"
            raise NotAllowed(f"{actor.name} may not decide about {what} on {scope}", lacking, todo)

    def _take(self, rights: Rights, actor: Actor, what: str, scope: str, until: float | None) -> None:
        """The same of taking it from somebody, which gives nothing away: who is a whole admin may do that with all that
        there is, also what no role has. Not everybody who may grant: a clerk could lock the admins out."""
        if rights.lacks(actor, "admin", "*", None, self._clock()):
            self._hold(rights, actor, what, scope, until)

    def _hold_of_team(self, rights: Rights, actor: Actor, name: str) -> None:
        for grant in rights.grants:
            if grant.subject.kind == "team" and grant.subject.name == name:
                self._hold(rights, actor, grant.what, grant.scope, None if grant.effect == "deny" else grant.until)

    async def _people(self, after: Rights) -> People:
        """Who they are, of whom it must be known whether an admin stays when the rights become `after`. They are looked
        up before the transaction, which waits for nothing outside."""
        before, now = self.rights, self._clock()
        if before.mode != "system" or before.standing(now) == after.standing(now):
            return _as_written
        try:
            found = await people_of(
                before.admin_subjects() | after.admin_subjects(),
                # Of a group one is enough of whom both are true: more members change no answer.
                lambda subject, actor: before.admits(subject, actor, now) and after.admits(subject, actor, now),
            )
        except TimedOut as error:  # a right can be taken away also while the directory is silent
            log.warning("%s: everybody who is an admin is taken to be there", error)
            return _as_written
        return lambda subject: found[subject] if subject in found else _as_written(subject)

    def _keep_an_admin(self, db: sqlite3.Connection, before: Rights, people: People) -> None:
        """Raises `Conflict` if there was a lasting admin and there would be none."""
        if before.mode != "system":
            return
        after, now = before.of_rows(tables.everything(db)), self._clock()
        if after.standing(now) == before.standing(now) or not before.admins(now, people):
            return
        if not after.admins(now, people):
            raise Conflict(
                "the last admin stays", "nobody but root could grant anything after that",
                "make somebody else an admin first, who is there and is not denied access.grant",
            )  # fmt: skip

    async def _mind_admins(self) -> None:
        """Nobody asks before the host takes the last admin out of his group: only that it is so can be told."""
        rights, now = self.rights, self._clock()
        if rights.mode != "system":
            return
        try:
            found = await people_of(rights.admin_subjects(), lambda subject, actor: rights.admits(subject, actor, now))
        except TimedOut as error:
            log.warning("%s: whether there is an admin is not known", error)
            return
        self._no_admin = not rights.admins(now, lambda subject: found.get(subject, ()))

    async def changed(self) -> None:
        """What follows each change of the rights."""
        await self._known.look()
        if self._no_admin:  # none of these changes can bring that about
            await self._mind_admins()
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()


def _as_written(subject: Subject) -> tuple[Actor, ...]:
    """Somebody who is this user, or in this group."""
    if subject.kind == "user":
        return (Actor(uid=subject.id, name=subject.name),)
    return (Actor(uid=NOBODY, name=f"a member of {subject.name}", groups=(subject.id,)),)


def _above(rights: Rights, whom: Subject) -> str:
    """Why this user needs no grant; "" if he does."""
    return rights.almighty(Actor(uid=whom.id, name=whom.name)) if whom.kind == "user" else ""
