"""The gateway's processes: one is adopted or started under a keeper, replaced, ended, and each death recorded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from core.access import Gate
from core.deployments import tables
from core.deployments.ending import of_ours, signal_name
from core.errors import CorralError, Failed
from core.gateway import wire
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState, Limits, Node, new_launch_id
from core.nouns import CORRAL
from core.paths import Paths
from core.settings import Settings
from core.store import Store

log = logging.getLogger(__name__)

STOP_S = 15.0
"""From SIGTERM on, in which it closes its listeners and ends its streams."""
REPLACE_S = 20.0
"""What a new gateway may take to start and to be handed the listener."""

HandOver = Callable[[Path], Awaitable[wire.Report]]
"""Has the gateway that serves hand its listener to the one that listens at a path."""


class Gateways:
    """The launches of the gateway on one node."""

    def __init__(self, node: Node, store: Store, gate: Gate, paths: Paths, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._store = store
        self._gate = gate
        self._paths = paths
        self._settings = settings
        self._runs: dict[str, int] = {}
        """Of each launch: the runs whose deaths are recorded, and the one that runs."""
        self._left: set[str] = set()
        """Launches whose end is recorded, though their folders could not be removed yet."""

    async def ensure(self) -> LaunchState:
        """The gateway that runs, else one that is started."""
        await self.sweep()
        living = [each for each in await self._mine() if each.alive]
        return living[-1] if living else await self._start("gateway.start")

    async def replace(self, hand_over: HandOver) -> None:
        """Start one of this version beside the one that serves. `hand_over` has that one hand its listener to whoever
        listens at a path. Raises `CorralError`: then the old one serves on."""
        await self._start("gateway.replace", hand_over)

    async def sweep(self) -> None:
        """Record the gateways that have ended, those that their keeper has started again too; remove the former."""
        for each in await self._mine():
            if each.alive:
                await self._restarted(each)
                continue
            if each.id in self._left:
                await self._remove(each.id)
                continue
            asked = each.exit is not None and each.exit.code == 0
            reason = each.exit.reason if each.exit and each.exit.reason else "its keeper has gone"
            await self._gate.record(
                CORRAL, "gateway.ended" if asked else "gateway.died", "gateway:local", each.id, "done",
                reason="it ended its last stream or was told to end" if asked else reason,
            )  # fmt: skip
            self._left.add(each.id)
            if why := await self._remove(each.id):
                log.warning("gateway: %s", why)

    async def _remove(self, launch: str) -> str:
        """Why it could not be; tried again at the next sweep."""
        try:
            await self._node.remove(launch)
        except CorralError as error:
            return str(error)
        self._left.discard(launch)
        return ""

    async def stop(self) -> None:
        """End the gateway, and one before it that still ends its streams (`corral shutdown --all`)."""
        living = [each.id for each in await self._mine() if each.alive]
        effects = [await self._gate.intent(CORRAL, "gateway.stop", "gateway:local", launch) for launch in living]
        for launch in living:
            await self._node.signal(launch, 15)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while any(each.alive for each in await self._mine()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        left = {each.id for each in await self._mine() if each.alive}
        for launch, effect in zip(living, effects, strict=True):
            if launch in left:
                reason = f"it has not ended within {STOP_S:.0f} s"
                log.error("the gateway of launch %s runs on: %s", launch, reason)
                await self._gate.outcome(effect, "failed", reason=reason)
            else:
                await self._gate.outcome(effect, "done")

    async def _mine(self) -> list[LaunchState]:
        return [each for each in await self._node.launches() if each.kind == "gateway"]

    async def _restarted(self, launch: LaunchState) -> None:
        """Record the deaths that a keeper answered by itself, each once, whichever daemon sees them first."""
        known = self._runs.get(launch.id, launch.runs if launch.runs == 1 else None)
        if known is None:
            known = 1 + await self._store.read(lambda db: tables.gateway_deaths(db, launch.id))
        exit = launch.before or ExitRecord(reason="its keeper does not say how")
        died = signal_name(exit.signal) or (f"exit code {exit.code}" if exit.code is not None else exit.reason)
        for run in range(known, launch.runs):
            how = died if run == launch.runs - 1 else "while no daemon was there"
            reason = f"{how}; its keeper has started it again"
            await self._gate.record(
                CORRAL, "gateway.died", "gateway:local", launch.id, "done", reason=reason,
                after={"launch": launch.id, "run": run, "pid": launch.pid},
            )  # fmt: skip
        self._runs[launch.id] = max(known, launch.runs)

    async def _start(self, verb: str, hand_over: HandOver | None = None) -> LaunchState:
        """Start a gateway: the first one serves, a second one waits to be handed the listener."""
        order = self._order()
        effect = await self._gate.intent(CORRAL, verb, "gateway:local", order.id)
        try:
            launch = await self._node.launch(order)
        except Exception as error:
            await self._gate.outcome(effect, "failed", reason=_why(error))
            raise
        if hand_over is not None:
            try:
                await self._hand_over(launch, hand_over)
            except Exception as error:
                await self._node.signal(launch.id, 15)
                reason = _why(error)
                await self._gate.outcome(effect, "failed", reason=reason)
                if not isinstance(error, (CorralError, TimeoutError)):
                    raise
                raise Failed("the gateway was not replaced", reason, "the old one serves on") from None
        await self._gate.outcome(effect, "done", after={"launch": order.id, "pid": launch.pid})
        return launch

    async def _hand_over(self, launch: LaunchState, hand_over: HandOver) -> None:
        """Have the gateway that serves hand its listener to `launch`."""
        path = self._paths.gateway / f"next-{launch.id}.sock"
        async with asyncio.timeout(REPLACE_S):
            while not path.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            report = await hand_over(path)
        if not report.ok:
            raise Failed("the gateway did not hand over", report.reason)

    def _order(self) -> LaunchOrder:
        launch = new_launch_id()
        keep = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH")
        env = {key: os.environ[key] for key in keep if key in os.environ}
        env |= {
            "CORRAL_GATEWAY_DIR": str(self._paths.gateway),
            "CORRAL_GATEWAY_SOCKET": str(self._paths.gateway_socket),
            "CORRAL_GATEWAY_LAUNCH": launch,
            "CORRAL_GATEWAY_OWNER": str(os.getuid()),
            "PYTHONUNBUFFERED": "1",
        }
        replicas = self._settings().replicas
        return LaunchOrder(
            id=launch,
            kind="gateway",
            owner="gateway",
            argv=(sys.executable, "-P", "-m", "core.gateway"),
            env=env,
            limits=Limits(nice=0, oom_score_adj=0, log_bytes=replicas.log_bytes, log_files=replicas.log_files),
            restart=True,
        )


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"it took longer than {REPLACE_S:.0f} s"
    return str(error) if isinstance(error, CorralError) else of_ours(error)
