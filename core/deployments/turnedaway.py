"""Whom the gateway has turned away, as the audit trail names them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from core.gateway import wire
from core.nouns import CORRAL, STRANGER, Actor, Key

GATEWAY = "gateway:local"


async def turned_away(
    denied: wire.Denied, key_of: Callable[[str], Key | None], name: Callable[[int], Awaitable[str]]
) -> tuple[Actor, str]:
    """Who it was and on what: with a known key its owner, on that key; else whoever came, at the gateway's door."""
    key = key_of(denied.key) if denied.key else None
    if key is not None:
        owner = key.owner
        whose = owner.name if owner.kind == "user" else str(owner)
        return Actor(uid=owner.id, name=whose, through="gateway"), f"key:{owner.name}/{key.name}"
    # A program that came by TCP without a key that is known: its reason says from where.
    known = {wire.SEVERAL: "several", CORRAL.uid: STRANGER}.get(denied.uid)
    return Actor(uid=denied.uid, name=known or await name(denied.uid), through="gateway"), GATEWAY
