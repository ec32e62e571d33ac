"""Deployments that are sensitive: where they may run, whose keys may use them, and who may say so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from house import ROOT, House

from core.access.people import actor_named
from core.deployments.sensitive import Sensitive, said
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nodes.labels import Labels
from core.nouns import Actor, DeploymentSpec
from core.paths import Paths
from core.store import Store

CHAT = DeploymentSpec(name="chat", model="m")
ATTACHED = DeploymentSpec(name="far", model="m", engine="attach", url="http://h/v1")


class Shop(House):
    """A house with one node, `local`, and what runs on it."""

    def __init__(self, store: Store, paths: Paths) -> None:
        super().__init__(store, paths)
        self.running: dict[str, list[str]] = {}
        self.labels = Labels(
            store, self.gate, lambda: ["local"], lambda node, there: self.sensitive.needing(node, there)
        )
        self.sensitive = Sensitive(
            self.gate, self.access, self.labels, runs=lambda name: self.running.get(name, []),
            spec=lambda name: ATTACHED if name == "far" else None, clock=self.clock,
        )  # fmt: skip

    async def mark(self, actor: Actor = ROOT, name: str = "chat", **fields: Any) -> Any:
        return await self.sensitive.mark(actor, "r", name, **({"labels": ["zone=secure"]} | fields))

    async def label(self, **labels: str | None) -> Any:
        return await self.labels.change(ROOT, "r", "local", labels)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.access", "core.nodes"))
    made = Shop(store, paths)
    await made.access.start()
    await made.keys.start()
    await made.labels.start()
    yield made
    await store.close()


async def test_it_runs_only_where_its_labels_are(shop: Shop) -> None:
    await shop.mark(labels=["zone=secure", "disk=local"])
    with pytest.raises(Conflict, match="lacks zone=secure, disk=local"):
        shop.sensitive.check(CHAT, "local")
    await shop.label(zone="secure", disk="network")
    with pytest.raises(Conflict, match="lacks disk=local"):
        shop.sensitive.check(CHAT, "local")
    await shop.label(disk="local")
    shop.sensitive.check(CHAT, "local")
    shop.sensitive.check(DeploymentSpec(name="other", model="m"), "elsewhere")
    assert "node elsewhere lacks" in shop.sensitive.hinders("chat", "elsewhere")


async def test_a_label_that_something_sensitive_runs_by_stays(shop: Shop) -> None:
    await shop.label(zone="secure", rack="b")
    await shop.mark()
    shop.running["chat"] = ["local"]
    for change in ({"zone": None}, {"zone": "open"}):
        with pytest.raises(Conflict, match="chat runs on local and is sensitive"):
            await shop.label(**change)
    assert shop.labels.of("local") == {"rack": "b", "zone": "secure"}
    await shop.label(rack=None)
    shop.running.clear()
    await shop.label(zone=None)
    again = Labels(shop.store, shop.gate, lambda: ["local"], lambda node, there: [])
    await again.start()
    assert again.of("local") == {}


async def test_what_runs_on_an_unlabelled_node_is_not_marked_until_it_is_stopped(shop: Shop) -> None:
    shop.running["chat"] = ["local"]
    with pytest.raises(Conflict, match="chat runs on local, which lacks zone=secure"):
        await shop.mark()
    assert shop.sensitive.ls() == []
    await shop.label(zone="secure")
    await shop.mark()


async def test_a_server_of_somebody_else_is_nowhere_we_know(shop: Shop) -> None:
    with pytest.raises(Conflict, match="server of somebody else"):
        await shop.mark(name="far")
    await shop.mark(name="chat")
    with pytest.raises(Conflict, match="server of somebody else"):
        shop.sensitive.check(DeploymentSpec(name="chat", model="m", engine="attach"), "local")


async def test_only_keys_of_its_groups_use_it(shop: Shop) -> None:
    for name, members in (("ml", ["user:bin"]), ("ops", [])):
        await shop.access.put_team(ROOT, "r", name, members)
        await shop.grant(ROOT, "deployments.use", f"team:{name}")
    for user in ("user:bin", "user:daemon"):
        await shop.grant(ROOT, "user", user)
    ada, bob = await actor_named("bin"), await actor_named("daemon")
    await shop.accounts.create(ada, "r", "ci")
    await shop.grant(ada, "deployments.use", "account:ci")
    await shop.keys.create(ada, "r", "a")
    await shop.keys.create(ada, "r", "b", owner="account:ci")
    await shop.keys.create(bob, "r", "c")
    for name in ("ml", "ops"):
        await shop.keys.create(ROOT, "r", name, owner=f"team:{name}")

    def barred() -> set[str]:
        return {
            t.key.name
            for t in shop.keys.told()
            if t.uses and any(u.deny and u.scope == "deployment:chat" for u in t.uses)
        }

    assert barred() == set()
    await shop.mark(groups=["team:ml"])
    assert barred() == {"c", "ops"}  # a member's, his account's and the team's own go on
    await shop.mark(groups=[])
    assert barred() == {"a", "b", "c", "ml", "ops"}
    await shop.mark(groups=["group:daemon"])
    assert barred() == {"a", "b", "ml", "ops"}
    shop.gate.rights = type(shop.gate.rights)(mode="user", owner_uid=ada.uid, marks=shop.gate.rights.marks.values())
    mine = next(told for told in shop.keys.told() if told.key.name == "a")
    assert mine.uses is not None and [(u.scope, u.deny) for u in mine.uses] == [("*", False), ("deployment:chat", True)]
    await shop.sensitive.unmark(ROOT, "r", "chat", "over")
    records = [(r.verb, r.object, r.reason) for r in (await shop.records())[-1:]]
    assert records == [("deployments.mark", "deployment:chat", "over")] and barred() == set()


async def test_an_operator_neither_marks_nor_unmarks(shop: Shop) -> None:
    await shop.grant(ROOT, "operator", "user:bin")
    ada = await actor_named("bin")
    await shop.mark()
    with pytest.raises(NotAllowed):
        await shop.mark(ada, labels=["zone=open"])
    with pytest.raises(NotAllowed):
        await shop.sensitive.unmark(ada, "r", "chat")
    with pytest.raises(NotAllowed):
        await shop.labels.change(ada, "r", "local", {"zone": "secure"})
    assert len(await shop.refusals()) == 3


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"labels": []}, Invalid, "no label"),
        ({"labels": ["zone"]}, Invalid, "is no label"),
        ({"labels": ["Zone=x"]}, Invalid, "is no label"),
        ({"labels": ["zone=a b"]}, Invalid, "is no label"),
        ({"labels": ["zone=a", "zone=b"]}, Invalid, "the same key"),
        ({"groups": ["user:bin"]}, Invalid, "group:NAME or team:NAME"),
        ({"groups": ["account:ci"]}, Invalid, "group:NAME or team:NAME"),
        ({"groups": ["team:none"]}, NotFound, "no team"),
        ({"name": "../x"}, Invalid, "no name"),
    ],
)
async def test_what_is_wrong_is_said(shop: Shop, fields: dict[str, Any], error: type[CorralError], words: str) -> None:
    with pytest.raises(error, match=words):
        await shop.mark(**fields)
    assert shop.sensitive.ls() == []
    with pytest.raises(NotFound):
        await shop.labels.change(ROOT, "r", "moon", {"zone": "x"})


async def test_it_is_said_in_a_sentence(shop: Shop) -> None:
    mark = await shop.mark(reason="patients", groups=["group:daemon"])
    assert said(mark) == (
        "It is sensitive: patients. It runs only on nodes with zone=secure, keeps no chats, and takes keys of"
        " group:daemon alone."
    )
