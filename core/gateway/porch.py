"""Where clients stand until their TLS handshake is done. A connection counts only from then on, so those that stand
here are counted, bounded and timed apart: half-open ones by the thousand cost a fixed amount and stall nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from core.gateway.crowd import place
from core.gateway.errors import Refusal
from core.gateway.listener import answer_head

log = logging.getLogger("gateway")

HANDSHAKE_S = 10.0
SHUTDOWN_S = 30.0
"""What a client may take to take the rest of its answer once the connection is to be closed."""
HANDSHAKES = 1024
"""At a time; one more ends the oldest. Each costs some 30 KiB."""
AN_ADDRESS = 64
"""Handshakes that one address may have under way; one more ends its oldest."""
AT_ONCE = 64
"""Connections that are accepted in one turn of the loop."""
FULL_S = 0.5
"""Pause where there is no descriptor left: without one the loop would turn as fast as it can."""
LINGER_S = 2.0
"""How long what a client still sends that was told off is dropped: it finds our words, and no broken connection."""
_PLAIN = Refusal(
    400, "this port speaks TLS, and plain HTTP came: say https:// in the URL (a key that came with it was readable)",
    "bad_request",
).body()  # fmt: skip
_TOLD = b"%bContent-Length: %d\r\n\r\n%b" % (answer_head(400, b"application/json", False, False), len(_PLAIN), _PLAIN)
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Porch:
    """Accepts on `listener`, shakes hands by `context`, and hands over to the protocol that `serve` makes."""

    def __init__(self, listener: socket.socket, serve: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self.context = context
        self.failed = 0
        """Handshakes that failed or took too long."""
        self._listener = listener.dup()
        self._serve = serve
        self._guests: dict[asyncio.Task[None], str] = {}
        """Each with its address, the oldest first."""
        self._of: dict[str, dict[asyncio.Task[None], None]] = {}
        """The same by address."""
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept nobody new. Whoever stands here is let in, or told off by the time-out."""
        if self._again is not None:
            self._again.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                guest, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(FULL_S, self.open)
                return
            guest.setblocking(False)
            where = place(address[0])
            if len(self._of.get(where, ())) >= AN_ADDRESS:
                self._end(next(iter(self._of[where])))
            elif len(self._guests) >= HANDSHAKES:
                self._end(next(iter(self._guests)))
            task = self._loop.create_task(self._welcome(guest))
            self._guests[task] = where
            self._of.setdefault(where, {})[task] = None
            task.add_done_callback(self._gone)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._gone(task)

    def _gone(self, task: asyncio.Task[None]) -> None:
        where = self._guests.pop(task, None)
        if where is not None:
            del self._of[where][task]
            if not self._of[where]:
                del self._of[where]

    async def _welcome(self, guest: socket.socket) -> None:
        until = self._loop.time() + HANDSHAKE_S
        try:
            async with asyncio.timeout_at(until):
                first = await self._first(guest)
            if first.isalpha():  # a method; a handshake begins with no letter
                await self._tell_off(guest)
                return
            await self._loop.connect_accepted_socket(
                self._serve, guest, ssl=self.context, ssl_handshake_timeout=max(0.1, until - self._loop.time()),
                ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            self.failed += 1
            with contextlib.suppress(OSError):
                guest.close()

    async def _first(self, guest: socket.socket) -> bytes:
        """The first byte that came, which is left where it is; nothing from who has gone."""
        while True:
            try:
                return guest.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                came = asyncio.Event()
                self._loop.add_reader(guest, came.set)
                try:
                    await came.wait()
                finally:
                    self._loop.remove_reader(guest)

    async def _tell_off(self, guest: socket.socket) -> None:
        """Nothing of what came is read as a request."""
        self.failed += 1
        with guest, contextlib.suppress(OSError):
            guest.send(_TOLD)
            guest.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER_S):
                while await self._loop.sock_recv(guest, 1 << 16):
                    pass
