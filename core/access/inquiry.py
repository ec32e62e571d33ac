"""Questions about the rights in force, asked by name: why may he, who holds what, who am I, what would a change do.

Nothing here changes anything; core.access.questions works the answers out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from core.access import accountrights, questions
from core.access.gate import Gate
from core.access.grantrules import check, check_object, check_what, new_grant
from core.access.people import NOBODY, actor_named, group_names, subject_named
from core.access.permissions import PERMISSIONS
from core.access.rights import ACCOUNT, Rights
from core.errors import CorralError, Invalid, NotFound
from core.nouns import CORRAL, Actor, Decision, Difference, Grant, GrantShown, Held, Role, Subject, Whoami


class Inquiry:
    """Answers from the rights that the gate has."""

    def __init__(
        self, gate: Gate, gone: Callable[[Subject], str], *, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        """`gone` says why nobody is this user any more."""
        self._gate, self._gone = gate, gone
        self._clock = clock

    @property
    def rights(self) -> Rights:
        return self._gate.rights

    async def explain(self, subject: str, permission: str, object: str) -> Decision:
        """Whether a user (`alice` or `user:alice`) or a service account (`account:ci`) may do it now, and by which
        grant. Raises `Invalid`, `NotFound`, `TimedOut`."""
        if permission not in PERMISSIONS:
            raise Invalid(f"there is no permission {permission!r}", todo="corral access permissions")
        check_object(permission, object)
        if subject.startswith("account:"):
            return await accountrights.decide(
                self.rights, await subject_named(subject), permission, object, self._clock()
            )
        actor = await actor_named(subject)
        now = self._clock()
        found = self.rights.decide(actor, permission, object, now)
        return msgspec.structs.replace(found, also=questions.also(self.rights, actor, found, now))

    def grants(self) -> list[GrantShown]:
        """All of them, also those that hold for nobody any more."""
        return [self.shown(each) for each in self.rights.grants]

    def shown(self, grant: Grant) -> GrantShown:
        """With whether there is somebody whom it is for."""
        return GrantShown(**msgspec.structs.asdict(grant), gone=self._gone(grant.subject))

    def matrix(self) -> list[Held]:
        """Who holds what. Who has left the host, or was renamed, holds nothing."""
        return questions.matrix(self.rights, self._gone, self._clock())

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
                check_what(rights, each)
        else:
            whom = await subject_named(subject)
            check(what, scope, "", until, self._clock())
            check_what(rights, what)
            made = new_grant(CORRAL, "deny" if deny else "allow", what, whom, scope, "", until, self._clock())
            grant = msgspec.structs.replace(made, id="that is asked about")  # an id would be looked for
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
