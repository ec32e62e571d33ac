"""A verification says how far it is, and ends when nobody waits for it any more."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from signed_place import CORRAL, Place

from core.audit.verify import LOOKED


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = await Place(tmp_path).open()

    def many(db: object) -> None:
        for n in range(3 * LOOKED):
            made.audit.append(db, actor=CORRAL, verb="test.done", object=f"a:{n}", request="r", outcome="done")  # type: ignore[arg-type]

    await made.store.transact(many)
    yield made
    await made.store.close()


async def test_it_says_how_far_it_is(place: Place) -> None:
    told: list[tuple[int, int]] = []
    report = await place.audit.verify(lambda done, of: told.append((done, of)))
    assert report.ok and told == [(n * LOOKED, 3 * LOOKED) for n in (1, 2, 3)]


async def test_one_that_is_cancelled_ends_at_the_next_look(place: Place) -> None:
    told: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def watch(done: int, of: int) -> None:
        told.append(done)
        begun.set()
        go.wait(10)

    task = asyncio.create_task(place.audit.verify(watch))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    go.set()
    assert (await place.audit.verify()).ok  # by then the other one is over
    assert told == [LOOKED]
