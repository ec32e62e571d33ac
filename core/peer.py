"""Who is at the other end of a Unix socket, by the kernel's word: for the daemon's socket and the gateway's."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import NamedTuple

SO_PEERGROUPS = 59
"""Linux: the peer's supplementary groups, without a look-up in a directory that might block."""
SHORT = 1024
"""Bytes that Python's getsockopt takes at most: 256 groups."""
LONG = 65536 * 4
"""Bytes of the most groups that a process can have."""


class Peer(NamedTuple):
    """pid, uid and all groups of a process at the moment at which it connected (or began to listen)."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer(sock: socket.socket) -> Peer:
    """The other end of a connected Unix socket. Raises OSError where the kernel does not say."""
    # uid and gid are unsigned: -1, Corral itself, can never come from a socket.
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, SHORT)
    except OSError:
        raw = _long(sock.fileno())
    return Peer(pid, uid, frozenset((gid, *struct.unpack(f"{len(raw) // 4}I", raw))))


def _long(fd: int) -> bytes:
    """The groups of somebody who is in more than 256; none where the kernel does not know the question."""
    buffer, length = ctypes.create_string_buffer(LONG), ctypes.c_uint(LONG)
    failed = ctypes.CDLL(None).getsockopt(fd, socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(length))
    return b"" if failed else buffer.raw[: length.value]
