"""A client that follows a turn which somebody else began: one that runs here, or one that the gateway before this one
still holds. To its connection each is what an `Exchange` is: whoever answers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from core.gateway.core import Core
from core.gateway.errors import Refusal
from core.gateway.turns import Turn
from core.gateway.upstream import EngineConnection, Pool

BEHIND = 4 << 20
"""Bytes that a follower may leave untaken before it is cut: a turn is never paused for one."""


class Client(Protocol):
    """Where the answer goes."""

    def begin(self, status: int, content_type: bytes, length: int | None) -> None: ...
    def part(self, data: bytes, last: bool) -> None: ...
    def refuse(self, refusal: Refusal) -> None: ...
    def break_off(self) -> None: ...
    def untaken(self) -> int: ...


class Following:
    """Follows a turn that runs here."""

    def __init__(self, turn: Turn, client: Client) -> None:
        self._turn = turn
        self._client = client
        turn.followers.append(self)

    def turn_part(self, data: bytes, last: bool) -> None:
        if self._client.untaken() > BEHIND:
            self._turn.leave(self)
            self._client.break_off()
            return
        if last:
            self._turn.leave(self)
        self._client.part(data, last)

    def client_gone(self) -> None:
        self._turn.leave(self)

    def pause(self) -> None:
        """The turn goes on; what is not taken is bounded by `BEHIND`."""

    def resume(self) -> None:
        """Nothing was paused."""


class Relayed:
    """Asks the gateway before this one, and passes on what it says."""

    def __init__(self, core: Core, pool: Pool, client: Client, method: bytes, target: bytes) -> None:
        self._client = client
        self._begun = False
        self._ended = asyncio.Event()
        self._connection: EngineConnection | None = None
        self._task = core.start(self._ask(pool, b"%b %b HTTP/1.1\r\nHost: corral\r\n\r\n" % (method, target)))

    async def _ask(self, pool: Pool, request: bytes) -> None:
        try:
            self._connection = await pool.connect()
            self._connection.send(self, request)
            await self._ended.wait()
        except (OSError, TimeoutError):
            self._client.refuse(_NO_TURN)
        finally:
            if self._connection is not None:
                self._connection.abort()

    def answer(self, status: int, content_type: bytes, body: bytes) -> None:
        self.answer_head(status, content_type, len(body))
        self.answer_part(body, True)

    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None:
        self._begun = True
        self._client.begin(status, content_type, length)

    def answer_part(self, data: bytes, last: bool) -> None:
        self._client.part(data, last)
        if last:
            self._ended.set()

    def answer_lost(self) -> None:
        if self._begun:
            self._client.break_off()
        else:
            self._client.refuse(_NO_TURN)
        self._ended.set()

    def client_gone(self) -> None:
        self._task.cancel()

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()


_NO_TURN = Refusal(404, "no such turn", "not_found")
