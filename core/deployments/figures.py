"""What node, engines and gateway measure, shown on the replicas; and the watchdog over their memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from signal import SIGKILL, SIGTERM

from core.access import Gate
from core.deployments.gatewaylink import GatewayLink
from core.deployments.runner import Runner
from core.gateway import wire
from core.nouns import CORRAL, ProcessSample


class Figures:
    """The sampler calls `sampled`, the gateway's link `live`."""

    def __init__(self, runners: Mapping[str, Runner], gate: Gate) -> None:
        self._runners, self._gate = runners, gate
        self._busy: set[str] = set()
        self._over: dict[str, int] = {}
        """Launches that were over their limit, and how often they were told to end."""

    async def sampled(self, samples: Sequence[ProcessSample], link: GatewayLink) -> None:
        """Show what the node measured, and ask engines for counters while requests run."""
        by_launch = {r.launch.id: r for r in self._runners.values() if r.launch is not None}
        self._over = {launch: times for launch, times in self._over.items() if launch in by_launch}
        for sample in samples:
            runner = by_launch.get(sample.launch)
            if runner is None:
                continue
            runner.picture.figures(sample)
            limit = runner.limit
            if limit and sample.anon_bytes > limit * 1.1:
                await self._end(runner, sample, limit)
        async with asyncio.TaskGroup() as group:
            for runner in self._runners.values():
                busy = link.in_flight(runner.id) > 0
                if busy or runner.id in self._busy:
                    self._busy.add(runner.id)
                    group.create_task(runner.count())
                    if not busy:
                        self._busy.discard(runner.id)
                elif runner.view.tokens_per_second or runner.view.slots_busy:
                    runner.picture.quiet()

    async def _end(self, runner: Runner, sample: ProcessSample, limit: int) -> None:
        """The watchdog: TERM at the first look that finds it over its limit, KILL at the next. It never waits for a
        record; its record follows, once for each signal."""
        times = self._over.get(sample.launch, 0)
        self._over[sample.launch] = times + 1
        reason = f"private memory {sample.anon_bytes >> 20} MiB is over its limit of {limit >> 20} MiB"
        await runner.kill(reason, SIGKILL if times else SIGTERM)
        if times < 2:
            await self._gate.record(
                CORRAL, "watchdog.kill", f"replica:{runner.id}", sample.launch, "done", reason=reason,
                after={"signal": "SIGKILL" if times else "SIGTERM"},
            )  # fmt: skip

    def live(self, live: wire.Live) -> None:
        """Show what the gateway has seen pass, and what waits there: engines get no more than they have slots."""
        for waited_for in self._runners.values():
            waited_for.picture.set(queued=live.queued.get(waited_for.deployment, 0))
        for each in live.replicas:
            runner = self._runners.get(each.replica)
            if runner is not None:
                runner.picture.live(each.tokens, each.ttft_ms, asyncio.get_running_loop().time())
