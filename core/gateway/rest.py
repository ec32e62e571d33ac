"""What a stream comes to whose client has gone, by the engine's own count.

An engine of llama.cpp's looks after each token whether its client is still there, and makes one or two more until the
slot is free: hung up on, it tells of none of them. So the gateway says that it sends no more, which ends the stream
as soon, and reads on up to the end. By then the engine is told to free the slot, and the list of its slots, asked for
now, still tells how many tokens lie in ours. Which one that is it says itself: the request had a mark in a field that
means nothing to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from core.gateway import wire
from core.gateway.core import Core
from core.gateway.counting import Counts
from core.gateway.upstream import EngineConnection, Pool

REST_S = 4.0
"""What it may take in all. An engine that reads a long prompt, or makes tokens that are no text yet, says nothing
meanwhile, and looks once a second whether its client is there."""


class Params(msgspec.Struct, frozen=True):
    n_discard: int = 0


class Slot(msgspec.Struct, frozen=True):
    """Of llama.cpp's /slots. `n_prompt_tokens`: all that lie in it, the answer's but for the last one too."""

    params: Params = Params()
    n_prompt_tokens: int | None = None


_SLOTS = msgspec.json.Decoder(list[Slot]).decode


def made_of(body: bytes, mark: int, prompt: int, answers: int = 1) -> int | None:
    """How many tokens an engine has made of the request with this mark, of whose prompts so many lie in its slots, by
    its list of these. None where it does not say: where another request has one of them, or nothing lies in one any
    more (of `n` answers the first alone stays for long)."""
    try:
        ours = [slot for slot in _SLOTS(body) if slot.params.n_discard == mark]
    except msgspec.DecodeError:
        return None
    tokens = [slot.n_prompt_tokens for slot in ours if slot.n_prompt_tokens]
    return sum(tokens) - prompt + answers if len(tokens) == answers else None


class Rest:
    """The end of one stream; `counts` has read it so far, and is right when `known` is called, which is once."""

    def __init__(
        self, core: Core, pool: Pool, route: wire.ReplicaRoute, counts: Counts, mark: int, known: Callable[[], None],
        answers: int = 1, each: int = 1,
    ) -> None:  # fmt: skip
        """`mark`: of its request, which wanted so many answers, `each` of one prompt; 0: it has none."""
        self._core = core
        self._pool = pool
        self._route = route
        self._counts = counts
        self._mark = mark
        self._known = known
        self._answers = answers
        self._each = each
        self._connection: EngineConnection | None = None
        self._asking: asyncio.Task[None] | None = None
        self._list: bytearray | None = None
        """What came of the list of slots, where it comes in parts."""
        self._ended = False
        self._timer = asyncio.get_running_loop().call_later(REST_S, self._end)

    def begin(self, connection: EngineConnection) -> None:
        """Read on, on the connection that the stream comes on."""
        self._connection = connection
        connection.leave(self)

    # what the engine says

    def answer(self, status: int, content_type: bytes, body: bytes) -> None:
        self._connection = None
        if status == 200:
            self._look(body)
        self._end()

    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None:
        self._list = bytearray() if status == 200 and self._asking is not None else None

    def answer_part(self, data: bytes, last: bool) -> None:
        if self._asking is None:
            self._counts.part(data, last)
        elif self._list is not None:
            self._list += data
        if not last:
            return
        self._connection = None
        if self._asking is None:
            self._ask()
            return
        if self._list is not None:
            self._look(bytes(self._list))
        self._end()

    def answer_lost(self) -> None:
        self._connection = None
        if self._asking is None:
            self._ask()
        else:
            self._end()

    # what is asked then

    def _ask(self) -> None:
        counts = self._counts
        if counts.answer is not None or not counts.events or counts.prompt is None or not self._mark or self._ended:
            self._end()
        else:
            self._asking = self._core.start(self._slots())

    async def _slots(self) -> None:
        try:
            connection = self._pool.get(time.monotonic()) or await self._pool.connect()
        except (OSError, TimeoutError):
            self._end()
            return
        self._connection = connection
        key = f"Authorization: Bearer {self._route.secret}\r\n" if self._route.secret else ""
        head = f"GET {self._route.prefix}/slots HTTP/1.1\r\nHost: {self._pool.host}\r\n{key}\r\n"
        connection.send(self, head.encode("latin-1"))

    def _look(self, body: bytes) -> None:
        counts = self._counts
        made = made_of(body, self._mark, (counts.prompt or 0) * self._each, self._answers)
        if made is not None and made >= counts.events - self._answers:  # one event of each may say who speaks
            counts.answer = made

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if self._connection is not None:
            self._connection.abort()
        self._known()
