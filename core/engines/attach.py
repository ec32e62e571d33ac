"""attach: any OpenAI-compatible server that somebody else runs; watched and routed to, never started or stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence

from core.engines import probe
from core.engines.base import Abilities, Availability, Command, Endpoint, Engine, Failure, Health, LaunchPlan
from core.errors import Invalid
from core.nouns import Counters


class Attach(Engine):
    name = "attach"
    abilities = Abilities(starts=False, unix_socket=False, counters=False)

    def availability(self) -> Availability:
        return Availability(found=True, reason="it starts nothing: give a URL with --url")

    def command(self, plan: LaunchPlan) -> Command:
        raise Invalid("an attached server is never started", "Corral only watches it and routes to it")

    async def health(self, endpoint: Endpoint) -> Health:
        try:
            answer = await probe.get(endpoint, f"{endpoint.prefix}/v1/models", timeout=2.0)
        except TimeoutError:
            return Health(state="lost", reason="it does not answer within 2 s")
        except (OSError, ValueError) as error:
            return Health(state="lost", reason=f"it cannot be reached: {error}")
        if answer.status == 200:
            return Health(state="ready")
        return Health(state="lost", reason=f"/v1/models says {answer.status}")

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        return Counters(time=time.monotonic())

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return Failure(reason="the attached server is not ours")
