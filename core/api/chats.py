"""The routes of one's own chats."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from aiohttp import web

from core.api.server import PING_S, Call, Server, event_stream
from core.chats import Chats
from core.errors import Invalid
from core.nouns import ChatOptions


class ChatBody(msgspec.Struct, forbid_unknown_fields=True):
    deployment: str
    options: ChatOptions = ChatOptions()
    title: str | None = None
    question: str = ""
    """What will be asked first: a chat whose first question would be refused isn't made."""
    private: bool = False


class ChatPatch(msgspec.Struct, forbid_unknown_fields=True):
    title: str | None = None
    options: ChatOptions | None = None
    on_full: str | None = None
    deployment: str | None = None


class AskBody(msgspec.Struct, forbid_unknown_fields=True):
    question: str = ""
    replace_turn: int | None = None
    cont: bool = False
    forget_oldest: bool = False


def add_chats(server: Server, chats: Chats) -> None:
    async def create(call: Call) -> Any:
        body = await call.body(ChatBody)
        return await chats.create(call.actor, call.request, body.deployment, body.options, body.title, body.question,
            private=body.private)  # fmt: skip

    async def patch(call: Call) -> Any:
        body = await call.body(ChatPatch)
        fields = {k: v for k in ChatPatch.__struct_fields__ if (v := getattr(body, k)) is not None}
        return await chats.update(call.actor, call.request, call.path("id"), **fields)

    async def remove(call: Call) -> dict[str, str]:
        await chats.rm(call.actor, call.request, call.path("id"))
        return {"removed": call.path("id")}

    async def ask(call: Call) -> Any:
        body = await call.body(AskBody)
        return await chats.turns.ask(
            call.actor,
            call.request,
            call.path("id"),
            body.question,
            replace_turn=body.replace_turn,
            cont=body.cont,
            forget_oldest=body.forget_oldest,
        )

    async def stop(call: Call) -> dict[str, str]:
        await chats.turns.stop(call.actor, call.path("id"), call.path("turn"), request=call.request)
        return {"stopped": call.path("turn")}

    async def stream(call: Call) -> web.StreamResponse:
        chat, turn, offset = call.path("id"), call.path("turn"), call.whole("offset", 0)
        pieces = chats.turns.stream(call.actor, chat, turn, offset, ping_s=PING_S)
        async with contextlib.aclosing(pieces):
            first = await anext(pieces, None)  # comes at once, whatever the answer takes, or raises
            response = await event_stream(call.http)
            with contextlib.suppress(ConnectionResetError):
                if first is not None:
                    await _send(response, first)
                async for piece in pieces:
                    await _send(response, piece)
        return response

    async def search(call: Call) -> Any:
        return await chats.search(call.actor, call.text("q", "") or "")

    async def export(call: Call) -> web.Response:
        form = _form(call)
        text = await chats.export(call.actor, call.path("id"), form)
        return web.Response(text=text, content_type="application/json" if form == "json" else "text/markdown")

    async def export_all(call: Call) -> web.Response:
        form = _form(call)
        text = await chats.export_all(call.actor, form)
        return web.Response(text=text, content_type="application/json" if form == "json" else "text/markdown")

    server.add("GET", "/chats", "chats.own", lambda call: chats.ls(call.actor))
    server.add("POST", "/chats", "chats.own", create, status=201)
    server.add("GET", "/chats/search", "chats.own", search)
    server.add("GET", "/chats/export", "chats.own", export_all)
    server.add("GET", "/chats/{id}", "chats.own", lambda call: chats.get(call.actor, call.path("id")))
    server.add("PATCH", "/chats/{id}", "chats.own", patch)
    server.add("DELETE", "/chats/{id}", "chats.own", remove)
    server.add("POST", "/chats/{id}/turns", "chats.own", ask, status=201)
    server.add("POST", "/chats/{id}/turns/{turn}/stop", "chats.own", stop)
    server.add("GET", "/chats/{id}/turns/{turn}/stream", "chats.own", stream)
    server.add("GET", "/chats/{id}/export", "chats.own", export)


def _form(call: Call) -> str:
    form = call.text("format", "md") or "md"
    if form not in ("md", "json"):
        raise Invalid(f"no format {form!r}", "there are md and json")
    return form


async def _send(response: web.StreamResponse, data: Any) -> None:
    await response.write(b"data: " + msgspec.json.encode(data) + b"\n\n")
