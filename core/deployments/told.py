"""What the gateway is told of who may use it: rights and keys, in its own words."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.access.ended import Ended
from core.access.keyrules import LOCAL
from core.access.keys import Told
from core.access.rights import Use
from core.gateway import wire

NOWHERE = "::/128"


def allowed(uses: Iterable[Use], uids: Iterable[int]) -> wire.Allowed:
    """Who may use the gateway's socket without a key: these uids everything, the others what `uses` gives them."""
    return wire.Allowed(uids=tuple(uids), rules=tuple(map(_rule, uses)))


def keys(told: Iterable[Told]) -> tuple[wire.Key, ...]:
    """The keys for programs, each secret one."""
    return tuple(
        wire.Key(
            id=key.id, name=key.name, hash=hash, uid=key.owner.id, until=until,
            owner=key.owner.name if key.owner.kind == "user" else str(key.owner),
            rules=None if uses is None else tuple(map(_rule, uses)), deployments=key.deployments,
            endpoints=key.endpoints, sources=_networks(key.sources), local=LOCAL in key.sources,
            limits=wire.Limits(**msgspec.structs.asdict(key.limits)), groups=groups,
            team=behind.name if behind.kind == "team" else "",
            behind=behind.id if behind.kind == "user" else -1, replaced=replaced,
        )
        for key, hash, until, uses, behind, groups, replaced in told
    )  # fmt: skip


def ended(secrets: Iterable[Ended]) -> tuple[wire.Ended, ...]:
    """Secrets that are refused, and why."""
    return tuple(
        wire.Ended(hash=hash, key=key.id, name=key.name, uid=key.owner.id, why=why) for key, hash, why in secrets
    )


def _networks(sources: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a key without the word for the socket; where it stood alone, one that nobody comes from: none would be
    everywhere."""
    return tuple(source for source in sources if source != LOCAL) or (NOWHERE,) * bool(sources)


def _rule(use: Use) -> wire.Rule:
    return wire.Rule(
        user=use.kind == "user", id=use.id, scope=use.scope, deny=use.deny, until=use.until, glass=use.glass
    )  # fmt: skip
