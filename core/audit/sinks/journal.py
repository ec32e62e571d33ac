"""journald, by its native protocol: one datagram a line, with fields that `journalctl` finds (CORRAL_VERB=…)."""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from core.audit.sinks.lines import Item

SOCKET = Path("/run/systemd/journal/socket")
SEND_S = 10.0
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Journal:
    """The journal's socket. It says nothing back: delivered is what its kernel took."""

    name = "journald"

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    async def send(self, items: Sequence[Item]) -> None:
        """Raises OSError (TimeoutError)."""
        if items:
            await asyncio.to_thread(self._send, items)

    def _send(self, items: Sequence[Item]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(SEND_S)
            out.connect(str(self._path))
            for item in items:
                _give(out, datagram(item))

    async def close(self) -> None:
        """Nothing stays open."""


def datagram(item: Item) -> bytes:
    """The fields of a line. A value with a newline goes in the form with its length, so that none becomes a field."""
    fields = {
        "MESSAGE": item.text, "PRIORITY": str(item.severity), "SYSLOG_IDENTIFIER": "corral-audit",
        "CORRAL_KIND": item.kind, **{f"CORRAL_{name.upper()}": value for name, value in item.fields.items()},
    }  # fmt: skip
    out = b""
    for name, value in fields.items():
        raw = value.encode("utf-8", "replace")
        if b"\n" in raw:
            out += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        else:
            out += name.encode() + b"=" + raw + b"\n"
    return out


def _give(out: socket.socket, text: bytes) -> None:
    try:
        out.send(text)
    except OSError as error:
        if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        _give_large(out, text)


def _give_large(out: socket.socket, text: bytes) -> None:
    """More than a datagram holds: a sealed piece of memory, as sd_journal_send does it."""
    fd = os.memfd_create("corral-audit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(os.dup(fd), "wb") as file:
            file.write(text)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        out.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    finally:
        os.close(fd)
