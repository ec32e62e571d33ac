"""syslog over TLS: RFC 5424 messages in the frames of RFC 5425. The collector's certificate is checked, always."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import re
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Sequence

from core.audit.sinks.lines import Item
from core.errors import Invalid

CONNECT_S = 10.0
SEND_S = 30.0
"""For a batch to have been taken by the collector's kernel."""
PORT = 6514
FACILITY = 13
"""log audit."""
SETTLE_S = 1.0
AGAIN_S, AGAIN_BYTES = 15.0, 1 << 20
"""What was sent so shortly before a connection broke is sent again on the next one."""
_POLL_S = 0.01


class Syslog:
    """A collector. The protocol has no answer: delivered is what its kernel has acknowledged. A collector that dies may
    lose lines that it had not read: those of the last seconds are sent again, each has its `seq`."""

    name = "syslog"

    def __init__(self, target: str, *, ca: str = "", cert: str = "", key: str = "") -> None:
        self.host, self.port = split(target)
        self._ca, self._cert, self._key = ca, cert, key
        self._hostname = re.sub(r"[^\x21-\x7e]", "?", socket.gethostname())[:255] or "-"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._anew = True
        self._sent: deque[tuple[float, bytes]] = deque(maxlen=1000)

    async def send(self, items: Sequence[Item]) -> None:
        """Raises OSError (ssl.SSLError, TimeoutError). With nothing: what a broken connection may have lost."""
        if not items and not (self._gone() and self._recent()):
            return
        if self._gone():
            await self.close()
            await self._connect()
        text = b"".join(frame(item, self._hostname) for item in items)
        try:
            again = self._recent() if self._anew else b""
            await self._write(again + text)
        except BaseException:
            await self.close()
            raise
        self._anew = False
        self._sent.append((time.monotonic(), text))

    async def _write(self, text: bytes) -> None:
        assert self._writer is not None
        self._writer.write(text)
        async with asyncio.timeout(SEND_S):
            await self._writer.drain()
            while not self._gone() and self._unacknowledged():  # noqa: ASYNC110 - the kernel tells no event
                await asyncio.sleep(_POLL_S)
        if self._gone():
            raise ConnectionResetError(errno.ECONNRESET, "the collector closed the connection")

    def _recent(self) -> bytes:
        """What was sent shortly before the connection broke, and nobody knows whether it was read."""
        since = time.monotonic() - AGAIN_S
        while self._sent and (self._sent[0][0] < since or sum(len(text) for _, text in self._sent) > AGAIN_BYTES):
            self._sent.popleft()
        return b"".join(text for _, text in self._sent)

    async def _connect(self) -> None:
        context = await asyncio.to_thread(self._context)
        async with asyncio.timeout(CONNECT_S):
            self._reader, self._writer = await asyncio.open_connection(
                self.host, self.port, ssl=context, server_hostname=self.host
            )
        # In TLS 1.3 a client learns that it was refused only after its first bytes; a collector never sends any itself.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._reader.read(1)
            await self.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the collector refused us after the handshake")

    def _gone(self) -> bool:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            return True
        return reader.at_eof() or reader.exception() is not None or writer.transport.is_closing()

    def _context(self) -> ssl.SSLContext:
        """Read anew for each connection: certificates are renewed."""
        context = ssl.create_default_context(cafile=self._ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._cert:
            context.load_cert_chain(self._cert, self._key or None, password=_no_passphrase)
        return context

    def _unacknowledged(self) -> int:
        """Bytes that the collector's kernel has not acknowledged, or that wait here."""
        assert self._writer is not None
        waiting = self._writer.transport.get_write_buffer_size()
        found = self._writer.get_extra_info("socket")
        (queued,) = struct.unpack("i", fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        return int(waiting + queued)

    async def close(self) -> None:
        """Within a second."""
        self._anew = True
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()


def split(target: str) -> tuple[str, int]:
    """`host`, `host:port` or `[address]:port`. Raises `Invalid`."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", target)
    port = int(found[3] or PORT) if found else 0
    if not found or not 0 < port < 65536:
        raise Invalid(f"audit.sinks.syslog is {target!r}", "it is no host:port", 'write "logs.example.com:6514"')
    return found[1] or found[2], port


def frame(item: Item, hostname: str) -> bytes:
    """LEN SP MSG. The message is ASCII, so that it needs no byte order mark."""
    time = item.time if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z", item.time) else "-"
    head = f"<{FACILITY * 8 + item.severity}>1 {time} {hostname} corral - {item.kind} - "
    message = head.encode("ascii", "replace") + item.text.encode("ascii", "replace")
    return b"%d %b" % (len(message), message)


def _no_passphrase() -> str:
    raise ssl.SSLError("the key of audit.sinks.syslog_cert has a passphrase: nobody is there to type it")
