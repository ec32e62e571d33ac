"""All permissions and the built-in roles, in one place: what each lets one do, on which kind of object.

A route, an event and a screen's key name one of these; docs/access.md is made from this page.
"""

from __future__ import annotations

from typing import NamedTuple

from core.nouns import Role


class Permission(NamedTuple):
    """`noun.verb` on objects of `kind` (`kind:name`)."""

    name: str
    kind: str
    words: str


PERMISSIONS: dict[str, Permission] = {
    each.name: each
    for each in (
        Permission("daemon.read", "daemon", "see its status and what happens"),
        Permission("daemon.reload", "daemon", "have it read corral.toml again"),
        Permission("daemon.shutdown", "daemon", "end it, with or without its models"),
        Permission("gateway.certificate", "daemon", "make the certificate of the gateway's listeners"),
        Permission("nodes.read", "node", "see hosts and what was measured on them"),
        Permission("nodes.label", "node", "say what labels a host has"),
        Permission("nodes.bench", "node", "measure how fast a host is, which takes about a minute of it"),
        Permission("models.read", "model", "see models and plan their memory"),
        Permission("models.corrections", "daemon", "revoke what sizing has learned from launches, and restore it"),
        Permission("models.import", "model", "store a model under a name"),
        Permission("models.pull-private", "model", "pull it from a private, loopback or link-local address"),
        Permission("models.rm", "model", "remove a model or a version of it"),
        Permission("models.alias", "model", "say what an alias means, and what a version is called"),
        Permission("models.verify", "model", "read all stored bytes again, and set aside what has rotted"),
        Permission("models.gc", "model", "remove versions that nothing needs"),
        Permission("models.bench", "model", "measure how fast a model is, which takes the host while it lasts"),
        Permission("models.move", "model", "move a model to another tier"),
        Permission("tiers.read", "tier", "see the folders that models are stored in, and name one for a deployment"),
        Permission("tiers.manage", "tier", "make a folder a tier, measure it, say its rules, and forget it"),
        Permission("deployments.read", "deployment", "see deployments and their replicas"),
        Permission("deployments.use", "deployment", "send requests to it and chat with it"),
        Permission("deployments.logs", "deployment", "read the logs of its engine"),
        Permission("deployments.create", "deployment", "deploy under a name, and replace what is there"),
        Permission(
            "deployments.attach-private", "deployment", "attach a server at a private, loopback or link-local address"
        ),
        Permission("deployments.start", "deployment", "start it"),
        Permission("deployments.stop", "deployment", "stop it"),
        Permission("deployments.restart", "deployment", "restart its replicas"),
        Permission("deployments.scale", "deployment", "change the number of its replicas"),
        Permission("deployments.rm", "deployment", "remove it"),
        Permission("deployments.mark", "deployment", "say that it is sensitive, or no more"),
        Permission("chats.own", "chat", "keep chats of one's own: ask, read, rename, export, delete"),
        Permission("chats.read-others", "user", "read what others said; each look is recorded with its reason"),
        Permission("chats.forget", "user", "delete all that a user said, and destroy his key"),
        Permission("chats.hold", "user", "put chats under legal hold, and release them"),
        Permission("chats.retention", "chat", "say how long chats are kept"),
        Permission("chats.keys", "chat", "unlock the chats, and go over to another master key"),
        Permission("usage.read-others", "usage", "see what others used, and what it costs"),
        Permission("audit.read", "audit", "read the audit trail"),
        Permission("audit.verify", "audit", "verify its chain"),
        Permission("audit.export", "audit", "take a signed copy of the trail, and report on it"),
        Permission("audit.archive", "audit", "move old records into a signed file, under a seal"),
        Permission("audit.keys", "audit", "go over to another signing key"),
        Permission("audit.accept", "audit", "accept a fault of the chain that was cleared up"),
        Permission(
            "accounts.own", "account", "make service accounts of one's own and of one's teams, grant, disable them"
        ),
        Permission("accounts.read", "account", "see everybody's service accounts"),
        Permission("accounts.manage", "account", "make, disable and remove everybody's service accounts"),
        Permission("keys.own", "key", "make, limit, rotate and revoke API keys of one's own and of one's teams"),
        Permission("keys.read", "key", "see everybody's API keys (never their secrets)"),
        Permission("keys.manage", "key", "make, limit, rotate and revoke everybody's API keys"),
        Permission("limits.read", "limit", "see everybody's limits and what is left of them"),
        Permission("limits.set", "limit", "set and remove limits of users, groups, teams, keys, models, deployments"),
        Permission("access.read", "access", "see roles, grants and teams, and explain decisions"),
        Permission("access.grant", "access", "grant what one holds, deny, and revoke"),
        Permission("access.roles", "access", "define and remove roles"),
        Permission(
            "access.break-glass", "access", "take in an emergency what one does not hold, for a while; it rings"
        ),
        Permission("access.teams", "access", "define teams and who is in them"),
    )
}
"""By name, in the order in which they are shown."""

_SEE = ("daemon.read", "nodes.read", "models.read", "deployments.read")
BEYOND = ("access.break-glass", "audit.accept", "audit.archive", "chats.read-others")
"""No role has these: an admin takes nothing out of the trail, nor out of sight."""
_HAVE = ("chats.own", "accounts.own", "keys.own")
_OPERATE = tuple(
    name
    for name in PERMISSIONS
    if name.startswith("deployments.") and name not in ("deployments.mark", "deployments.attach-private")
)

BUILTIN: dict[str, Role] = {
    each.name: each
    for each in (
        Role(name="viewer", allows=_SEE, words="sees what there is and what runs", builtin=True),
        Role(
            name="user",
            allows=("daemon.read", "models.read", "deployments.read", "deployments.use", *_HAVE),
            words="uses what is deployed, keeps chats, has API keys and service accounts", builtin=True,
        ),
        Role(
            name="operator", allows=(*_SEE, *(p for p in _OPERATE if p != "deployments.read"), "tiers.read", *_HAVE),
            words="deploys, starts, stops, scales and removes, and uses it", builtin=True,
        ),
        Role(
            name="librarian", allows=(
                *_SEE, "models.import", "models.rm", "models.alias", "models.verify", "models.gc",
                "models.bench",
                "models.move", "tiers.read",
            ),
            words="stores models, says which version is live, verifies, moves and removes them", builtin=True,
        ),
        Role(
            name="auditor",
            allows=(
                *_SEE, "tiers.read", "usage.read-others", "audit.read", "audit.verify", "audit.export", "access.read",
                "accounts.read", "keys.read", "limits.read",
            ),
            words="reads the trail, the rights and what runs; changes nothing", builtin=True,
        ),
        Role(
            name="admin",
            allows=tuple(name for name in PERMISSIONS if name not in BEYOND),
            words="does everything but accept faults of the trail, archive it, and read others' chats", builtin=True,
        ),
    )
}  # fmt: skip


def matches(pattern: str, name: str) -> bool:
    """Does `pattern` (a star stands at its end only) match `name`?"""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def covers(wide: str, narrow: str) -> bool:
    """Does the pattern `wide` match whatever the pattern `narrow` matches?"""
    if narrow.endswith("*"):
        return wide.endswith("*") and narrow[:-1].startswith(wide[:-1])
    return matches(wide, narrow)


def overlap(one: str, other: str) -> bool:
    """Is there a name that both patterns match?"""
    if one.endswith("*") and other.endswith("*"):
        return one[:-1].startswith(other[:-1]) or other[:-1].startswith(one[:-1])
    return matches(one, other) or matches(other, one)
