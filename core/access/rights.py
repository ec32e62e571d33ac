"""The rights in force, as one immutable picture: who may do what, decided without asking anybody.

Deny by default; a grant that denies wins over every grant that allows. In a per-user daemon its owner and root may do
everything: they could read and write the files anyway. In a shared one root reads what an auditor reads and
may end it; for more he breaks the glass, which everybody hears, and which denials do not hold against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from core.access.permissions import BUILTIN, PERMISSIONS, covers, matches, overlap
from core.access.tables import Rows
from core.nouns import Actor, Decision, Grant, Mark, Role, ServiceAccount, Subject, Team

ITSELF = -1
"""The uid of Corral itself."""
ACCOUNT = -3
"""Stands for the uid of a service account, where it is asked what one may: none ever calls."""
UNKNOWN = "uid:"
"""So begins the name of an actor whose uid has none on this host."""


class Use(NamedTuple):
    """One who may, or may not, do something: what the gateway gets to know of a grant. `id` is a uid or gid."""

    kind: Literal["user", "group"]
    id: int
    deny: bool
    scope: str
    until: float | None
    glass: bool = False
    """Taken by breaking the glass: no denial holds against it."""


_OF_ROOT = frozenset({*BUILTIN["auditor"].allows, "daemon.reload", "daemon.shutdown", "access.break-glass"})
"""He reads the files and could signal the process anyway."""


def includes(subject: Subject, actor: Actor, teams: Mapping[str, Team]) -> bool:
    """Is `actor` meant by `subject`? A user only if name and uid are both as they were."""
    if subject.kind == "user":
        return actor.uid == subject.id and actor.name == subject.name
    if subject.kind == "group":
        return subject.id in actor.groups
    if subject.kind == "account":
        return actor.uid == ACCOUNT and actor.name == subject.name
    team = teams.get(subject.name)
    return team is not None and any(includes(each, actor, {}) for each in team.members)


class Rights:
    """What is in force. Replaced as a whole at each change, so that a decision never sees half of one."""

    def __init__(
        self,
        *,
        mode: Literal["user", "system"],
        owner_uid: int,
        roles: Iterable[Role] = (),
        grants: Sequence[Grant] = (),
        teams: Iterable[Team] = (),
        accounts: Iterable[ServiceAccount] = (),
        marks: Iterable[Mark] = (),
    ) -> None:
        self.mode = mode
        self.owner_uid = owner_uid
        self.roles: dict[str, Role] = {**BUILTIN, **{role.name: role for role in roles}}
        self.grants = tuple(grants)
        self.teams: dict[str, Team] = {team.name: team for team in teams}
        self.accounts: dict[str, ServiceAccount] = {account.name: account for account in accounts}
        self.marks: dict[str, Mark] = {mark.deployment: mark for mark in marks}
        """Deployments that are sensitive."""

    def of_rows(self, rows: Rows) -> Rights:
        """The rights of the same daemon by what is written down."""
        return Rights(
            mode=self.mode, owner_uid=self.owner_uid, roles=rows.roles, grants=rows.grants, teams=rows.teams,
            accounts=rows.accounts, marks=rows.marks,
        )  # fmt: skip

    def almighty(self, actor: Actor) -> str:
        """Why this actor needs no grant; "" if he does."""
        if actor.uid == ITSELF:
            return "Corral itself"
        if self.mode == "user" and actor.uid == self.owner_uid:
            return "the owner of this daemon"
        return "root on this host" if self.mode == "user" and actor.uid == 0 else ""

    def root(self, actor: Actor) -> frozenset[str]:
        """What somebody may on everything for being root on the host of a shared daemon: read, reload, end it,
        and break the glass."""
        return _OF_ROOT if self.mode == "system" and actor.uid == 0 else frozenset()

    def accounts_of(self, actor: Actor) -> list[ServiceAccount]:
        """The service accounts of this actor's own and of his teams."""
        return [account for account in self.accounts.values() if self.meant(account.owner, actor)]

    def meant(self, subject: Subject, actor: Actor) -> bool:
        """Is `actor` meant by `subject`?"""
        return includes(subject, actor, self.teams)

    def permissions_of(self, what: str) -> frozenset[str]:
        """The permissions that a role's name or a pattern stands for; none for a role that is not there."""
        if "." in what or what == "*":
            return frozenset(name for name in PERMISSIONS if matches(what, name))
        role = self.roles.get(what)
        return frozenset(name for name in PERMISSIONS if role and any(matches(each, name) for each in role.allows))

    @cached_property
    def _meant(self) -> tuple[tuple[Grant, frozenset[str]], ...]:
        return tuple((grant, self.permissions_of(grant.what)) for grant in self.grants)

    def of(self, actor: Actor, now: float) -> list[tuple[Grant, frozenset[str]]]:
        """The grants for `actor` that have not ended at `now` (epoch seconds), with what each means. None for somebody
        whom the host does not know: he has left it."""
        if actor.name.startswith(UNKNOWN):
            return []
        return [
            (grant, means)
            for grant, means in self._meant
            if (grant.until is None or now < grant.until) and includes(grant.subject, actor, self.teams)
        ]

    def decide(self, actor: Actor, permission: str, object: str, now: float) -> Decision:
        """May `actor` do `permission` on `object` (`kind:name`)?"""
        if who := self.almighty(actor):
            why = f"{actor.name} is {who}{self._in_vain(actor, permission, object, now)}"
            return Decision(allowed=True, permission=permission, object=object, why=why)
        if actor.name.startswith(UNKNOWN):
            why = f"this host knows no user with the uid {actor.uid}, or did not say so in time"
            return Decision(allowed=False, permission=permission, object=object, why=why)
        mine = self.of(actor, now)
        for grant, means in mine:
            if grant.glass and permission in means and matches(grant.scope, object):
                why = f"{actor.name} broke the glass ({grant.id}): {grant.reason}"
                return Decision(allowed=True, permission=permission, object=object, why=why, grant=grant)
        allowing: Grant | None = None
        for grant, means in mine:
            if permission not in means or not matches(grant.scope, object):
                continue
            if grant.effect == "deny":
                why = f"{_said(grant)} denies it to {grant.subject}" + _because(grant)
                return Decision(allowed=False, permission=permission, object=object, why=why, grant=grant)
            allowing = allowing or grant
        if allowing is None and permission in self.root(actor):
            why = f"{actor.name} is root on this host, who reads what an auditor does, and may end it"
            return Decision(allowed=True, permission=permission, object=object, why=why)
        if allowing is None:
            return Decision(
                allowed=False, permission=permission, object=object, why=self._why_not(actor, permission, object, now)
            )
        why = f"{_said(allowing)} gives it to {allowing.subject}" + _because(allowing)
        return Decision(allowed=True, permission=permission, object=object, why=why, grant=allowing)

    def _in_vain(self, actor: Actor, permission: str, object: str, now: float) -> str:
        """Of a denial that does not hold against one who needs no grant."""
        for grant, means in self.of(actor, now):
            if grant.effect == "deny" and permission in means and matches(grant.scope, object):
                return f": {_said(grant)}, which denies it, does not hold against him"
        return ""

    @cached_property
    def unbroken(self) -> Rights:
        """The same without what was taken by breaking the glass: that is his who took it, and not his programs'."""
        return Rights(
            mode=self.mode, owner_uid=self.owner_uid,
            roles=[role for role in self.roles.values() if not role.builtin],
            grants=[grant for grant in self.grants if not grant.glass], teams=self.teams.values(),
            accounts=self.accounts.values(), marks=self.marks.values(),
        )  # fmt: skip

    def decide_team(self, team: str, permission: str, object: str, now: float) -> Decision:
        """May who acts for the whole of `team` do it: by what was granted to the team itself?"""
        found = Decision(
            allowed=False,
            permission=permission,
            object=object,
            why=f"no grant gives team:{team} {permission} on {object}",
        )
        for grant, means in self._meant:
            if (grant.subject.kind, grant.subject.name) != ("team", team) or permission not in means:
                continue
            if matches(grant.scope, object) and (grant.until is None or now < grant.until):
                allowed = grant.effect == "allow"
                why = f"{_said(grant)} {'gives it to' if allowed else 'denies it to'} team:{team}" + _because(grant)
                found = Decision(allowed=allowed, permission=permission, object=object, why=why, grant=grant)
                if not allowed:
                    return found
        return found

    def anywhere(self, actor: Actor, permission: str, now: float) -> bool:
        """May `actor` do `permission` on anything at all: no denial takes the whole of it? What a list then shows is
        decided for each of its objects."""
        if self.almighty(actor):
            return True
        mine = [grant for grant, means in self.of(actor, now) if permission in means]
        kind = PERMISSIONS[permission].kind
        denied = [_whole(grant.scope, kind) for grant in mine if grant.effect == "deny"]
        held = [_whole(grant.scope, kind) for grant in mine if grant.effect == "allow"]
        if permission in self.root(actor):
            held.append(f"{kind}:*")
        return any(grant.glass for grant in mine) or any(
            not any(covers(scope, each) for scope in denied) for each in held
        )

    def _why_not(self, actor: Actor, permission: str, object: str, now: float) -> str:
        """The nearest reason why no grant gives it."""
        for grant, means in self._meant:
            if grant.effect == "deny" or permission not in means or not matches(grant.scope, object):
                continue
            subject = grant.subject
            if subject.kind == "user" and (actor.uid == subject.id) != (actor.name == subject.name):
                whom = f"the user {subject.name} with uid {subject.id}"
                return f"{_said(grant)} is for {whom}, and this is {actor.name} with uid {actor.uid}"
            if includes(subject, actor, self.teams) and grant.until is not None and now >= grant.until:
                return f"{_said(grant)} gave it to {subject} and has ended"
        who = f"account:{actor.name}" if actor.uid == ACCOUNT else actor.name
        return f"no grant gives {who} {permission} on {object}"

    def uses(self, permission: str, names: Mapping[int, str]) -> list[Use]:
        """Who has `permission`, teams taken apart; `names` has the names that uids have now: a grant for another name
        of that uid, or for one that has left, is none. What holds against denials comes first."""
        found = []
        for grant, means in self._meant:
            if permission not in means:
                continue
            subject = grant.subject
            found += [
                Use(
                    "user" if each.kind == "user" else "group",
                    each.id,
                    grant.effect == "deny",
                    grant.scope,
                    grant.until,
                    grant.glass,
                )
                for each in self._people(subject)
                if each.kind == "group" or names.get(each.id) == each.name
            ]
        return sorted(found, key=lambda use: not use.glass)

    def uids(self) -> set[int]:
        """Those that grants and teams name."""
        subjects = [grant.subject for grant in self.grants] + [m for team in self.teams.values() for m in team.members]
        return {each.id for each in subjects if each.kind == "user"}

    # ---------------------------------------------------------------------------------------- who may grant what

    def lacks(self, actor: Actor, what: str, scope: str, until: float | None, now: float) -> str:
        """Why `actor` may not hand on `what` on `scope` until then: nobody grants what he does not hold, wider than he
        holds it, or for longer. "" if he may."""
        if self.almighty(actor):
            return ""
        mine = self.of(actor, now)
        for permission in sorted(self.permissions_of(what)):
            if any(grant.glass and permission in means and covers(grant.scope, scope) for grant, means in mine):
                continue  # to mend the rights is what it is broken for; what is granted meanwhile may last
            for grant, means in mine:
                if grant.effect == "deny" and permission in means and overlap(grant.scope, scope):
                    return f"{_said(grant)} denies {permission} on {grant.scope} to {actor.name}"
            held = [
                grant
                for grant, means in mine
                if grant.effect == "allow" and permission in means and covers(grant.scope, scope)
            ]
            if not held:
                return f"{actor.name} does not hold {permission} on {scope}"
            if all(g.until is not None and (until is None or until > g.until) for g in held):
                return f"{actor.name} does not hold {permission} for so long"
        return ""

    def _makes_admin(self, grant: Grant, means: frozenset[str]) -> bool:
        """Would it make an admin of somebody for good, if he is there?"""
        forever = grant.effect == "allow" and grant.scope == "*" and grant.until is None
        return forever and means >= self.permissions_of("admin") and grant.subject.kind != "account"

    def _people(self, subject: Subject) -> tuple[Subject, ...]:
        """The users and groups of the host that are meant."""
        return self.teams.get(subject.name, Team(name="")).members if subject.kind == "team" else (subject,)

    def admin_subjects(self) -> set[Subject]:
        """The users and groups of the host that `admins` asks about."""
        makers = [grant for grant, means in self._meant if self._makes_admin(grant, means)]
        return {each for grant in makers for each in self._people(grant.subject)}

    def admins(self, now: float, people: Callable[[Subject], Iterable[Actor]]) -> list[Grant]:
        """The grants that make an admin of somebody for good: one of them has to stay. `people` tells who a user or a
        group of the host is; nobody, where it has left. Who is denied `access.grant` is no admin: he cannot mend the
        rights."""
        return [
            grant
            for grant, means in self._meant
            if self._makes_admin(grant, means)
            and any(self.admits(each, actor, now) for each in self._people(grant.subject) for actor in people(each))
        ]

    def admits(self, subject: Subject, actor: Actor, now: float) -> bool:
        """Is he meant by a user or group of the host, and not denied `access.grant`?"""
        return includes(subject, actor, {}) and not any(_bars(grant, means) for grant, means in self.of(actor, now))

    def standing(self, now: float) -> list[tuple[Grant, tuple[Subject, ...]]]:
        """All that `admins` hangs on: with the same standing there are the same admins."""
        return [
            (grant, self._people(grant.subject))
            for grant, means in self._meant
            if self._makes_admin(grant, means) or (_bars(grant, means) and (grant.until is None or now < grant.until))
        ]


