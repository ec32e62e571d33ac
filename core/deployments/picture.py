"""A replica as others see it: one frozen `Replica`, replaced when something changes, and told on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from core.deployments import tables
from core.nouns import Counters, ProcessSample, Replica

LOOKS = 4
"""A rate is that of the last three seconds: one second of a slow model is 0 or 1 token."""
GONE = {
    "pid": None, "port": None, "socket": None, "rss_bytes": 0, "pss_bytes": 0, "anon_bytes": 0, "cpu_percent": 0.0,
    "tokens_per_second": 0.0, "prompt_tokens_per_second": 0.0, "slots_busy": 0,
}  # fmt: skip
"""What no longer holds when the process has ended."""


class Picture:
    """`view` is what is shown; `changed` is called after each change of it."""

    def __init__(self, view: Replica, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self.view = view
        self._clock = clock
        self._changed = changed
        self.stopped = False
        """Its process does nothing, and the reason says so."""
        self._counters: Counters | None = None
        self._passed: deque[tuple[float, int]] = deque(maxlen=LOOKS)
        """When, and how many tokens had passed the gateway."""

    def set(self, **fields: object) -> None:
        new = msgspec.structs.replace(self.view, **fields)
        if new != self.view:
            self.view = new
            self._changed()

    def state(self, state: str, reason: str) -> None:
        """The state's `since` moves only when the state does."""
        since = self._clock() if state != self.view.state else self.view.since
        self.set(state=state, reason=reason, since=since)

    def gone(self) -> None:
        """Its process has ended."""
        self._counters = None
        self._passed.clear()
        self.set(**GONE)

    def wanted(self, wanted: tables.Wanted) -> None:
        """Show what it is planned to be."""
        spec = wanted.spec
        self.set(
            model=spec.model_name,
            version=wanted.version,
            engine=spec.engine,
            ctx=spec.ctx,
            parallel=spec.parallel,
            ctx_per_slot=spec.ctx // max(1, spec.parallel),
            plan_bytes=wanted.plan.plan_bytes,
            rss_planned=wanted.plan.rss_bytes,
        )

    # ---------------------------------------------------------------------------------------- figures

    def figures(self, sample: ProcessSample) -> None:
        """Show what the node measured; a PSS of 0 keeps the last one."""
        self.set(
            rss_bytes=sample.rss_bytes,
            anon_bytes=sample.anon_bytes,
            pss_bytes=sample.pss_bytes or self.view.pss_bytes,
            cpu_percent=round(sample.cpu_percent, 1),
        )
        said = f"its process is stopped: `kill -CONT {self.view.pid}` lets it go on"
        if self.view.state == "ready" and sample.stopped:
            self.set(reason=said)
        elif self.view.reason == said:
            self.set(reason="")
        self.stopped = sample.stopped

    def count(self, now: Counters | None) -> None:
        """Show slots and prompt tokens a second since the last counters; None: the engine does not say."""
        before, self._counters = self._counters, now
        if now is None:
            return
        rates: dict[str, object] = {"slots_busy": now.slots_busy or 0}
        if before is not None and now.time > before.time:
            new, old = now.prompt_tokens, before.prompt_tokens
            if new is not None and old is not None:
                rates["prompt_tokens_per_second"] = round(max(0, new - old) / (now.time - before.time), 1)
        self.set(**rates)

    def live(self, tokens: int, ttft_ms: float | None, now: float) -> None:
        """Show what the gateway has seen pass (engines count an answer at its end only): `tokens` so far at `now`
        (seconds on a clock that nobody sets), as tokens a second over the last few looks."""
        if self._passed and (tokens < self._passed[-1][1] or now <= self._passed[-1][0]):
            self._passed.clear()  # another gateway
        self._passed.append((now, tokens))
        then, had = self._passed[0]
        rate = round((tokens - had) / (now - then), 1) if now > then else self.view.tokens_per_second
        self.set(tokens_per_second=rate, **({} if ttft_ms is None else {"ttft_ms": round(ttft_ms, 1)}))

    def quiet(self) -> None:
        """No request runs: rates are zero without asking."""
        self._counters = None
        self._passed.clear()
        self.set(tokens_per_second=0.0, prompt_tokens_per_second=0.0, slots_busy=0)

    # ---------------------------------------------------------------------------------------- kept

    def row(self) -> tables.ReplicaRow:
        """What the next daemon needs of it."""
        view = self.view
        return tables.ReplicaRow(
            id=view.id, deployment=view.deployment, state=view.state, reason=view.reason, since=view.since,
            restarts=view.restarts, next_try=view.next_try, launch=view.launch,
        )  # fmt: skip
