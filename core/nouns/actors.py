"""Who asks."""

from __future__ import annotations

from core.nouns.base import Noun


class Actor(Noun, frozen=True, kw_only=True):
    """Who asks. `uid` is the kernel's word (SO_PEERCRED); -1 is Corral itself."""

    uid: int
    name: str
    through: str = "api"
    """`console`, `cli`, `api`, `gateway`, `daemon`: said by the client, for the record only, never for rights."""
    groups: tuple[int, ...] = ()


CORRAL = Actor(uid=-1, name="corral", through="daemon")
STRANGER = "stranger"
"""The name in the trail, with uid -1, of one whom nobody knows: a program at the gateway's door without a valid key."""
"""The actor of what Corral does by itself: restarts, the watchdog, a reconcile."""
