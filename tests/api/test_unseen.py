"""What one may not see is not found, in the same words as what is not there; they say which right is missing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.access import Gate, Rights
from core.api.peer import Names
from core.api.server import Call, Server
from core.audit import Audit
from core.errors import missing
from core.nouns import Actor, Grant, Subject
from core.paths import Paths
from core.store import Store

BOB = Actor(uid=1001, name="bob")
THERE = ("ml-chat", "secret")


def granted(what: str, scope: str) -> Rights:
    subject = Subject(kind="user", name="bob", id=1001)
    return Rights(
        mode="system", owner_uid=0, grants=[Grant(id="g1", what=what, subject=subject, scope=scope, by="root", at=0.0)]
    )


@pytest.fixture
async def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Gate, Any]]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    gate = Gate(store, Audit(store, paths), Rights(mode="system", owner_uid=0))

    async def bob(names: Names, peer: object, through: str) -> Actor:
        return BOB

    monkeypatch.setattr(Names, "actor", bob)

    async def one(call: Call) -> Any:
        if call.path("name") not in THERE:
            raise missing("model", call.path("name"))
        return {"there": True}

    async def names(call: Call) -> list[str]:
        return [each for each in THERE if gate.may(call.actor, "models.read", f"model:{each}")]

    server = Server(gate, "the log")
    server.names["model"] = names
    server.add("GET", "/models/{name}", "models.read", one, on="model:{name}")
    client: TestClient[Any, Any] = TestClient(TestServer(server.app))
    await client.start_server()

    async def ask(name: str) -> dict[str, Any]:
        async with client.get(f"/api/v1/models/{name}") as answer:
            assert answer.status == 404
            return msgspec.json.decode(await answer.read(), type=dict[str, Any])

    yield gate, ask
    await client.close()
    server.close()
    await store.close()


async def test_who_sees_no_model_is_told_the_right_that_is_missing(asked: tuple[Gate, Any]) -> None:
    gate, ask = asked
    gate.rights = granted("operator", "deployment:ml-*")
    unseen, absent = await ask("secret"), await ask("secrex")
    assert unseen["why"] == "bob lacks models.read on model:secret, and would not see it"
    assert unseen["todo"] == "ask an admin: `corral access grant models.read user:bob --scope model:secret`"
    assert {k: v.replace("secret", "secrex") for k, v in unseen.items() if k != "details"} == {
        k: v for k, v in absent.items() if k != "details"
    }


async def test_who_sees_some_has_their_names_beside_it(asked: tuple[Gate, Any]) -> None:
    gate, ask = asked
    gate.rights = granted("models.read", "model:ml-*")
    assert (await ask("secret"))["why"] == (
        "there are: ml-chat; bob lacks models.read on model:secret, and would not see it"
    )
    assert (await ask("ml-chta"))["why"] == "there are: ml-chat"
    assert (await ask("Secret!"))["why"] == "there are: ml-chat"  # nothing is called so
    gate.rights = granted("viewer", "*")
    assert (await ask("secrex"))["why"] == "there are: ml-chat, secret"
