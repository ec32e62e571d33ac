"""Questions about rights: who holds what, and what a change would give or take. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from core.access.permissions import PERMISSIONS, covers, matches
from core.access.rights import Rights
from core.nouns import Actor, Decision, Difference, Grant, Held, Role, Subject, Team, Whoami

MOST = 1000
"""Differences that are told; a change that makes more is told as far."""


def matrix(rights: Rights, gone: Callable[[Subject], str], now: float) -> list[Held]:
    """Each subject that has grants, and is there, with each permission: denials beside what they take from."""
    found = [
        Held(
            subject=str(grant.subject), permission=permission, scope=grant.scope, effect=grant.effect, grant=grant.id,
            until=grant.until,
        )
        for grant in rights.grants
        if (grant.until is None or now < grant.until) and not gone(grant.subject)
        for permission in PERMISSIONS
        if permission in rights.permissions_of(grant.what)
    ]  # fmt: skip
    order = {name: n for n, name in enumerate(PERMISSIONS)}
    return sorted(found, key=lambda held: (held.subject, order[held.permission], held.effect, held.scope))


def also(rights: Rights, actor: Actor, decision: Decision, now: float) -> tuple[Grant, ...]:
    """The grants that say the same as the one that decided: a personal one beside a team's outlives the team."""
    first = decision.grant
    return tuple(
        grant
        for grant, means in rights.of(actor, now)
        if first is not None and grant.id != first.id and grant.effect == first.effect
        and decision.permission in means and matches(grant.scope, decision.object)
    )  # fmt: skip


def whoami(rights: Rights, actor: Actor, groups: Sequence[str], now: float) -> Whoami:
    """What `actor` holds; `groups` are the names of his groups."""
    because, mine = rights.almighty(actor), rights.of(actor, now)
    lines = [
        Held(
            subject=str(grant.subject), permission=permission, scope=grant.scope, effect=grant.effect, grant=grant.id,
            until=grant.until,
        )
        for permission in PERMISSIONS
        for grant, means in mine
        if permission in means
    ]  # fmt: skip
    lines += [
        Held(subject="root on this host", permission=permission, scope="*")
        for permission in PERMISSIONS
        if permission in rights.root(actor)
    ]
    if because:
        lines = [Held(subject=f"user:{actor.name}", permission=permission, scope="*") for permission in PERMISSIONS]
    return Whoami(
        name=actor.name, uid=actor.uid, groups=tuple(groups), through=actor.through, because=because,
        grants=tuple(grant for grant, _ in mine), holds=tuple(each for each in lines if each.effect == "allow"),
        denied=tuple(
            each
            for each in lines
            if each.effect == "deny"
            and not any(g.glass and each.permission in means and covers(g.scope, each.scope) for g, means in mine)
        ),
    )  # fmt: skip


def changed(
    rights: Rights, *, grant: Grant | None = None, revoke: str = "", role: Role | None = None, team: Team | None = None
) -> Rights:
    """The rights as they would be with one more grant, one less, a role defined (anew), or a team of other members."""
    accounts = rights.accounts.values()
    grants = [each for each in rights.grants if each.id != revoke]
    roles = {name: each for name, each in rights.roles.items() if not each.builtin}
    teams = dict(rights.teams)
    if grant is not None:
        grants.append(grant)
    if role is not None:
        roles[role.name] = role
    if team is not None:
        teams[team.name] = team
    return Rights(
        mode=rights.mode, owner_uid=rights.owner_uid, roles=roles.values(), grants=grants, teams=teams.values(),
        accounts=accounts, marks=rights.marks.values(),
    )  # fmt: skip


def differences(
    before: Rights, after: Rights, actors: Iterable[tuple[str, Actor]], objects: Iterable[str], now: float
) -> list[Difference]:
    """What each of `actors` (with the name that he is shown by) could do before and could not after, or the other way
    round, on each of `objects` (`kind:name`)."""
    there, found = list(objects), []
    for name, actor in actors:
        for permission, meant in PERMISSIONS.items():
            for object in (each for each in there if each.startswith(f"{meant.kind}:")):
                old = before.decide(actor, permission, object, now)
                new = after.decide(actor, permission, object, now)
                if old.allowed != new.allowed:
                    found.append(
                        Difference(
                            subject=name, permission=permission, object=object, before=old.allowed, after=new.allowed,
                            why=new.why,
                        )
                    )  # fmt: skip
                if len(found) >= MOST:
                    return found
    return found


def concerned(rights: Rights) -> list[Subject]:
    """The users, groups and service accounts that grants and teams name."""
    subjects = [grant.subject for grant in rights.grants] + [m for team in rights.teams.values() for m in team.members]
    return list(dict.fromkeys(each for each in subjects if each.kind != "team"))


def scope_objects(scopes: Iterable[str], there: Iterable[str]) -> list[str]:
    """The objects to compare on: what is there, and for each scope that matches none of it a made-up name in it."""
    objects = list(dict.fromkeys(there))
    for scope in scopes:
        if scope != "*" and not any(matches(scope, each) for each in objects):
            objects.append(scope.replace("*", "any"))
    return objects
