"""What may be written as a grant: what it gives, on which scope, why and until when."""

from __future__ import annotations

import re
import secrets

from core.access.permissions import PERMISSIONS
from core.access.rights import Rights
from core.errors import Invalid, NotFound
from core.nouns import Actor, Grant, Subject

SCOPE = re.compile(r"(?P<kind>[a-z]+):(?P<name>[^*\s:]{0,128}\*?)")
KINDS = frozenset(each.kind for each in PERMISSIONS.values())
NAMED = ("deployment", "model", "account", "tier")
PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\*?|\*")
"""Of the names of these: a scope that no name can match would be a grant that looks like one."""
_PART = re.compile(r"(?!\.{1,2}$)[^\s:*/]+")
REASON_LENGTH = 500
OBJECT = re.compile(r"(?P<kind>[a-z]+):(?P<name>[^*\s\x00-\x1f]{1,300})")
PARTED = {"key": "/", "limit": "/", "access": ":"}
"""The kinds of objects whose names are made of several."""
EXAMPLES = {
    "deployment": "chat", "model": "tiny", "account": "ci", "node": "local", "daemon": "local", "audit": "chain",
    "usage": "all", "chat": "retention", "user": "alice", "key": "alice/ci", "limit": "group/staff",
    "access": "user:alice", "tier": "fast",
}  # fmt: skip
"""A name for each kind of objects."""


def check(what: str, scope: str, reason: str, until: float | None, now: float) -> None:
    """Raises `Invalid` for a grant that would mean nothing."""
    match = SCOPE.fullmatch(scope)
    if scope != "*" and (match is None or match["kind"] not in KINDS):
        kinds = ", ".join(sorted(KINDS))
        raise Invalid(
            f"{scope!r} is no scope", f"it is * or kind:name, a star at the end only; kinds are {kinds}",
            "for example deployment:team-a-*",
        )  # fmt: skip
    if match is not None and match["kind"] in NAMED and not PLAIN.fullmatch(match["name"]):
        wanted = re.sub(r"[^a-z0-9._-]+", "-", match["name"].rstrip("*").lower()).strip("-._") or "team-a"
        raise Invalid(
            f"{scope!r} matches no {match['kind']}", "their names are of a-z, 0-9, dot, dash and underscore alone",
            f"begin the names alike, and say {match['kind']}:{wanted}-*",
        )  # fmt: skip
    if len(reason) > REASON_LENGTH:
        raise Invalid(f"the reason is over {REASON_LENGTH} characters")
    if until is not None and until <= now:
        raise Invalid("the grant would end before it begins", todo="give an end that lies ahead")
    named = PERMISSIONS.get(what)
    if named is not None and match is not None and match["kind"] != named.kind:
        raise Invalid(f"{what} is about {named.kind}:..., so on {scope} it would mean nothing")


def check_object(permission: str, object: str) -> None:
    """Raises `Invalid` for one that the permission is not about, or that nothing can be called: `no` would be no answer
    to a question about it."""
    kind, found = PERMISSIONS[permission].kind, OBJECT.fullmatch(object)
    todo = f"for example {kind}:{EXAMPLES[kind]}"
    if found is None:
        raise Invalid(f"{object!r} is no object", "it is kind:name, with no star", todo)
    if found["kind"] != kind:
        raise Invalid(f"{permission} is about {kind}:..., and {object!r} is none", todo=todo)
    name = found["name"]
    if kind in NAMED:
        if not PLAIN.fullmatch(name):
            why = "their names are of a-z, 0-9, dot, dash and underscore alone, up to 63"
            raise Invalid(f"no {kind} can be called {name!r}", why, todo)
    elif not all(map(_PART.fullmatch, name.split(PARTED[kind]) if kind in PARTED else [name])):
        raise Invalid(f"no {kind} can be called {name!r}", todo=todo)


def check_what(rights: Rights, what: str) -> None:
    """Raises `Invalid`, `NotFound` where there is no such permission or role."""
    if "." in what or what == "*":
        if not rights.permissions_of(what):
            raise Invalid(f"there is no permission {what!r}", todo="corral access permissions")
    elif what not in rights.roles:
        known = ", ".join(sorted(rights.roles))
        raise NotFound(f"there is no role {what!r}", f"there are: {known}", "corral access roles")


def new_grant(
    by: Actor, effect: str, what: str, subject: Subject, scope: str, reason: str, until: float | None, now: float
) -> Grant:
    """A grant with an id of its own."""
    return Grant(
        id=f"g{secrets.token_hex(4)}", effect="deny" if effect == "deny" else "allow", what=what, subject=subject,
        scope=scope, reason=reason, by=by.name, at=now, until=until,
    )  # fmt: skip


def alike(one: Grant, other: Grant) -> bool:
    """Do they say the same?"""
    return (one.effect, one.what, one.subject, one.scope, one.until) == (
        other.effect, other.what, other.subject, other.scope, other.until,
    )  # fmt: skip