def _bars(grant: Grant, means: frozenset[str]) -> bool:
    return grant.effect == "deny" and "access.grant" in means and overlap(grant.scope, "access:*")


def both(one: Iterable[Use], other: Iterable[Use] | None) -> tuple[Use, ...]:
    """What both of two lists allow and neither denies (None: everything). Of two patterns with a star at their end only
    one holds the other, or they have nothing in common."""
    if other is None:
        return tuple(one)
    one, other = tuple(one), tuple(other)
    found = [use for use in (*one, *other) if use.deny]
    for mine in (use for use in one if not use.deny):
        for his in (use for use in other if not use.deny):
            ends = [use.until for use in (mine, his) if use.until is not None]
            if covers(his.scope, mine.scope):
                found.append(mine._replace(until=min(ends, default=None)))
            elif covers(mine.scope, his.scope):
                found.append(mine._replace(scope=his.scope, until=min(ends, default=None)))
    return tuple(dict.fromkeys(found))


def _whole(scope: str, kind: str) -> str:
    """The scope as one of objects of this kind: of `*` these are all."""
    return f"{kind}:*" if scope == "*" else scope


def _said(grant: Grant) -> str:
    return f"grant {grant.id} ({grant.what} on {grant.scope})"


def _because(grant: Grant) -> str:
    return f": {grant.reason}" if grant.reason else ""
