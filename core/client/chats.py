"""The calls about chats: made, asked, streamed, sought, exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from core import http
from core.client.catalog import part
from core.client.transport import Transport, query
from core.errors import NoDaemon, TimedOut
from core.nouns import Chat, ChatDetail, ChatOptions, Turn

SILENT_S = 60.0
"""How long a daemon that has an answer to stream may say nothing at all."""


class ChatCalls(Transport):
    """What a client does with chats."""

    async def chats(self) -> list[Chat]:
        return await self.call("GET", "/chats", list[Chat])

    async def chat(self, id: str) -> ChatDetail:
        return await self.call("GET", f"/chats/{part(id)}", ChatDetail)

    async def create_chat(
        self, deployment: str, options: ChatOptions, title: str | None = None, question: str = "", private: bool = False
    ) -> Chat:
        """`question`: what will be asked first; if it would be refused, no chat is made. `private`: in the daemon's
        memory alone."""
        body = {"deployment": deployment, "options": options, "title": title, "question": question, "private": private}
        return await self.call("POST", "/chats", Chat, body)

    async def update_chat(self, id: str, **fields: Any) -> Chat:
        return await self.call("PATCH", f"/chats/{part(id)}", Chat, fields)

    async def remove_chat(self, id: str) -> None:
        await self.call("DELETE", f"/chats/{part(id)}", dict)

    async def ask(
        self, chat: str, question: str, replace_turn: int | None = None, cont: bool = False,
        forget_oldest: bool = False,
    ) -> Turn:  # fmt: skip
        body = {"question": question, "replace_turn": replace_turn, "cont": cont, "forget_oldest": forget_oldest}
        return await self.call("POST", f"/chats/{part(chat)}/turns", Turn, body)

    async def stop_turn(self, chat: str, turn: str) -> None:
        await self.call("POST", f"/chats/{part(chat)}/turns/{part(turn)}/stop", dict)

    async def stream_turn(self, chat: str, turn: str, offset: int = 0) -> AsyncIterator[dict[str, Any]]:
        """{"offset", "text"} pieces, then {"turn": Turn} (a Struct). A piece without text has what the answer
        `waits` for: "queued", "prompt", or "". Raises `NoDaemon` when the daemon goes, `TimedOut` when it hangs."""
        path = f"/chats/{part(chat)}/turns/{part(turn)}/stream" + query(offset=offset)
        response = await self._open("GET", path)
        async with response:
            try:
                async for data in _in_time(http.events(response)):
                    piece = msgspec.json.decode(data)
                    if "turn" in piece:
                        yield {"turn": msgspec.convert(piece["turn"], Turn)}
                        return
                    yield piece
            except OSError as error:
                raise _while_answering(chat) from error
        raise _while_answering(chat)

    async def search_chats(self, text: str) -> list[Chat]:
        return await self.call("GET", "/chats/search" + query(q=text), list[Chat])

    async def export_chat(self, id: str, format: str) -> str:
        return await self._text(f"/chats/{part(id)}/export" + query(format=format))

    async def export_chats(self, format: str) -> str:
        """All of one's own."""
        return await self._text("/chats/export" + query(format=format))


def _while_answering(chat: str) -> NoDaemon:
    todo = f"it goes on: corral chats show {chat}"
    return NoDaemon("the daemon went away in the middle of an answer", todo=todo)


async def _in_time(events: AsyncIterator[tuple[str, str]]) -> AsyncIterator[str]:
    """The data of events that come at least each 15 s. Raises `TimedOut` when none does."""
    while True:
        try:
            async with asyncio.timeout(SILENT_S):
                _, data = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise TimedOut(
                f"the daemon has said nothing for {SILENT_S:.0f} s", todo="see `corral status`, and its log"
            ) from error
        if data:
            yield data
