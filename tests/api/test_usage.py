"""Who sees whose usage: everybody his own, by uid and name; others' with the permission alone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.access import Gate, Keys, Rights
from core.access.keytables import KeyRow, put_key
from core.api.peer import Names
from core.api.server import Server
from core.api.usage import UsageReader, add_usage
from core.audit import Audit
from core.gateway.wire import UsageLine
from core.nouns import Actor, Grant, Key, ServiceAccount, Subject
from core.paths import Paths
from core.settings import PriceTable, UsageTable
from core.store import Store
from core.telemetry.report import ROWS
from core.telemetry.usage import commit_batch, row_of

ADA = Actor(uid=1000, name="ada")
PEOPLE = {1000: ("ada", "staff"), 1001: ("ben", "staff")}


def _two_keys(db: sqlite3.Connection) -> None:
    """Both are called `ci`, one is ada's."""
    for n, (name, uid) in enumerate((("ada", 1000), ("ben", 1001))):
        owner = Subject(kind="user", name=name, id=uid)
        key = Key(
            id=f"k{n}", name="ci", owner=owner, begins=f"corral_ab{n}", created_at=float(n), created_by=name
        )  # fmt: skip
        put_key(db, KeyRow(key, f"hash{n}", None))


class Asking:
    """`get` as ada, who has `role`."""

    def __init__(self, client: TestClient, gate: Gate, store: Store) -> None:
        self._client, self._gate, self.store = client, gate, store
        self.accounts: tuple[ServiceAccount, ...] = ()
        self.table = UsageTable()

    def role(self, *roles: str, deny: bool = False) -> None:
        subject = Subject(kind="user", name="ada", id=1000)
        effect = "deny" if deny else "allow"
        grants = [Grant(id=f"g{role}", what=role, subject=subject, by="root", at=0.0, effect=effect) for role in roles]
        self._gate.rights = Rights(mode="system", owner_uid=0, grants=grants, accounts=self.accounts)

    async def get(self, path: str, status: int = 200) -> Any:
        async with self._client.get("/api/v1" + path) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()


@pytest.fixture
async def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asking]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.access", "core.telemetry"))
    gate = Gate(store, Audit(store, paths), Rights(mode="system", owner_uid=0))

    async def ada(names: Names, peer: object, through: str) -> Actor:
        return ADA

    monkeypatch.setattr(Names, "actor", ada)
    rows = [
        row_of(UsageLine(id="i", time=5.0, uid=uid, deployment="chat", model="m", replica="chat/0", launch="l",
                         path="/", status=200, outcome="ok", prompt_tokens=10**6, answer_tokens=1), PEOPLE)
        for uid in (1000, 1001, 1001)
    ]  # fmt: skip
    await store.transact(lambda db: commit_batch(db, "gw", 1, rows))
    server = Server(gate, "the log")
    client: TestClient[web.Request, web.Application] = TestClient(TestServer(server.app))
    made = Asking(client, gate, store)
    keys = Keys(store, gate)
    await store.transact(_two_keys)
    await keys.start()
    add_usage(server, UsageReader(store, lambda: made.table), gate, keys)
    await client.start_server()
    yield made
    await client.close()
    server.close()
    await store.close()


async def test_a_user_sees_his_own_and_cannot_ask_for_another_s(asking: Asking) -> None:
    asking.role("user")
    found = await asking.get("/usage?by=user")
    assert found["mine"] and [row["group"]["user"] for row in found["rows"]] == ["ada"]
    assert found["total"]["requests"] == 1
    assert (await asking.get("/usage?user=ben"))["total"]["requests"] == 0
    await asking.get("/usage/all", 403)


async def test_a_user_sees_what_his_service_accounts_used_and_no_other(asking: Asking) -> None:
    owners = {"nightly": Subject(kind="user", name="ada", id=1000), "other": Subject(kind="user", name="ben", id=1001)}
    asking.accounts = tuple(
        ServiceAccount(name=name, owner=owner, created_at=0, created_by="x") for name, owner in owners.items()
    )
    asking.role("user")
    lines = [
        row_of(UsageLine(id="i", time=6.0, uid=-1, actor=f"account:{name}", key="k1", deployment="chat", model="m",
                         replica="chat/0", launch="l", path="/", status=200, outcome="ok", prompt_tokens=7), {})
        for name in owners
    ]  # fmt: skip
    await asking.store.transact(lambda db: commit_batch(db, "gw", 2, lines))
    found = await asking.get("/usage?by=user")
    assert {row["group"]["user"]: row["sums"]["requests"] for row in found["rows"]} == {"ada": 1, "account:nightly": 1}
    asking.role("auditor")
    assert "account:other" in {row["group"]["user"] for row in (await asking.get("/usage/all?by=user"))["rows"]}


