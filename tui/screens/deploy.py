"""The forms that deploy a model, with the plan live, and scale a deployment."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from core.client.catalog import parted
from core.errors import CorralError
from core.nouns import Deployment, DeploymentSpec, Plan, Whoami
from tui.modelplan import left_of
from tui.moving import way
from tui.plain import plain
from tui.rights import lacks
from tui.spoken import FIELDS, spoken
from tui.widgets.asking import Asking
from tui.widgets.form import Field, Form
from tui.words import size

MIB = 1 << 20
SERVES = ("answers", "embedding", "rerank")
MOST_REPLICAS = 64
"""Of a deployment; the daemon refuses more."""


def told(plan: Plan) -> str:
    """A plan in words, part by part."""
    parts = ", ".join(
        f"{name.replace('_', ' ')} {size(value)}"
        for name, value in msgspec.structs.asdict(plan.parts).items()
        if abs(value) >= MIB
    )
    left = left_of(plan)
    kept = f"{size(plan.free_bytes)} free less {size(plan.reserve_bytes)} kept for the host"
    if plan.reserved_bytes:
        kept += f" and {size(plan.reserved_bytes)} promised to other replicas"
    words = [
        f"{'Fits' if plan.fits else 'DOES NOT FIT'}: sets {size(plan.plan_bytes)} aside a replica, "
        f"{size(left)} may be had ({kept})",
        f"Just ready {size(plan.ready_bytes)}, in use {size(plan.rss_bytes)} ({parts}), "
        f"at most {size(plan.full_bytes)} with all slots busy and full; "
        "the rest is the engine's cache of earlier prompts and some to be safe",
        f"ctx {plan.ctx}: {plan.parallel} x {plan.ctx_per_slot} a slot, cache {plan.cache_type}",
    ]
    if plan.nearest is not None:
        near = plan.nearest
        words.append(f"Would fit: ctx {near.ctx}, {near.parallel} slots, cache {near.cache_type}")
    return plain("\n".join([*words, *plan.notes]))


async def _tiered(client: Any, spec: DeploymentSpec, me: Whoami | None) -> str:
    """What its tier would mean. A deployment's move does not spill: what has no room there is refused."""
    try:
        model, tiers = await client.model(spec.model), await client.tiers.ls()
    except CorralError as error:  # not his to see; the daemon decides anyway
        return plain(f"tier {spec.tier}: {spoken(error)}")
    words = way(model, spec.tier, tiers, spills=False)
    if model.tier == spec.tier:
        return plain(f"{words}, and stays there while this runs")
    why = lacks(me, "models.move", f"model:{model.name}")
    return plain(f"{words}: {why}" if why else f"{words}, before it starts")


async def _marked(client: Any, mark: dict[str, Any]) -> str:
    """What the mark would mean, and which nodes lack a label of it."""
    labels = set(mark["labels"])
    keys = f"keys of {', '.join(mark['groups'])} alone" if mark["groups"] else "no keys"
    words = f"Sensitive: no chats kept, {keys}"
    try:
        nodes = await client.nodes.ls()
    except CorralError:  # not his to see; the daemon decides anyway
        return words
    for node in nodes:
        if lacking := labels - {f"{key}={value}" for key, value in node.labels.items()}:
            words += f". {node.node} LACKS {', '.join(sorted(lacking))}: `corral nodes label`"
    return words


