"""What runs though no row of the database wants it, after a lost database: shown as `unknown`, ended only by a person
or with all that runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from signal import SIGKILL, SIGTERM

from core.access import Effect, Gate
from core.errors import StoreError
from core.nodes.base import LaunchState, Node
from core.nouns import CORRAL, Replica

log = logging.getLogger(__name__)


class Strays:
    """`changes` is notified by whoever calls `ended`."""

    def __init__(self, node: Node, gate: Gate, changes: asyncio.Condition) -> None:
        self._node, self._gate, self._changes = node, gate, changes
        self._living: dict[str, LaunchState] = {}

    def find(self, launches: Iterable[LaunchState]) -> None:
        """Take those of these launches that live."""
        self._living = {each.id: each for each in launches if each.alive}
        for each in self._living.values():
            log.warning("launch %s of %s runs and nothing wants it", each.id, each.owner)

    def __len__(self) -> int:
        return len(self._living)

    def __contains__(self, launch: str) -> bool:
        return launch in self._living

    def ended(self, launch: str) -> bool:
        """The node saw a launch end; whether it was one of these."""
        return self._living.pop(launch, None) is not None

    def replicas(self) -> list[Replica]:
        """As people see them."""
        return [self._replica(each) for each in self._living.values()]

    def _replica(self, launch: LaunchState) -> Replica:
        return Replica(
            id=launch.owner, deployment=launch.owner.rpartition("/")[0], model="", version=1, engine="",
            node=self._node.name, state="unknown", since=launch.started_at,
            reason="it runs and no row of the database wants it; end it by its pid", launch=launch.id, pid=launch.pid,
        )  # fmt: skip

    async def end(self, patience: float) -> None:
        """End all of them: TERM, and KILL after `patience` seconds."""
        async with asyncio.TaskGroup() as group:
            for each in list(self._living.values()):
                group.create_task(self._end(each, patience))

    async def _end(self, launch: LaunchState, patience: float) -> None:
        effect: Effect | None = None
        try:
            effect = await self._gate.intent(
                CORRAL, "replica.stop", f"replica:{launch.owner}", f"stray-{launch.id}"
            )  # fmt: skip
        except StoreError as error:
            log.error("%s is stopped without a record of the intent: %s", launch.owner, error)
        for number, wait in ((SIGTERM, patience), (SIGKILL, 10.0)):
            await self._node.signal(launch.id, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait), self._changes:
                    await self._changes.wait_for(lambda: launch.id not in self._living)
                break
        if effect is not None and launch.id in self._living:
            await self._gate.outcome(effect, "failed", reason="the process does not end on SIGKILL")
        elif effect is not None:
            await self._gate.outcome(effect, "done", after={"launch": launch.id, "why": "nothing wanted it"})
