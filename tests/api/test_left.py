"""Somebody who has left the host, and whoever gets his uid, at the daemon's own interface."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from core.access import Gate, Rights
from core.api.peer import Names
from core.api.routes import follow
from core.api.server import PREFIX, Call, Server
from core.audit import Audit
from core.events import Bus
from core.nouns import Grant, Subject
from core.paths import Paths
from core.store import Store

HERS = Grant(
    id="g1", what="models.rm", subject=Subject(kind="user", name="ann", id=os.getuid()), by="root", at=0.0
)  # fmt: skip


REFUSED = (403, 404)
"""The first for root, who sees what there is."""


class Host:
    """The users of a host, and its files, as `userdel` and `useradd` change them."""

    def __init__(self) -> None:
        self.name = "ann"
        self.changes = 0
        self.bus = Bus()

    def becomes(self, name: str) -> None:
        self.name = name
        self.changes += 1


@pytest.fixture
async def host() -> Host:
    return Host()


@pytest.fixture
async def session(tmp_path: Path, host: Host) -> AsyncIterator[ClientSession]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    gate = Gate(store, Audit(store, paths), Rights(mode="system", owner_uid=4_000_000_000, grants=[HERS]))
    names = Names(lambda uid: host.name, clock=lambda: 0.0, changed=lambda: ((host.changes,),))
    server = Server(gate, "the log", names)

    async def done(call: Call) -> object:
        return {"by": call.actor.name}

    async def events(call: Call) -> web.StreamResponse:
        return await follow(call, host.bus, lambda event: True)

    server.add("GET", "/done", "models.rm", done, on="model:x")
    server.add("GET", "/events", "models.rm", events, on="model:x")
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    async with ClientSession(f"http://local{PREFIX}/", connector=UnixConnector(str(tmp_path / "s"))) as session:
        yield session
    host.bus.close()
    await runner.cleanup()
    server.close()
    await server.refusals.settle(all=True)
    await store.close()


async def test_the_next_owner_of_a_uid_has_nothing_of_it_on_an_open_connection(
    session: ClientSession, host: Host
) -> None:
    async def asked() -> int:
        async with session.get("done") as answer:
            await answer.read()
            return answer.status

    assert await asked() == 200
    host.becomes("eve")
    assert await asked() in REFUSED
    host.becomes(f"uid:{os.getuid()}")
    assert await asked() in REFUSED
    host.becomes("ann")
    assert await asked() == 200


async def test_a_stream_of_events_ends_with_the_one_who_opened_it(session: ClientSession, host: Host) -> None:
    async with asyncio.timeout(20), session.get("events") as answer:
        host.bus.publish("warning", "access:glass", "first")
        while b"first" not in await answer.content.readline():
            pass
        host.becomes("eve")
        host.bus.publish("warning", "access:glass", "second")
        assert b"second" not in await answer.content.read()
