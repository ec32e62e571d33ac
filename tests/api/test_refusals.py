"""A stranger who asks without end fills no disk, and none of his refusals is lost from the count."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.access import Gate, Rights
from core.api.refusals import EACH, WINDOW_S, Refusals
from core.audit import Audit
from core.nouns import Actor
from core.settings import Paths
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
    assert [each.verb for each in last] == ["api.refused", "get.refused"]
    assert last[0].reason.startswith(f"{1000 - EACH} more refusals")


async def test_the_rest_is_recorded_when_the_daemon_ends(audit: Audit) -> None:
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: 0.0)
    await refuse(refusals, STRANGER, EACH + 7)
    await refusals.settle(all=True)
    await refusals.settle(all=True)
    (last,) = [each for each in await audit.ls(limit=1000) if each.verb == "api.refused"]
    assert last.reason.startswith("7 more")


async def test_single_refusals_are_recorded_as_they_are(audit: Audit) -> None:
    now = 0.0
    refusals = Refusals(Gate(audit._store, audit, Rights(mode="system", owner_uid=0)), lambda: now)
    for _ in range(EACH * 2):
        now += WINDOW_S / EACH
        await refuse(refusals, STRANGER, 1)
    assert len(await audit.ls(limit=1000)) == EACH * 2
