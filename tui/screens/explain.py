"""Why a deployment is in its state: sentences first, then launches, the engine's own lines and audit records."""

from __future__ import annotations

from core.nouns import Event, Explanation
from tui.plain import plain
from tui.screens.whole import Whole
from tui.words import age, clock, size


def told(story: Explanation, now: float) -> str:
    """The explanation as text."""
    out = [*story.sentences, ""]
    for launch in story.launches:
        end = "runs" if launch.ended_at is None else f"ended {age(launch.ended_at, now)} ago"
        how = (
            f", signal {launch.signal}" if launch.signal else f", code {launch.code}" if launch.code is not None else ""
        )
        out.append(f"launch {launch.launch}: started {age(launch.started_at, now)} ago, {end}{how}. {launch.reason}")
        if launch.rss_planned:
            told = {"planned": launch.rss_planned, "measured": launch.rss_measured,
                    "peak": launch.peak_rss_bytes, "reserved": launch.plan_bytes}  # fmt: skip
            out.append("  " + ", ".join(f"{name} {size(amount)}" for name, amount in told.items() if amount))
        out += [f"  | {each}" for each in launch.lines]
    if story.audit:
        out += ["", "Audit records:"]
        out += [f"  {r.seq} {clock(r.time)} {r.actor} {r.verb} {r.object} {r.outcome} {r.reason}" for r in story.audit]
    return plain("\n".join(out))


class Explain(Whole):
    """Read anew when the deployment changes."""

    def __init__(self, deployment: str) -> None:
        super().__init__(f"Explaining {deployment}")
        self.deployment = deployment

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    def draw(self, kinds: set[str]) -> None:
        if "reload" in kinds:
            self._ask()

    def _ask(self) -> None:
        self.corral.act(lambda client: client.explain(self.deployment), self._show)

    def _show(self, story: Explanation) -> None:
        self.set(told(story, self.corral.state.clock()))

    def happened(self, event: Event) -> None:
        if event.type == "deployment" and event.object == f"deployment:{self.deployment}":
            self._ask()
