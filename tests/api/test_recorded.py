"""A refusal is one record, whoever writes it: the gate in its transaction, or the server for what never came so far."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.access import Gate, Rights
from core.api.peer import Names
from core.api.server import ANYBODY, Call, Server
from core.audit import Audit
from core.errors import NotAllowed
from core.nouns import Actor
from core.paths import Paths
from core.store import Store

ADA = Actor(uid=1000, name="ada")
TRIED_DEPLOYMENT = {"spec.name": "chat", "spec.model": "tiny"}


@pytest.fixture
async def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Audit, Any]]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    made = Audit(store, paths)
    gate = Gate(store, made, Rights(mode="user", owner_uid=1000))

    async def ada(names: Names, peer: object, through: str) -> Actor:
        return ADA

    monkeypatch.setattr(Names, "actor", ada)

    def wrong(db: object) -> tuple[None, None, None]:
        raise NotAllowed("the passphrase is wrong")

    async def unlock(call: Call) -> Any:
        await gate.act(call.actor, "chats.unlock", "chats:keys", call.request, wrong, permission="chats.keys")

    async def elsewhere(call: Call) -> Any:
        raise NotAllowed("not here")

    server = Server(gate, "the log")
    for path in ("/keys/revoke", "/deployments", "/privacy/unlock"):
        server.add("POST", path, "keys.own", elsewhere)
    server.add("POST", "/unlock", ANYBODY, unlock)
    server.add("POST", "/elsewhere", ANYBODY, elsewhere)
    client: TestClient[Any, Any] = TestClient(TestServer(server.app))
    await client.start_server()
    yield made, client
    await client.close()
    server.close()
    await store.close()


async def test_a_wrong_passphrase_is_one_record_that_names_it(audit: tuple[Audit, Any]) -> None:
    trail, client = audit
    async with client.post("/api/v1/unlock") as answer:
        assert answer.status == 403
    (record,) = await trail.ls(outcome="refused")
    assert (record.verb, record.object, record.reason) == ("chats.unlock", "chats:keys", "the passphrase is wrong")


async def test_a_refusal_that_no_act_recorded_is_recorded_by_the_server(audit: tuple[Audit, Any]) -> None:
    trail, client = audit
    async with client.post("/api/v1/elsewhere") as answer:
        assert answer.status == 403
    (record,) = await trail.ls(outcome="refused")
    assert (record.verb, record.reason) == ("post.refused", "not here")


@pytest.mark.parametrize(
    ("path", "body", "tried"),
    [
        ("/keys/revoke", {"name": "alice/ci", "reason": "it leaked"}, {"name": "alice/ci"}),
        ("/keys/revoke", {"name": "corral_" + "x" * 49}, {}),
        ("/keys/revoke", {"name": "what he said"}, {}),
        ("/keys/revoke", {"name": "n" * 201}, {}),
        ("/keys/revoke", {"name": ["alice/ci"]}, {}),
        ("/keys/revoke", [], {}),
        ("/keys/revoke?name=alice/ci", None, {"name": "alice/ci"}),
        ("/deployments", {"spec": {"name": "chat", "model": "tiny", "env": {"A": "b"}}}, TRIED_DEPLOYMENT),
        ("/privacy/unlock", {"passphrase": "horse"}, {}),
    ],
)
async def test_the_record_says_what_was_tried_and_no_secret_and_nothing_said(
    audit: tuple[Audit, Any], path: str, body: Any, tried: dict[str, Any]
) -> None:
    trail, client = audit
    async with client.post(f"/api/v1{path}", json=body) as answer:
        assert answer.status == 403
    (record,) = await trail.ls(outcome="refused")
    assert record.after == {"permission": "keys.own", "tried": tried}


async def test_a_body_that_does_not_come_keeps_no_refusal_waiting(
    audit: tuple[Audit, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.api.tried.WAIT_S", 0.01)
    trail, client = audit
    host, port = client.host, client.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /api/v1/keys/revoke HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n{")
    assert b" 403 " in await reader.readline()
    writer.close()
    (record,) = await trail.ls(outcome="refused")
    assert record.after["tried"] == {}
