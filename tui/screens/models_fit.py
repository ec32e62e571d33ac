"""The form that says what a model would take and how fast it would be, over the host and its GPUs: as `corral fit`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from core.amounts import size_of
from core.errors import CorralError
from core.nouns import DeploymentSpec, Plan
from tui import speed
from tui.modelplan import memory, over
from tui.plain import line
from tui.screens.deploy import DeployForm, told
from tui.screens.models_forms import OfModel
from tui.spoken import FIELDS, spoken
from tui.widgets.form import Field

MOST_GPUS = 64


class Wanted(NamedTuple):
    """What is typed."""

    spec: DeploymentSpec
    gpus: tuple[int, ...]
    """Bytes free of each."""
    gpu_layers: int | None
    cpu_moe: int | None
    users: int
    prompt: int


class FitForm(OfModel):
    """Changes nothing; ctrl+s goes on to the form that deploys it so."""

    HEADLINE = "What a replica would take, where that would lie, and how fast it would be"
    SENDS = "Deploy it so"

    def fields(self) -> list[Field]:
        there = [gpu for facts in self.corral.state.facts.values() for gpu in facts.gpus]
        gpus = f"this host has {', '.join(there)}: " if there else ""
        return [
            Field("which", "version", "", "default: the live one; a number, or an alias"),
            Field("ctx", "ctx (all slots)", "", "default: the model's, up to 4096 a slot"),
            Field("parallel", "slots", "1", "conversations at once"),
            Field("cache_type", "cache type", "f16", "f16, q8_0, q4_0"),
            Field("engine", "engine", "xllamacpp", "xllamacpp, llama-server, llama-cpp-python"),
            Field("threads", "threads", "", "default: planned"),
            Field("gpus", "GPUs", "", f"{gpus}memory free of each: 24G 24G; empty: the host alone"),
            Field("gpu_layers", "layers on GPUs", "", "the last so many; default: the most that fit"),
            Field("cpu_moe", "experts in host", "", "layers whose experts stay in the host; default: the fewest"),
            Field("users", "users at once", "", "default: as many as slots"),
            Field("prompt", "prompt", "512", "tokens of a question, for the time to the first token"),
        ]

    def whole_number(self, key: str, otherwise: int = 0) -> int:
        """Raises ValueError with the field that is wrong."""
        text = self.value(key)
        if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise ValueError(f"{FIELDS.get(key, key.replace('_', ' '))} must be a whole number, not {text!r}")
        return int(text) if text else otherwise

    def wanted(self) -> Wanted:
        """Raises ValueError."""
        numbers = {key: self.whole_number(key) for key in ("ctx", "parallel", "threads")}
        words = {key: self.value(key) for key in ("cache_type", "engine")}
        try:
            spec = msgspec.convert(
                {**words, **numbers, "parallel": numbers["parallel"] or 1, "name": "fit",
                 "model": self.version() if self.value("which") else self.model.name}, DeploymentSpec,
            )  # fmt: skip
        except msgspec.ValidationError as error:
            told, _, field = str(error).partition(" - at `$.")
            raise ValueError(f"{FIELDS.get(field.rstrip('`'), 'A field')}: {told}") from None
        gpus = tuple(size_of(each) for each in re.split(r"[,\s]+", self.value("gpus")) if each)
        if len(gpus) > MOST_GPUS:
            raise ValueError(f"GPUs are {MOST_GPUS} at most")
        layers, moe = (
            self.whole_number(key) if self.value(key) else None for key in ("gpu_layers", "cpu_moe")
        )  # fmt: skip
        if not gpus and (layers is not None or moe is not None):
            raise ValueError("Layers on GPUs and experts in host go with GPUs: say how much each has free")
        return Wanted(spec, gpus, layers, moe, self.whole_number("users"), self.whole_number("prompt", 512) or 512)

    def question(self) -> Callable[[Any], Awaitable[str]]:
        wanted = self.wanted()

        async def ask(client: Any) -> str:
            plan = await client.fit(wanted.spec, wanted.gpus, wanted.gpu_layers, wanted.cpu_moe)
            width = max(40, self.app.size.width - 2)
            drawn = [*memory(plan, width), *(over(plan.split, width) if plan.split is not None else ())]
            return "\n".join(map(line, [*drawn, *await _speed(client, wanted, plan), "", *told(plan).split("\n")]))

        return ask

    def action_send(self) -> None:
        try:
            spec = self.wanted().spec
        except ValueError as error:
            self.say(str(error))
            return
        self.app.switch_screen(DeployForm(spec.model, spec))


async def _speed(client: Any, wanted: Wanted, plan: Plan) -> list[str]:
    if not plan.rss_bytes:
        return []
    try:
        return speed.told(await client.choosing.speed(wanted.spec, wanted.users, wanted.prompt))
    except CorralError as error:
        return [f"speed: {line(spoken(error))}"]
