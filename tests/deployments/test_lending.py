"""Memory for something that is no replica: admitted against the same room, counted while it lasts, given back."""

import asyncio
from typing import Any

import pytest

from core.budgets import Room
from core.budgets.admission import Holding
from core.deployments.lending import Lending
from core.errors import NoRoom

GIB = 1 << 30


class CapacityDouble:
    """A host with so many bytes free."""

    def __init__(self, free: int) -> None:
        self.free = free

    async def look(self, held: list[Holding]) -> Room:
        await asyncio.sleep(0)
        return Room(free_bytes=self.free, reserve_bytes=GIB, reserved_bytes=sum(each.plan_bytes for each in held))


def lending(free: int) -> Lending:
    made: Lending
    capacity: Any = CapacityDouble(free)
    made = Lending(capacity, asyncio.Lock(), lambda: made.lent)
    return made


async def test_what_is_lent_is_held_until_the_block_ends() -> None:
    made = lending(3 * GIB)
    with pytest.raises(ValueError, match="over"):
        async with made.lend(GIB, "a measurement"):
            assert [each.plan_bytes for each in made.lent] == [GIB]
            raise ValueError("over")
    assert made.lent == []


async def test_two_at_once_are_not_admitted_against_the_same_room() -> None:
    made, entered, leave = lending(4 * GIB), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with made.lend(2 * GIB, "one"):
            entered.set()
            await leave.wait()

    first = asyncio.create_task(hold())
    await entered.wait()
    with pytest.raises(NoRoom) as refused:
        async with made.lend(2 * GIB, "another"):
            pass
    assert refused.value.details["plan_bytes"] == 2 * GIB and "1.0 GiB is left" in refused.value.why
    leave.set()
    await first
    async with made.lend(2 * GIB, "another"):
        pass
