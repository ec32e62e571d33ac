"""A pull that ends while somebody turns it, its daemon's end or its disk comes in between: one truth, nothing left."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hub_double import HubDouble
from pullworld import BOB, ME, SOURCE, World
from tiered import sound

from core.catalog import files
from core.catalog.pull import download, rows, running
from core.catalog.pull.shelf import Shelf
from core.catalog.tiers import Rules
from core.errors import StoreError, TimedOut
from core.settings import PullTable

pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture
async def lands(world: World, fast: Path) -> AsyncIterator[World]:
    """New models land in a tier on another file system."""
    await world.catalog.tiers.add(ME, "r", "fast", str(fast), Rules(landing=True, capacity=1 << 20))
    yield world


async def outcomes(world: World, verb: str = "models.pull") -> list[str]:
    return [record.outcome for record in await world.audit.ls() if record.verb == verb]


def held(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Have the first call of a coroutine function wait: (it has come, it may go on)."""
    real, came, on = getattr(owner, name), asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **fields: Any) -> Any:
        if not came.is_set():
            came.set()
            await on.wait()
        return await real(*args, **fields)

    monkeypatch.setattr(owner, name, slow)
    return came, on


@pytest.mark.parametrize("where", ["as the import ends", "as it is recorded"])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_what_comes_after_its_model_was_stored_comes_too_late(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch, verb: str, where: str
) -> None:
    owner = (world.catalog.imports, "_tell") if where == "as the import ends" else (world.pulls._running, "_over")
    came, on = held(monkeypatch, *owner)
    pull = await world.pull(SOURCE)
    await asyncio.wait_for(came.wait(), 20)
    row = world.pulls._running.row(pull.id)
    said = {"pause": "paused", "cancel": "cancelled"}[verb]
    asked = asyncio.create_task(world.pulls._turn(ME, "r2", row, verb, "ada did", state=said))
    for _ in range(20):
        await asyncio.sleep(0)
    on.set()
    ended = await asyncio.wait_for(asked, 20)
    assert ended.state == "done" and [each.name for each in await world.catalog.ls()] == ["m"]
    assert await outcomes(world) == ["intent", "done"]
    await sound(world.catalog)


