"""Who calls: the kernel's word about the other end of a Unix socket, never something said."""

from __future__ import annotations

import pwd
import socket
import struct

from core.nouns import Actor

SO_PEERGROUPS = 59
"""Linux: the peer's supplementary groups, without an NSS look-up."""

_THROUGH = ("console", "cli")


def actor_of(peer: socket.socket, through: str) -> Actor:
    """The actor at the other end. `through` is what the client says of itself, for the record only."""
    _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = {gid}
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 65536)
        groups.update(struct.unpack(f"{len(raw) // 4}I", raw))
    except OSError:
        pass
    return Actor(uid=uid, name=user_name(uid), through=through if through in _THROUGH else "api", groups=tuple(groups))


def user_name(uid: int) -> str:
    """The name of a uid, or `uid:1000` if the host knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
