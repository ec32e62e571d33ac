"""Pulls lie in the tier of their model from the first byte on, and hold the room that was promised to them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hub_double import HubDouble
from pullworld import ME, NAME, REPO, SOURCE, World, model
from tiered import sound

from core.catalog import files
from core.catalog.pull import rows
from core.catalog.tiers import Away, Rules
from core.errors import Conflict, NoRoom
from core.nouns import Pull

pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture
async def lands(world: World, fast: Path) -> AsyncIterator[World]:
    """New models land in a tier on another file system."""
    await world.catalog.tiers.add(ME, "r", "fast", str(fast), Rules(landing=True, capacity=1 << 20))
    yield world


async def promised(world: World) -> dict[str, tuple[str, int]]:
    found = await world.store.read(lambda db: db.execute("SELECT id, tier, bytes FROM tier_reservations").fetchall())
    assert {row[0] for row in found} == world.catalog.tiers.ledger.live
    return {row[0]: (row[1], row[2]) for row in found}


async def test_its_bytes_lie_where_new_models_land_and_are_only_given_another_name(
    lands: World, hub: HubDouble, data: bytes, fast: Path
) -> None:
    pull = await lands.stands()
    part = fast / "pulls" / pull.id / NAME
    assert pull.tier == "fast" and part.stat().st_size > 0 and lands.left_over() == []
    assert await promised(lands) == {pull.id: ("fast", len(data))}
    inode = part.stat().st_ino
    lands.flows()
    done = await lands.ended(pull)
    assert done.state == "done" and done.model is not None and done.model.tier == "fast", done.error
    stored = Path(lands.catalog.path(done.model))
    assert stored.is_relative_to(fast) and stored.stat().st_ino == inode and stored.read_bytes() == data
    own = (".corral-tier", "objects.json")
    assert [each for each in fast.rglob("*") if each.is_file() and each.name not in own] == [stored]
    await sound(lands.catalog)


async def test_room_is_promised_before_the_first_byte_and_a_full_tier_refuses_with_figures(
    lands: World, hub: HubDouble, data: bytes
) -> None:
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=2 * len(data) - 1))
    pull = await lands.stands()
    with pytest.raises(NoRoom, match="do not fit where new models land"):
        await lands.pull(SOURCE, name="n")
    with pytest.raises(NoRoom, match=r"no room for n; it takes .*of 39.* KiB of fast .* promised") as told:
        await lands.pull(f"{SOURCE}:Q4_0", name="n")
    assert told.value.details == {"tier": "fast", "bytes": len(data), "left": len(data) - 1}
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=2 * len(data)))
    other = await lands.pull(SOURCE, name="n")
    assert await promised(lands) == {pull.id: ("fast", len(data)), other.id: ("fast", len(data))}
    lands.flows()
    assert [(await lands.ended(each)).state for each in (pull, other)] == ["done", "done"]
    await sound(lands.catalog)


async def test_what_has_no_room_spills_by_the_rule_and_it_is_said(
    lands: World, hub: HubDouble, data: bytes, fast: Path
) -> None:
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=len(data) - 1, spill="home"))
    plan = await lands.pulls.plan(ME, "r", SOURCE, secret="", endpoint="", ctx=0)
    assert plan.disk_bytes > len(data) and plan.choices[0].fits, "there is room where it spills to"
    done = await lands.pulled(SOURCE)
    assert done.state == "done" and done.model is not None and (done.tier, done.model.tier) == ("home", "home")
    assert "KiB of fast 0 B are stored" in done.notes[0] and "lie in home" in done.notes[0]
    assert not (fast / "pulls").exists()
    await sound(lands.catalog)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_one_that_ends_gives_its_room_back_and_one_that_rests_keeps_it(
    lands: World, hub: HubDouble, data: bytes, fast: Path, how: str
) -> None:
    pull = await lands.stands()
    await lands.pulls.pause(ME, "r", pull.id)
    assert await promised(lands) == {pull.id: ("fast", len(data))}
    if how == "cancelled":
        await lands.pulls.cancel(ME, "r", pull.id)
    else:
        hub.repos[REPO] = {"other-Q8_0.gguf": model(1000)}
        lands.flows()
        await lands.pulls.resume(ME, "r", pull.id)
        assert (await lands.ended(pull)).state == "failed"
    assert await promised(lands) == {} and not list((fast / "pulls").iterdir())
    await sound(lands.catalog)


@pytest.mark.parametrize("rests", [True, False])
async def test_the_next_daemon_promises_the_same_again(
    lands: World, hub: HubDouble, data: bytes, fast: Path, rests: bool
) -> None:
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=len(data)))
    pull = await lands.stands()
    if rests:
        await lands.pulls.pause(ME, "r", pull.id)
    await lands.again()
    assert await promised(lands) == {pull.id: ("fast", len(data))}
    space = lands.catalog.tiers.ledger.of(pull.id)
    assert space is not None and space.wrote > 50_000 and (fast / "pulls" / pull.id / NAME).exists()
    hub.repos["acme/other"] = {"x-Q4_0.gguf": model(3000, b"\2")}
    with pytest.raises(NoRoom):
        await lands.pull("hf:acme/other:Q4_0", name="n")
    with pytest.raises(Conflict, match="on its way to fast; m"):
        await lands.catalog.tiers.rm(ME, "r", "fast")
    lands.flows()
    if rests:
        await lands.pulls.resume(ME, "r", pull.id)
    done = await lands.ended(pull)
    assert done.state == "done" and hub.sent < 1.6 * len(data), done.error
    await sound(lands.catalog)


async def test_a_promise_of_a_pull_that_was_never_written_down_is_no_promise(
    lands: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(db: object, row: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(rows, "put", broken)
    with pytest.raises(OSError, match="no"):
        await lands.pull(SOURCE)
    assert await promised(lands) == {}


async def test_a_tier_that_went_away_lets_its_pulls_rest_and_they_go_on_when_it_is_back(
    lands: World, hub: HubDouble, data: bytes, fast: Path
) -> None:
    pull, other = await lands.stands(), await lands.pull(SOURCE, name="n")
    await lands.close()
    gone = fast.rename(fast.with_name(f"{fast.name}-gone"))
    try:
        lands.flows()
        await lands.open()
        for each in (pull, other):
            rests = await lands.ended(each)
            assert rests.state == "paused" and rests.error is not None and "fast is not there" in rests.error.what
        assert set(await promised(lands)) == {pull.id, other.id}
        (gone / "pulls" / other.id).mkdir(exist_ok=True)
        await lands.pulls.cancel(ME, "r", other.id)
        assert set(await promised(lands)) == {pull.id}
        with pytest.raises(Away, match="fast is not there"):
            await lands.pull(f"{SOURCE}:Q4_0", name="o")
        with pytest.raises(NoRoom, match=r"nothing is taken now: fast is away \(.* is not there\)"):
            await lands.pull(SOURCE, name="o")
        assert not fast.exists(), "nothing is written into an empty mount point"
    finally:
        gone.rename(fast)
    assert not await lands.catalog.tiers.here("fast")
    assert [each.name for each in (fast / "pulls").iterdir()] == [pull.id]
    await lands.pulls.resume(ME, "r", pull.id)
    assert (await lands.ended(pull)).state == "done"
    await sound(lands.catalog)


async def test_a_file_that_grew_on_the_server_asks_for_more_room(lands: World, hub: HubDouble, data: bytes) -> None:
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=len(data) + 1000))
    pull = await lands.stands()
    await lands.pulls.pause(ME, "r", pull.id)
    new = hub.repos[REPO][NAME] = model(240_000, b"\2")
    lands.flows()
    await lands.pulls.resume(ME, "r", pull.id)
    rests = await lands.ended(pull)
    assert rests.state == "paused" and rests.error is not None and rests.error.code == "no_room"
    assert await promised(lands) == {pull.id: ("fast", len(data))}
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=len(new)))
    await lands.pulls.resume(ME, "r", pull.id)
    done = await lands.ended(pull)
    assert done.state == "done" and done.model is not None, done.error
    assert done.model.sha256 == hashlib.sha256(new).hexdigest()
    await sound(lands.catalog)


async def test_a_check_of_the_tier_knows_what_is_on_its_way_from_what_was_left(
    lands: World, hub: HubDouble, data: bytes, fast: Path
) -> None:
    pull = await lands.stands()
    (fast / "pulls" / "0badf00d").mkdir()
    found = await lands.catalog.tiers.check("fast")
    assert [(fault.what, Path(fault.path).name) for fault in found.faults] == [("stray", "0badf00d")]
    await lands.again()
    assert [each.name for each in (fast / "pulls").iterdir()] == [pull.id]
    assert (await lands.catalog.tiers.check("fast")).faults == ()


async def test_a_disk_that_gives_no_file_two_names_keeps_the_bytes_once_too(
    lands: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    monkeypatch.setattr(files, "copy_in", lambda *args: pytest.fail("it was copied"))
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=len(data)))
    done = await lands.pulled(SOURCE)
    assert done.state == "done", done.error
    await sound(lands.catalog)


async def test_two_pulls_on_the_disk_of_a_tier_are_not_promised_it_twice(
    lands: World, hub: HubDouble, data: bytes
) -> None:
    """As many as come at once: what is promised and stored never exceeds the capacity."""
    await lands.catalog.tiers.change(ME, "r", "fast", Rules(capacity=int(2.5 * len(data))))
    for n in range(4):
        hub.repos[f"acme/m{n}"] = {NAME: model(200_000, bytes([n + 2]))}
    got = await asyncio.gather(
        *(lands.pull(f"hf:acme/m{n}:Q4_0", name=f"m{n}") for n in range(4)), return_exceptions=True
    )
    begun = [each for each in got if isinstance(each, Pull)]
    assert len(begun) == 2 and all(isinstance(each, Pull | NoRoom) for each in got)
    assert [(await lands.ended(each)).state for each in begun] == ["done", "done"]
    await sound(lands.catalog)
