"""Memory of the host for something that is no replica, for a while: admitted as a replica is, and counted as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from core.budgets.admission import Holding
from core.catalog.sizing import human
from core.deployments.capacity import Capacity
from core.errors import NoRoom


class Lending:
    """`admitting` is held from the look to the loan; `held` says what replicas hold."""

    def __init__(
        self, capacity: Capacity, admitting: asyncio.Lock, held: Callable[[], Sequence[Holding]]
    ) -> None:  # fmt: skip
        self._capacity, self._admitting, self._held = capacity, admitting, held
        self._lent: dict[object, Holding] = {}

    @property
    def lent(self) -> list[Holding]:
        """What is lent now, all of it reserved: what of it is touched is not looked at, and rather counts twice."""
        return list(self._lent.values())

    @contextlib.asynccontextmanager
    async def lend(self, need: int, what: str) -> AsyncIterator[None]:
        """Hold `need` bytes while the block runs. Raises `NoRoom`."""
        loan = object()
        async with self._admitting:
            left = await self._capacity.look(self._held())
            if need > left.left:
                raise NoRoom(
                    f"{what} does not fit",
                    f"{human(need)} is needed and {human(max(0, left.left))} is left beside"
                    f" {human(left.reserve_bytes)} for the host and {human(left.reserved_bytes)} held by others",
                    "stop a deployment, or measure with a smaller context or fewer conversations",
                    plan_bytes=need, free_bytes=left.free_bytes, reserve_bytes=left.reserve_bytes,
                    reserved_bytes=left.reserved_bytes,
                )  # fmt: skip
            self._lent[loan] = Holding(plan_bytes=need, anon_bytes=0)
        try:
            yield
        finally:
            del self._lent[loan]