async def test_one_that_its_daemon_could_not_call_done_is_not_cancelled_beside_its_model(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await world.pulled(SOURCE)
    half = rows.replaced(world.pulls._running.row(done.id), state="storing", model=None, ended_at=None)
    await world.store.transact(lambda db: rows.put(db, half))
    world.settings = PullTable(hub=hub.url, at_once=0)  # it is not its turn yet
    await world.again()
    assert world.pulls.get(done.id).state == "waiting"
    ended = await world.pulls.cancel(ME, "r2", done.id)
    assert ended.state == "done" and ended.model is not None
    assert [each.name for each in await world.catalog.ls()] == ["m"]


async def test_one_whose_rest_was_stored_by_another_leaves_no_bytes_beside_them(
    world: World, hub: HubDouble, data: bytes
) -> None:
    """Killed as it stored what somebody else's pull had brought: nothing is promised to it any more."""
    pull = await world.stands()
    await world.pulls.pause(ME, "r2", pull.id)
    world.flows()
    assert (await world.pulled(SOURCE, actor=BOB, name="n")).state == "done"
    row = world.pulls._running.row(pull.id)
    stored = [msgspec.structs.replace(file, stored=True) for file in row.pull.files]
    await world.store.transact(lambda db: rows.put(db, rows.replaced(row, files=tuple(stored), state="storing")))
    await world.again()
    assert (await world.ended(pull)).state == "done"
    assert len(world.left_over()) == 1, world.left_over()
    await sound(world.catalog)


async def test_a_tier_that_is_tidied_while_a_pull_is_stored_leaves_it_alone(
    lands: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when it did not answer for a while: a large file is read for minutes."""
    loop, real = asyncio.get_running_loop(), files.take_in

    def tidied(fd: int, source: Path, target: Path, progress: Callable[[int], None]) -> str:
        def beside(done: int) -> None:
            asyncio.run_coroutine_threadsafe(lands.catalog.tiers.tidy("fast"), loop).result(20)
            progress(done)

        return real(fd, source, target, beside)

    monkeypatch.setattr(files, "take_in", tidied)
    done = await lands.pulled(SOURCE)
    assert done.state == "done", done.error
    await sound(lands.catalog)


@pytest.mark.parametrize("how", ["gone", "read-only", "broken"])
async def test_a_tier_that_fails_under_a_pull_lets_it_rest_with_its_bytes(
    lands: World, hub: HubDouble, data: bytes, fast: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pull = await lands.stands()
    gone, real = fast.with_name(f"{fast.name}-gone"), os.write
    number = {"gone": 0, "read-only": errno.EROFS, "broken": errno.EIO}[how]

    def fails(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(fast)):
            raise OSError(number, os.strerror(number))
        return real(fd, data)

    with monkeypatch.context() as patched:
        if how == "gone":
            fast.rename(gone)
        else:
            patched.setattr(download.os, "write", fails)
        if how == "read-only":
            patched.setattr("core.catalog.tiers.folder.read_only", lambda path: path == fast)
        lands.flows()
        rests = await lands.ended(pull)
        if how == "gone":
            gone.rename(fast)
    assert rests.state == "paused" and rests.error is not None, rests.error
    said = {"gone": "fast is not there", "read-only": "fast takes no changes", "broken": "could not be stored"}[how]
    assert said in rests.error.what
    assert not await lands.catalog.tiers.here("fast")
    hub.sent = 0
    await lands.pulls.resume(ME, "r2", pull.id)
    done = await lands.ended(pull)
    assert done.state == "done" and hub.sent < len(data), done.error
    await sound(lands.catalog)


async def test_one_that_is_ended_before_its_first_step_leaves_its_place_to_others(
    world: World, hub: HubDouble, data: bytes
) -> None:
    world.settings = PullTable(hub=hub.url, at_once=1)
    first = await world.stands()
    await world.pulls.pause(ME, "r2", first.id)
    world.flows()
    run = world.pulls._running
    run.show(rows.replaced(run.row(first.id), state="waiting"))
    run.schedule()
    assert first.id in run.tasks
    paused = await world.pulls.pause(ME, "r3", first.id)  # its task has not had a step yet
    assert paused.state == "paused" and not run.tasks
    assert (await world.pulled(SOURCE, name="n")).state == "done"
    await world.pulls.resume(ME, "r4", first.id)
    assert (await world.ended(first)).state == "done"


async def test_two_who_turn_one_at_once_do_so_one_after_the_other(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.stands()
    await world.pulls.pause(ME, "r2", pull.id)
    world.flows()
    came, on = held(monkeypatch, world.gate, "act")
    resumed = asyncio.create_task(world.pulls.resume(ME, "r3", pull.id))
    await asyncio.wait_for(came.wait(), 20)
    cancelled = asyncio.create_task(world.pulls.cancel(BOB, "r4", pull.id))
    await asyncio.wait({cancelled}, timeout=0.5)  # it waits for the other; else it would be over by now
    on.set()
    await asyncio.wait_for(asyncio.gather(resumed, cancelled), 20)
    assert (await world.ended(pull)).state == "cancelled"
    assert world.left_over() == [] and await world.catalog.ls() == []
    await sound(world.catalog)


async def test_a_cap_that_is_changed_as_it_ends_does_not_begin_it_again(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.stands()
    came, on = held(monkeypatch, world.store, "transact")
    asked = asyncio.create_task(world.pulls.resume(ME, "r2", pull.id, limit=1 << 30))
    await asyncio.wait_for(came.wait(), 20)
    world.flows()
    assert (await world.ended(pull)).state == "done"
    on.set()
    assert (await asyncio.wait_for(asked, 20)).state == "done"
    await world.again()
    there = world.pulls.get(pull.id)
    assert (there.state, there.limit) == ("done", 1 << 30)


async def test_one_that_did_not_end_in_time_rests_when_it_has(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "ENDS_S", 0.01)
    came, on = held(monkeypatch, world.gate, "outcome")
    pull = await world.stands()
    with pytest.raises(TimedOut, match="has not ended"):
        await world.pulls.pause(ME, "r2", pull.id)
    assert came.is_set() and world.pulls.get(pull.id).state == "pulling"
    on.set()
    assert (await world.ended(pull)).state == "paused"
    world.flows()
    await world.pulls.resume(ME, "r3", pull.id)
    assert (await world.ended(pull)).state == "done"
    assert await outcomes(world) == ["intent", "interrupted", "intent", "done"]


async def test_one_that_could_not_be_begun_keeps_no_room(
    world: World, hub: HubDouble, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Shelf, *args: object) -> list[str]:
        raise StoreError("the database was not read")

    monkeypatch.setattr(Shelf, "why_not", broken)
    with pytest.raises(StoreError):
        await world.pull(SOURCE)
    assert not world.catalog.tiers.ledger.live
    await sound(world.catalog)


async def test_room_that_is_promised_as_whoever_asked_is_cancelled_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = world.catalog.tiers.ledger
    came, on = held(monkeypatch, world.store, "_transact")
    asked = asyncio.create_task(ledger.reserve("home", 1000, "x", "m"))
    await asyncio.wait_for(came.wait(), 20)
    asked.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    on.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await world.store.transact(lambda db: None)  # the promise was committed before this
    await sound(world.catalog)
