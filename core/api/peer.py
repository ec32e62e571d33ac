"""Who calls: the kernel's word about the other end of a Unix socket, never something said."""

from __future__ import annotations

import functools
import pwd
import socket

from core.nouns import Actor
from core.peer import peer

_THROUGH = ("console", "cli")


def actor_of(sock: socket.socket, through: str) -> Actor:
    """The actor at the other end. `through` is what the client says of itself, for the record only."""
    found = peer(sock)
    through = through if through in _THROUGH else "api"
    return Actor(uid=found.uid, name=user_name(found.uid), through=through, groups=tuple(sorted(found.groups)))


@functools.lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of a uid, or `uid:1000` if the host knows none; looked up once, since a directory may be slow."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