async def test_an_auditor_sees_everybody_s_and_a_viewer_nobody_s(asking: Asking) -> None:
    asking.role("auditor")
    found = await asking.get("/usage/all?by=user")
    assert not found["mine"] and found["total"]["requests"] == 3
    await asking.get("/usage", 403)
    asking.role("viewer")
    await asking.get("/usage", 403)
    await asking.get("/usage/all", 403)
    asking.role("admin")
    assert (await asking.get("/usage/all?user=ben&user=x"))["total"]["requests"] == 2


async def test_prices_are_those_of_now(asking: Asking) -> None:
    asking.role("user")
    assert (await asking.get("/usage"))["total"]["cost"] is None
    asking.table = UsageTable(currency="EUR", prices={"m": PriceTable(per_million_in=2)})
    found = await asking.get("/usage")
    assert (found["total"]["cost"], found["currency"]) == (2, "EUR")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("by=prompt", "not kept by"),
        ("since=yesterday", "no number"),
        ("limit=x", "no whole"),
        ("until=nan", "no number"),
        ("since=9&until=9", "ends before it begins"),
        ("since=1e10", "begins at 2286"),
        ("key=nobody", "there is no key"),
    ],
)
async def test_what_is_asked_wrongly_is_told(asking: Asking, query: str, words: str) -> None:
    asking.role("user")
    status = 404 if query.startswith("key") else 400
    assert words in (await asking.get(f"/usage?{query}", status))["what"]


async def test_rows_are_bounded(asking: Asking) -> None:
    asking.role("auditor")
    found = await asking.get("/usage/all?by=user&limit=1")
    assert (len(found["rows"]), found["left_out"]) == (1, 1)
    assert len((await asking.get(f"/usage/all?by=user&limit={ROWS * 10}"))["rows"]) == 2


async def test_usage_by_key_has_its_name_beside_its_id_and_is_chosen_by_either(asking: Asking) -> None:
    lines = [
        row_of(UsageLine(id="i", time=7.0, uid=uid, key=key, deployment="chat", model="m", replica="chat/0", launch="l",
                         path="/", status=200, outcome="ok", prompt_tokens=7), PEOPLE)
        for uid, key in ((1000, "k0"), (1001, "k1"), (1001, "k1"))
    ]  # fmt: skip
    await asking.store.transact(lambda db: commit_batch(db, "gw", 2, lines))
    asking.role("auditor")
    found = await asking.get("/usage/all?by=key")
    assert found["by"] == ["key", "key_name"]
    counts = {(row["group"]["key"], row["group"]["key_name"]): row["sums"]["requests"] for row in found["rows"]}
    assert counts == {("k0", "ada/ci"): 1, ("k1", "ben/ci"): 2, ("", ""): 3}
    for text, requests in (("ci", 3), ("ben/ci", 2), ("k1", 2), ("corral_ab1", 2), ("k*", 3), ("-", 3)):
        assert (await asking.get(f"/usage/all?key={text}"))["total"]["requests"] == requests, text
    asking.role("user")
    assert (await asking.get("/usage?key=ci"))["total"]["requests"] == 1
    await asking.get("/usage?key=ben/ci", 404)


async def test_who_cannot_be_named_has_a_name_that_no_user_has() -> None:
    def user(**fields: Any) -> str:
        base = {"id": "i", "time": 1.0, "deployment": "", "model": "", "replica": "", "launch": "", "path": "/"}
        return row_of(UsageLine(**base, status=401, outcome="refused", **fields), PEOPLE).user

    assert user(uid=-1) == "(no key)" and user(uid=1000) == "ada" and user(uid=-1, actor="account:ci") == "account:ci"
