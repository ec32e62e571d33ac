"""What a service account may: what it was granted, as far as its owner may at that moment."""

from __future__ import annotations

from core.access.people import actor_named
from core.access.rights import ACCOUNT, Rights
from core.errors import Invalid, NotFound, missing
from core.nouns import Actor, Decision, Mark, ServiceAccount, Subject

USE = "deployments.use"
"""All that API keys, and so service accounts, can do."""


def owns(rights: Rights, actor: Actor, subject: Subject) -> bool:
    """Is `subject` a service account of `actor`'s own, or of a team that he is in?"""
    account = rights.accounts.get(subject.name) if subject.kind == "account" else None
    return account is not None and rights.meant(account.owner, actor)


def check_grant(rights: Rights, whom: Subject, what: str, scope: str) -> None:
    """Raises `NotFound` for an account that is not there, `Invalid` for a grant that no key could use."""
    if whom.name not in rights.accounts:
        raise missing("account", whom.name)
    if USE not in rights.permissions_of(what) or not (scope == "*" or scope.startswith("deployment:")):
        raise Invalid(
            f"{what} on {scope} is nothing to a service account", f"it acts through API keys, which {USE} is all of",
            f"for example {USE}, or the role user, on deployment:chat",
        )  # fmt: skip


async def decide(rights: Rights, subject: Subject, permission: str, object: str, now: float) -> Decision:
    """May this account do it now: by a grant of its own and by what its owner may. Raises `NotFound`."""
    account = rights.accounts.get(subject.name)
    if account is None:
        raise missing("account", subject.name)

    def no(why: str) -> Decision:
        return Decision(allowed=False, permission=permission, object=object, why=why)

    if permission != USE:
        return no(f"a service account acts through API keys, which {USE} is all of")
    if account.disabled_at is not None:
        return no(f"{account.name} is disabled" + (f": {account.disabled_for}" if account.disabled_for else ""))
    own = rights.decide(Actor(uid=ACCOUNT, name=account.name), permission, object, now)
    if not own.allowed:
        return own
    try:
        his = await _of_owner(rights, account, permission, object, now)
    except NotFound as error:
        return no(f"its owner {account.owner} is gone: {error.what}")
    if not his.allowed:
        return no(f"its owner may not: {his.why}")
    if barred := await _barred(rights, account.owner, object):
        return no(barred)
    return own


def bars(rights: Rights, mark: Mark, owner: Subject, actor: Actor | None) -> bool:
    """Is the deployment of this mark closed to keys of `owner` (a user is `actor`)? A team is in itself alone."""
    return not any(group == owner or (actor is not None and rights.meant(group, actor)) for group in mark.groups)


async def _barred(rights: Rights, owner: Subject, object: str) -> str:
    """Why keys of `owner` may not use a sensitive deployment; "" where they may."""
    mark = rights.marks.get(object.partition(":")[2])
    actor = await actor_named(owner.name) if mark is not None and owner.kind == "user" else None
    if mark is None or not bars(rights, mark, owner, actor):
        return ""
    whose = f"keys of {', '.join(map(str, mark.groups))} alone" if mark.groups else "no keys"
    return f"{object} is sensitive and takes {whose}"


async def _of_owner(rights: Rights, account: ServiceAccount, permission: str, object: str, now: float) -> Decision:
    owner = account.owner
    if owner.kind == "team":
        return rights.decide_team(owner.name, permission, object, now)
    actor = await actor_named(owner.name)
    if actor.uid != owner.id:
        raise NotFound(f"{owner.name} has uid {actor.uid} now and had {owner.id}")
    return rights.unbroken.decide(actor, permission, object, now)
