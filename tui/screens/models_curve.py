"""A model's measured speed as a chart over threads, slots and context; and the form that has it measured."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from textual.app import ComposeResult

from core.nouns import Bench, BenchJob, Event, Model
from tui import underway
from tui.curves import chart
from tui.screens.models_forms import OfModel
from tui.screens.room import Note
from tui.screens.whole import Whole
from tui.widgets.form import Field
from tui.words import moment, plural

OVER = ("done", "failed", "cancelled")


class Curve(Whole):
    """What was measured last, and how far a measurement on its way is; read anew when one ends."""

    ROOM = "curve"
    ASKS = frozenset({"measure", "cancel"})

    def __init__(self, model: Model) -> None:
        super().__init__(f"Reading what was measured of {model.reference}")
        self.model = model
        self._kept: Sequence[Bench] | None = None

    def fill(self) -> ComposeResult:
        yield from super().fill()
        yield Note(id="job")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    def on_resize(self) -> None:
        super().on_resize()
        if self.stands:
            self._show()

    def draw(self, kinds: set[str]) -> None:
        job = self.job()
        self.query_one("#job", Note).set(underway.told(underway.of_bench(job), self.corral.ascii) if job else "")
        if "reload" in kinds:
            self._ask()

    def happened(self, event: Event) -> None:
        if event.type == "bench" and event.object == f"model:{self.model.name}":
            job = self.job()
            if job is not None and job.state == "done":
                self._ask()

    def job(self) -> BenchJob | None:
        """The newest measurement of this model that this daemon knows of."""
        about = f"model:{self.model.name}"
        return next((each for each in reversed(self.corral.state.benches.values()) if each.object == about), None)

    def _ask(self) -> None:
        def taken(found: Sequence[Bench]) -> None:
            self._kept = found
            if self.stands:
                self._show()

        self.corral.act(lambda client: client.choosing.benches(self.model.reference), taken)

    def _show(self) -> None:
        if self._kept is None:
            return
        if not self._kept:
            self.set(f"{self.model.reference} was not measured yet: m measures it, over threads, slots and context")
            return
        lines = chart(self._kept[0], max(40, self.app.size.width - 2), self.corral.ascii)
        for each in self._kept[1:]:
            count = len(each.points)
            lines.append(f"before that: {moment(each.at)} by {each.by}, {count} {plural(count, 'point')}")
        self.set("\n".join(lines))

    # ------------------------------------------------------------------ keys

    def hindered(self, action: str) -> str:
        job = self.job()
        if action == "cancel" and (job is None or job.state in OVER):
            return f"{self.model.name} is not being measured"
        return super().hindered(action)

    def about(self, action: str) -> str:
        return f"model:{self.model.name}" if action in ("measure", "cancel") else ""

    def action_measure(self) -> None:
        self.app.push_screen(MeasureForm(self.model))

    def action_cancel(self) -> None:
        job = self.job()
        if job is not None:
            self.confirmed(
                f"Cancel the measurement of {self.model.name}, {job.done} of {job.total} points done? Nothing is kept",
                lambda client: client.choosing.cancel(job.id), then=self._keep,
            )  # fmt: skip

    def _keep(self, job: BenchJob) -> None:
        self.corral.state.benches[job.id] = job
        if self.stands:
            self.picture({"bench"})


class MeasureForm(OfModel):
    """The measurement is a job of the daemon, which ends with the daemon and not with this console."""

    HEADLINE = "Measure a model at each combination of these; the curve is kept, and corrects what is reckoned"
    SENDS = "Measure"

    def fields(self) -> list[Field]:
        return [
            Field("threads", "threads", "", "1,2; default: 1, what a replica gets, all cores"),
            Field("parallel", "at once", "1,2,4", "conversations"),
            Field("ctx", "context", "512", "cells of each conversation, nearly filled"),
            Field("engine", "engine", "xllamacpp", "xllamacpp, llama-server, llama-cpp-python"),
            Field("cache_type", "cache type", "f16", "f16, q8_0, q4_0"),
        ]

    def numbers(self, key: str, label: str) -> tuple[int, ...]:
        """Raises ValueError."""
        found = [each for each in re.split(r"[,\s]+", self.value(key)) if each]
        for each in found:
            if not (each.isascii() and each.isdecimal() and 0 < len(each) < 9 and int(each)):
                raise ValueError(f"{label} are whole numbers with commas between, not {each!r}")
        return tuple(map(int, found))

    def typed(self) -> dict[str, Any]:
        """Raises ValueError."""
        grid: dict[str, Any] = {
            "threads": self.numbers("threads", "threads"),
            "parallel": self.numbers("parallel", "conversations at once"), "ctx": self.numbers("ctx", "cells"),
            "engine": self.value("engine"), "cache_type": self.value("cache_type"),
        }  # fmt: skip
        if not grid["parallel"] or not grid["ctx"]:
            raise ValueError("Name at least one number of conversations at once, and one of cells")
        return grid

    def question(self) -> Callable[[Any], Awaitable[str]]:
        grid = self.typed()
        rest = len(set(grid["parallel"])) * len(set(grid["ctx"]))
        points = f"{len(set(grid['threads'])) * rest} points" if grid["threads"] else f"up to {3 * rest} points"

        async def ask(client: Any) -> str:
            kept = await client.choosing.benches(self.model.reference)
            last = f"it was measured last on {moment(kept[0].at)}" if kept else "it was not measured yet"
            return (
                f"{self.model.reference} at {points}: each starts it, as a deployment would, and asks three times; what"
                f" does not fit is left out\n{last}"
            )

        return ask

    def action_send(self) -> None:
        try:
            grid = self.typed()
        except ValueError as error:
            self.say(str(error))
            return

        def taken(job: BenchJob) -> None:
            self.corral.state.benches[job.id] = job
            self.app.pop_screen()

        self.corral.act(lambda client: client.choosing.measure_model(self.model.reference, **grid), taken)
