"""A stranger who asks without end fills no disk, and none of his refusals is lost from the count."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.access import Gate, Rights
from core.api.refusals import EACH, KINDS, WINDOW_S, Refusals
from core.audit import Audit
from core.nouns import Actor
from core.paths import Paths
from core.store import Store

STRANGER = Actor(uid=4711, name="stranger", through="api")
OTHER = Actor(uid=4712, name="other", through="api")


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    yield Audit(store, paths)
    await store.close()


async def refuse(refusals: Refusals, actor: Actor, count: int) -> None:
    for n in range(count):
        await refusals.record(actor, "get.refused", "route:/ps", f"request{n}", "not in the group")


async def test_a_flood_is_a_few_records_and_its_number(audit: Audit) -> None:
    now = 1000.0
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: now)
    await refuse(refusals, STRANGER, 1000)
    await refuse(refusals, OTHER, 1)
    told = await audit.ls(limit=1000)
    assert ["stranger" in each.actor for each in told].count(True) == EACH
    assert ["other" in each.actor for each in told].count(True) == 1
    now += WINDOW_S
    await refuse(refusals, STRANGER, 1)
    last = (await audit.ls(limit=1000))[EACH + 1 :]
    assert [each.verb for each in last] == ["get.refused", "get.refused"]
    assert last[0].reason.startswith(f"{1000 - EACH} more refusals") and last[0].reason.endswith(": not in the group")
    assert last[0].after == {"times": 1000 - EACH}


async def test_the_rest_is_recorded_when_the_daemon_ends(audit: Audit) -> None:
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: 0.0)
    await refuse(refusals, STRANGER, EACH + 7)
    await refusals.settle(all=True)
    await refusals.settle(all=True)
    (last,) = [each for each in await audit.ls(limit=1000) if each.object == "route:any"]
    assert last.reason.startswith("7 more")


async def test_each_verb_and_reason_has_its_number_and_the_many_share_one(audit: Audit) -> None:
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: 0.0)
    await refuse(refusals, STRANGER, EACH)
    for n in range(3 * KINDS):
        for _ in range(2):
            await refusals.record(STRANGER, "post.refused", "route:/x", "r", f"reason {n}")
    await refusals.settle(all=True)
    folded = [each for each in await audit.ls(limit=1000) if each.object == "route:any"]
    assert [each.after["times"] for each in folded] == [2] * KINDS + [4 * KINDS]
    assert [each.verb for each in folded] == ["post.refused"] * KINDS + ["api.refused"]
    assert folded[0].reason.endswith(": reason 0")


async def test_single_refusals_are_recorded_as_they_are(audit: Audit) -> None:
    now = 0.0
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: now)
    for _ in range(EACH * 2):
        now += WINDOW_S / EACH
        await refuse(refusals, STRANGER, 1)
    assert len(await audit.ls(limit=1000)) == EACH * 2