class DeployForm(Asking):
    """Dismisses itself when the daemon took the spec."""

    HEADLINE = "Deploy a model"
    SENDS = "Deploy"

    def __init__(self, model: str = "", wanted: DeploymentSpec | None = None) -> None:
        super().__init__()
        self.model = model
        self.wanted = wanted
        """What the fields begin with, where somebody has reckoned it."""

    def fields(self) -> list[Field]:
        model = self.model or next(iter(sorted(self.corral.state.models)), "")
        wanted = self.wanted or DeploymentSpec(name="", model=model)
        serves = "embedding" if wanted.embedding else "rerank" if wanted.rerank else "answers"
        return [
            Field("model", "model", model, "a stored model, or a version: chat, chat:canary, chat@3"),
            Field("name", "name", parted(model)[0], "of the deployment"),
            Field("ctx", "ctx (all slots)", str(wanted.ctx or ""), "default: the model's, up to 4096 a slot"),
            Field("parallel", "slots", str(wanted.parallel), "conversations at once"),
            Field("replicas", "replicas", "1"),
            Field("engine", "engine", wanted.engine, "xllamacpp, llama-server, llama-cpp-python, attach"),
            Field("cache_type", "cache type", wanted.cache_type, "f16, q8_0, q4_0"),
            Field("threads", "threads", str(wanted.threads or ""), "default: planned"),
            Field("tier", "tier", wanted.tier, "where it must lie: it is moved there first"),
            Field("url", "url", "", "engine attach only"),
            Field("serves", "serves", serves, f"{', '.join(SERVES)}: one of them"),
            Field("sensitive", "sensitive", "", "zone=secure: only on nodes with this label, no chats kept"),
            Field("keys_of", "keys of", "", "of a sensitive one: team:ml, group:staff; empty: no keys"),
        ]

    def mark(self) -> dict[str, Any] | None:
        """How it is marked as sensitive, None if it is not; raises ValueError."""
        labels, groups = (re.split(r"[,\s]+", self.value(key)) for key in ("sensitive", "keys_of"))
        labels, groups = [each for each in labels if each], [each for each in groups if each]
        if groups and not labels:
            raise ValueError("keys of is about a sensitive deployment: name its label too, or leave both empty")
        if wrong := next((each for each in labels if not all(each.partition("=")[::2])), ""):
            raise ValueError(f"sensitive is a label or several, KEY=VALUE, not {wrong!r}")
        if wrong := next((each for each in groups if each.partition(":")[0] not in ("team", "group")), ""):
            raise ValueError(f"keys of takes team:NAME and group:NAME, not {wrong!r}")
        name = self.value("name") or self.value("model")
        if labels and (why := lacks(self.corral.state.me, "deployments.mark", f"deployment:{name}")):
            raise ValueError(why)
        return {"labels": labels, "groups": groups} if labels else None

    def spec(self) -> DeploymentSpec:
        """What is typed; raises ValueError with the field that is wrong."""
        numbers = {}
        for key in ("ctx", "parallel", "replicas", "threads"):
            text = self.value(key)
            if text and not text.isdecimal():
                raise ValueError(f"{FIELDS[key]} must be a whole number, not {text!r}")
            if text:
                numbers[key] = int(text)
        if not self.value("model") and self.value("engine") != "attach":
            raise ValueError("Name a model; screen 3 lists them")
        words: dict[str, Any] = {key: self.value(key) for key in ("model", "engine", "cache_type", "tier", "url")}
        serves = self.value("serves") or "answers"
        if serves not in SERVES:
            raise ValueError(f"serves is one of {', '.join(SERVES)}, not {serves!r}")
        words |= {"embedding": serves == "embedding", "rerank": serves == "rerank"}
        name = self.value("name") or self.value("model")
        try:
            found = msgspec.convert({**words, **numbers, "name": name}, DeploymentSpec)
        except msgspec.ValidationError as error:
            told, _, field = str(error).partition(" - at `$.")
            raise ValueError(f"{FIELDS.get(field.rstrip('`'), 'A field')}: {told}") from None
        if why := lacks(self.corral.state.me, "deployments.create", f"deployment:{name}"):
            raise ValueError(why)
        return found

    def question(self) -> Callable[[Any], Awaitable[str]]:
        spec, mark = self.spec(), self.mark()

        async def ask(client: Any) -> str:
            fits, *rest = told(await client.fit(spec)).split("\n")
            words = [await _tiered(client, spec, self.corral.state.me)] if spec.tier else []
            words += [await _marked(client, mark)] if mark is not None else []
            return "\n".join([fits, *words, *rest])  # what may be below the last line is what is asked for least

        return ask

    def action_send(self) -> None:
        from core.errors import Conflict
        from tui.screens.confirm import Confirm

        try:
            spec, mark = self.spec(), self.mark()
        except ValueError as error:
            self.say(str(error))
            return

        async def apply(client: Any, replace: bool) -> Any:
            return await (client.apply(spec, replace, mark) if mark else client.deploy(spec, replace=replace))

        async def deploy(client: Any) -> Any:
            try:
                return await apply(client, False)
            except Conflict as conflict:
                return conflict

        def taken(answer: Any) -> None:
            if not isinstance(answer, Conflict):
                self._taken(spec.name)
                return
            changes = ", ".join(f"{c['field']} {c['old']} to {c['new']}" for c in answer.details.get("changes", ()))
            if not changes:
                self.say(spoken(answer))
                return

            def replace(yes: bool | None) -> None:
                if yes:
                    self.corral.act(lambda client: apply(client, True), lambda _: self._taken(spec.name))

            self.app.push_screen(Confirm(f"{spec.name} exists. Replace it: {changes}?"), replace)

        self.say(f"Asking the daemon to deploy {spec.name}")
        self.corral.act(deploy, taken)

    def _taken(self, name: str) -> None:
        """Go where one sees it start."""
        self.corral.go("deployments", name, say=f"{name} is being started; l shows its log, e explains it")


class ScaleForm(Form):
    """How many replicas."""

    HEADLINE = "Scale"
    SENDS = "Scale"

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self._plan: Plan | None = None
        """What another one takes and what may be had, as soon as the daemon has said it."""

    def on_mount(self) -> None:
        super().on_mount()

        def known(plan: Plan) -> None:
            self._plan = plan
            self.weigh()

        if self.corral.client is not None:
            self.corral.act(lambda client: client.fit(self.deployment.spec), known)

    def fields(self) -> list[Field]:
        return [Field("replicas", "replicas", str(self.deployment.spec.replicas), f"0 to {MOST_REPLICAS}")]

    def count(self) -> int:
        """What is typed; raises ValueError with what it may be."""
        text = self.value("replicas")
        if not text.isdecimal() or int(text) > MOST_REPLICAS:
            raise ValueError(f"replicas is a whole number from 0 to {MOST_REPLICAS}, not {text!r}")
        return int(text)

    def weigh(self) -> None:
        try:
            count = self.count()
        except ValueError as error:
            self.show(plain(error))
            return
        spec, each = self.deployment.spec, self.deployment.plan_bytes
        words = f"{spec.name}: {count} x {size(each)} = {size(count * each)} of memory set aside"
        more = count - (spec.replicas if self.deployment.wanted == "running" else 0)
        if self._plan is not None and more > 0:
            left = left_of(self._plan)
            fits = "Fits" if more * each <= left else "DOES NOT FIT"
            words += f"\n{fits}: {more} more take {size(more * each)}, {size(left)} may be had"
        self.show(plain(words))

    def action_send(self) -> None:
        try:
            count = self.count()
        except ValueError as error:
            self.say(str(error))
            return
        name = self.deployment.spec.name
        self.corral.act(lambda client: client.scale(name, count), lambda _: self.app.pop_screen())
