"""The answers in the making: asked of the gateway on behalf of the person, told in pieces, saved as they grow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from core import http
from core.access import Gate
from core.access.people import actor_named
from core.chats.answer import Answer
from core.errors import CorralError
from core.events import Bus
from core.nouns import Actor, Turn

log = logging.getLogger(__name__)

SAVE_S = 1.0
SAVE_BYTES = 1024
TURN_TIMEOUT_S = 900.0
GROUPS = 2000
"""Of a user, that the gateway is told."""
LOOK_S = 1.0
"""How often it is looked what an answer waits for."""
HEARD_S = 2.0
"""From a question on, until the gateway has told of it for certain."""

Queued = Callable[[str], tuple[int, float] | None]
"""Of a turn its place in the queue of its deployment, from 1, and the seconds that are expected there (0: nobody knows
yet); place 0 for one that has a slot; None where the gateway does not say."""

Save = Callable[[Answer], Awaitable[bool]]
"""Stores what has come of an answer; False where nothing of it may be kept any more. Raises `CorralError`."""


class Live:
    """A turn in flight: its answer so far, and who waits for more of it."""

    def __init__(self, answer: Answer, actor: Actor, deployment: str, save: Save) -> None:
        self.answer = answer
        self.actor = actor
        self.deployment = deployment
        self.save = save
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        self.why = ""
        """Why it was stopped, where its owner did not."""
        self.unkept = False
        """Nothing of it is stored any more: how it ended is told from here."""


class Answers:
    """Those of one daemon, by turn id."""

    def __init__(
        self, gate: Gate, bus: Bus, *, gateway_socket: Path, clock: Callable[[], float],
        queued: Queued,
    ) -> None:  # fmt: skip
        self._gate, self._bus = gate, bus
        self._socket = gateway_socket
        self._clock = clock
        self._queued = queued
        self._live: dict[str, Live] = {}
        self._obeying: set[asyncio.Task[None]] = set()

    def get(self, turn: str) -> Live | None:
        """None for a turn that has ended."""
        return self._live.get(turn)

    def so_far(self, turn: Turn) -> Turn:
        """The turn with what has come of it."""
        live = self._live.get(turn.id)
        return live.answer.turn if live else turn

    # ---------------------------------------------------------------------------------------- its life

    def ask(self, actor: Actor, turn: Turn, body: dict[str, Any], save: Save) -> None:
        """Begin to answer `turn`; `body` is what the engine gets."""
        live = Live(Answer(turn, 0, clock_ms=self._clock() * 1000), actor, body["model"], save)
        self._live[turn.id] = live
        self._tell(live)
        live.task = asyncio.create_task(self._carry_out(live, actor, body))

    def resume(self, actor: Actor, turn: Turn, offset: int, deployment: str, save: Save) -> None:
        """Go on with a turn that was in flight when the daemon before ended, from byte `offset` of it on."""
        live = Live(Answer(turn, offset, clock_ms=turn.asked_at * 1000), actor, deployment, save)
        self._live[turn.id] = live
        live.task = asyncio.create_task(self._resume(live, actor))

    async def close(self) -> None:
        """Leave the turns to the gateway; the next daemon goes on with them."""
        tasks = [*self._obeying, *(live.task for live in self._live.values() if live.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop_all(self, chat: str, actor: Actor) -> None:
        """End every answer of a chat."""
        for live in [live for live in self._live.values() if live.answer.turn.chat == chat]:
            await self.stop(live, actor)

    def obey(self) -> None:
        """Rights have changed: end the answers of those who may not use the deployment any more."""
        for live in list(self._live.values()):
            task = asyncio.create_task(self._obey(live))
            self._obeying.add(task)
            task.add_done_callback(self._obeying.discard)

    async def _obey(self, live: Live) -> None:
        actor = live.actor
        if not actor.groups and actor.uid > 0:  # taken over from the daemon before, which kept no groups
            try:
                actor = await actor_named(actor.name)
            except CorralError as error:
                log.warning("%s", error)
        if not self._gate.may(actor, "deployments.use", f"deployment:{live.deployment}"):
            live.why = "the right to use the deployment was taken away"
            await self.stop(live, live.actor)

    async def cut(self, turn: str, actor: Actor, why: str) -> None:
        """End an answer that is not stored any more, also one that nobody here follows."""
        live = self._live.get(turn)
        if live is None:
            await self._end_at_gateway(turn, actor)
        else:
            live.unkept, live.why = True, why
            await self.stop(live, actor)

    async def _end_at_gateway(self, turn: str, actor: Actor) -> None:
        try:
            headers = self._headers(actor, "")
            async with await http.request(self._socket, "DELETE", f"/corral/turns/{turn}", headers=headers, timeout=5):
                pass
        except (OSError, TimeoutError) as error:
            log.warning("turn could not be stopped at the gateway: %s", error)

    async def stop(self, live: Live, actor: Actor) -> None:
        """End an answer; what came is kept."""
        live.stopped = True
        await self._end_at_gateway(live.answer.turn.id, actor)
        if live.task is not None:
            live.task.cancel()
            await asyncio.wait({live.task}, timeout=5)

    # ---------------------------------------------------------------------------------------- who follows

    async def follow(self, turn: str, offset: int, ping_s: float) -> AsyncGenerator[dict[str, Any]]:
        """{"offset", "text"} from character `offset` on as it comes, until the turn has ended and is saved."""
        live = self._live.get(turn)
        waits: tuple[str, int, int] | None = None
        told = self._clock()
        while live is not None and self._live.get(turn) is live:
            live.news.clear()
            text = live.answer.turn.answer[offset:]
            if text:
                yield {"offset": offset, "text": text}
                offset += len(text)
                told = self._clock()
                continue
            if ping_s and ((now := self._waits(live)) != waits or not 0 <= self._clock() - told < ping_s):
                waits, told = now, self._clock()
                word, place, wait_s = waits
                yield {"offset": offset, "text": "", "waits": word, "place": place, "wait_s": wait_s}
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if ping_s else None):
                    await live.news.wait()

    def _waits(self, live: Live) -> tuple[str, int, int]:
        """What an answer that has not begun waits for, as the gateway tells it each second: "queued" with its place and
        the seconds expected, "prompt", or ""."""
        turn = live.answer.turn
        queued = self._queued(turn.id) if turn.state == "waiting" else None
        if queued is None or not self._clock() - turn.asked_at > HEARD_S:
            return "", 0, 0
        place, wait_s = queued
        return ("queued", place, math.ceil(wait_s)) if place else ("prompt", 0, 0)

    # ---------------------------------------------------------------------------------------- the answer

    async def _carry_out(self, live: Live, actor: Actor, body: dict[str, Any]) -> None:
        headers = {**self._headers(actor, live.answer.turn.id), "Content-Type": "application/json"}
        raw = msgspec.json.encode(body)
        await self._relay(
            live, actor, http.request(
                self._socket, "POST", "/v1/chat/completions", body=raw, headers=headers, timeout=TURN_TIMEOUT_S
            ),
        )  # fmt: skip

    async def _resume(self, live: Live, actor: Actor) -> None:
        target = f"/corral/turns/{live.answer.turn.id}?offset={live.answer.raw}"
        asked = http.request(self._socket, "GET", target, headers=self._headers(actor, ""), timeout=15)
        await self._relay(live, actor, asked)

    async def _relay(self, live: Live, actor: Actor, asked: Awaitable[http.Response]) -> None:
        state, reason = "cut", "the connection to the gateway broke"
        leaving = False
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S), await asked as response:
                state, reason = await self._take(live, response)
        except asyncio.CancelledError:
            if not live.stopped:
                leaving = True  # the daemon ends; the gateway finishes the turn and the next daemon takes it up
                raise
        except (OSError, TimeoutError, ValueError) as error:
            state, reason = "cut", str(error) or "no answer in time"
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))  # what it says may hold the answer
            log.error("turn %s ended by an error of ours, %s:\n%s", live.answer.turn.id, type(error).__name__, where)
            state, reason = "cut", "an error in the daemon, told in its log"
        finally:
            if live.stopped:
                # The gateway's last event may have come before we were cancelled.
                state, reason = "unkept" if live.unkept else "stopped", live.why
            if not leaving:
                live.answer.finish(state, reason, self._clock() * 1000)
            await asyncio.shield(self._end(live, leaving))

    async def _end(self, live: Live, leaving: bool) -> None:
        """Store the last of it and let the readers go, also when it cannot be stored."""
        turn = live.answer.turn
        try:
            await self._save(live)
            if live.unkept and not live.stopped:  # it was faster than who would have ended it
                live.answer.finish("unkept", f"{live.deployment} was marked as sensitive: the answer is not kept",
                                   self._clock() * 1000)  # fmt: skip
        finally:
            self._live.pop(turn.id, None)
            live.news.set()
        if not leaving:
            self._tell(live)

    async def _take(self, live: Live, response: http.Response) -> tuple[str, str]:
        answer = live.answer
        if response.status != 200:
            if response.status == 404 and answer.raw:
                return "cut", "the gateway no longer has the rest of it"
            return "failed", _message(await response.read(1 << 20), response.status)
        saved, size = self._clock(), len(answer.turn.answer)
        async for piece in response.pieces():
            if answer.feed(piece, self._clock() * 1000):
                live.news.set()
            if self._clock() - saved >= SAVE_S or len(answer.turn.answer) - size >= SAVE_BYTES:
                await self._save(live)
                saved, size = self._clock(), len(answer.turn.answer)
        if answer.error:
            return "cut", answer.error
        return ("done", "") if answer.ended else ("cut", "the answer broke off")

    async def _save(self, live: Live) -> None:
        """Store what has come. A store that cannot be written ends no answer: the next try has all of it."""
        try:
            if not await live.save(live.answer):
                live.unkept = True
        except CorralError as error:
            log.error("turn %s could not be stored: %s", live.answer.turn.id, error)

    # ---------------------------------------------------------------------------------------- inside

    def _headers(self, actor: Actor, turn: str) -> dict[str, str]:
        name = actor.name.encode("ascii", "replace").decode()
        headers = {"X-Corral-Actor": f"{actor.uid}:{name}"}
        if turn:  # the limits of his groups hold for what he asks
            headers |= {"X-Corral-Turn": turn, "X-Corral-Groups": ",".join(map(str, actor.groups[:GROUPS]))}
        return headers

    def _tell(self, live: Live) -> None:
        bare = msgspec.structs.replace(live.answer.turn, question="", answer="", reason="", finish="")
        self._bus.publish("turn", f"chat:{bare.chat}", bare, to=live.actor.name)


def _message(raw: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(raw)["error"]["message"])[:500]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return f"the gateway answered {status}"
