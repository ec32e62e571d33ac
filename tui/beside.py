"""Personal grants that stand beside a team's: who is taken out of the team keeps them, and should not do so unseen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.nouns import Decision, Grant, GrantShown, Role, Subject, Team
from tui.words import has_ended


def explained(decision: Decision) -> str:
    """Why it is so, and by which grants it would be so without the one that decided."""
    too = ", ".join(f"{each.id} ({each.what} on {each.scope}) of {each.subject}" for each in decision.also)
    return f"{decision.why}; so {'does' if len(decision.also) == 1 else 'do'} {too}" if too else decision.why


class Beside(NamedTuple):
    """`own` gives to a member of a team something of what `team` gives him through it."""

    own: Grant
    team: Grant

    def __str__(self) -> str:
        own, team = self.own, self.team
        return f"{own.id} is {own.subject}'s own, beside {team.id} of {team.subject}: out of the team he keeps it"


def beside(grants: Sequence[Grant], teams: Iterable[Team], roles: Iterable[Role]) -> list[Beside]:
    """All of them, in the order of `grants`."""
    allows = {role.name: role.allows for role in roles}
    members = {team.name: set(team.members) for team in teams}
    lasting = [each for each in grants if _gives(each) and not each.glass]
    of_teams = [each for each in lasting if each.subject.kind == "team"]
    return [
        Beside(own, team)
        for own in lasting
        for team in of_teams
        if own.subject in members.get(team.subject.name, ())
        and _overlap([own.scope], [team.scope])
        and _overlap(_patterns(own, allows), _patterns(team, allows))
    ]


def kept(left: Iterable[Subject], out_of: str, grants: Iterable[Grant], teams: Iterable[Team]) -> list[str]:
    """What those who `left` the team `out_of` still have in their own name or through another team, as sentences."""
    others = [team for team in teams if team.name != out_of]
    lasting = [each for each in grants if _gives(each)]
    found = []
    for who in left:
        through = {who, *(Subject(kind="team", name=team.name) for team in others if who in team.members)}
        his = [each for each in lasting if each.subject in through]
        found += [f"{who} keeps {_said(each, who)}" for each in his]
    return found


def _gives(grant: Grant) -> bool:
    """Does it give something to somebody now?"""
    gone = isinstance(grant, GrantShown) and grant.gone
    return grant.effect == "allow" and not gone and not has_ended(grant)


def _said(grant: Grant, who: Subject) -> str:
    through = "" if grant.subject == who else f" through {grant.subject}"
    return f"{grant.what} on {grant.scope}{through}: corral access revoke {grant.id}"


def _patterns(grant: Grant, allows: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return allows.get(grant.what, (grant.what,))


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Is there a name that a pattern of both matches? A star stands at the end only."""
    return any(_meet(a, b) for a in one for b in other)


def _meet(one: str, other: str) -> bool:
    if one.endswith("*") and other.endswith("*"):
        return one[:-1].startswith(other[:-1]) or other[:-1].startswith(one[:-1])
    if one.endswith("*"):
        return other.startswith(one[:-1])
    return one.startswith(other[:-1]) if other.endswith("*") else one == other
