"""From what a person asks for to what it takes: a spec is completed, planned, and admitted or refused with numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec

from core.budgets import Room, room, threads_for
from core.budgets.admission import Holding
from core.catalog import Catalog, sizing, unusable
from core.engines.base import Abilities, Engine, EngineRegistry
from core.errors import Invalid, NoRoom
from core.gateway import apis
from core.nodes.base import Node
from core.nouns import DeploymentSpec, Model, Plan, PlanParts
from core.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~%/-]*)?")
CACHE_RAM_MIB = 256
"""The engine's prompt cache; its default of 8192 would not be planned for."""


class Capacity:
    """What the host has and what a spec takes of it. It knows no replicas: callers say what is held."""

    def __init__(self, node: Node, engines: EngineRegistry, catalog: Catalog, settings: Callable[[], Settings]) -> None:
        self._node, self._engines, self._catalog, self._settings = node, engines, catalog, settings

    async def look(self, held: Sequence[Holding]) -> Room:
        """The host's memory now, beside what is held."""
        return room(await self._node.sample(), self._settings().capacity, held)

    async def check(self, spec: DeploymentSpec) -> Engine:
        """What of a spec can be wrong whatever its model is; its engine. Raises `Invalid`, `NotFound`."""
        if not _NAME.fullmatch(spec.name):
            raise Invalid(
                f"{spec.name!r} is no name for a deployment",
                "it has 1 to 63 of a-z, 0-9, dot, dash and underscore and begins with a letter or digit",
                "give another one with --name",
            )
        engine = self._engines.get(spec.engine)
        for field, low, high in (("ctx", 0, 1 << 24), ("parallel", 1, 256), ("threads", 0, 1024), ("replicas", 0, 64)):
            value = getattr(spec, field)
            if not low <= value <= high:
                raise Invalid(f"{field} is {value}", f"it may be {low} to {high}", f"change --{field}")
        if not engine.abilities.starts:
            if spec.tier:
                raise Invalid(f"{spec.name} has no model here that could lie on {spec.tier}", todo="leave out --tier")
            check_url(spec.url)
            return engine
        if spec.url:
            raise Invalid(
                f"{spec.engine} starts an engine here, and --url names a server elsewhere",
                "one deployment is either",
                "leave out --engine to attach to that server, or --url to run the model here",
            )
        there = engine.availability()
        if not there.found:
            raise Invalid(f"engine {spec.engine} cannot be started here", there.reason, "see `corral engines`")
        if spec.parallel > 1 and not engine.abilities.parallel:
            raise Invalid(f"{spec.engine} serves one request at a time", todo="use --parallel 1 and more replicas")
        if spec.cache_type not in engine.abilities.cache_types:
            known = ", ".join(engine.abilities.cache_types)
            raise Invalid(f"{spec.engine} does not take cache type {spec.cache_type}", f"it takes {known}")
        if spec.rerank:
            _check_rerank(spec, engine.abilities)
        if spec.rerank or spec.embedding:
            _check_pooling(spec)
        await self._check_threads(spec)
        return engine

    async def complete(self, spec: DeploymentSpec) -> tuple[DeploymentSpec, Model | None]:
        """Check a spec and fill in its defaults; the model is None for an attached server. Raises `Invalid`,
        `NotFound`."""
        engine = await self.check(spec)
        if not engine.abilities.starts:
            return msgspec.structs.replace(spec, replicas=min(1, spec.replicas)), None
        model = await self._catalog.get(spec.model)
        _check_version(model, engine)
        _check_ctx(spec, model)
        if spec.embedding and not engine.abilities.unpooled and not await self._catalog.pools(model):
            raise Invalid(
                f"{model.reference} makes no embeddings of texts",
                f"its file names no {model.shape.arch}.pooling_type: {engine.name} would refuse each request",
                "leave out --embedding, or deploy a model made for it: `corral models recommend --for embedding`",
            )
        ctx = spec.ctx or sizing.default_ctx(model.shape, spec.parallel)
        if model.shape.ctx_train:
            ctx = min(ctx, model.shape.ctx_train * spec.parallel)
        return msgspec.structs.replace(spec, ctx=ctx), model

    async def _check_threads(self, spec: DeploymentSpec) -> None:
        """Raises `Invalid` for more threads than cores: they only wait for each other, and many are not to be had."""
        cores = (await self._node.facts()).cores
        if spec.threads > cores:
            usable = "1 core is" if cores == 1 else f"{cores} cores are"
            raise Invalid(
                f"threads is {spec.threads}", f"{usable} usable on this host", f"change --threads to {cores} or less"
            )

    async def threads(self, running: int) -> int:
        """Those that one more replica beside `running` others gets."""
        return threads_for(await self._node.facts(), self._settings().capacity, running)

    def plan(
        self, spec: DeploymentSpec, model: Model | None, left: Room, gpus: sizing.Gpus | None = None
    ) -> Plan:  # fmt: skip
        """What one replica of a completed spec takes, against what is left; also over `gpus`, if it is asked so."""
        if model is None:
            nothing = PlanParts(weights=0, kv_cache=0, compute=0, repack=0, output=0, base=0)
            return Plan(
                model=spec.model, ctx=spec.ctx, ctx_per_slot=spec.ctx // spec.parallel, parallel=spec.parallel,
                cache_type=spec.cache_type, rss_bytes=0, plan_bytes=0, parts=nothing, free_bytes=left.free_bytes,
                reserve_bytes=left.reserve_bytes, reserved_bytes=left.reserved_bytes, fits=True,
                reason="attached: it takes nothing of this host",
            )  # fmt: skip
        engine = self._engines.get(spec.engine)
        plan = sizing.plan(
            model.shape,
            model=model.name,
            ctx=spec.ctx,
            parallel=spec.parallel,
            cache_type=spec.cache_type,
            cache_ram_mib=CACHE_RAM_MIB,
            free_bytes=left.free_bytes,
            reserve_bytes=left.reserve_bytes,
            reserved_bytes=left.reserved_bytes,
            engine=engine.abilities,
            embedding=spec.embedding or spec.rerank,
            beside=sizing.Beside(
                projector=model.projector.bytes if model.projector else 0,
                graph=model.projector_graph,
                adapters=sum(adapter.bytes for adapter in model.adapters),
                correction=self._catalog.corrections.of(model.shape.arch, engine.name, engine.build()),
            ),
            gpus=gpus,
        )
        if _limit_too_small(spec, plan):
            return msgspec.structs.replace(plan, fits=False, reason=_limit_reason(spec, plan))
        return plan


def _check_version(model: Model, engine: Engine) -> None:
    """Raises `Conflict` for a version that cannot be served now, `Invalid` for one that this engine cannot serve."""
    if refusal := unusable(model):
        raise refusal
    has = engine.abilities
    for what, needed, able in (
        ("a projector", model.projector is not None, has.projector), ("adapters", bool(model.adapters), has.adapters),
        ("a chat template of its own", model.own_template, has.template),
        ("defaults", bool(model.defaults), has.defaults),
    ):  # fmt: skip
        if needed and not able:
            raise Invalid(f"{engine.name} cannot serve {model.reference}", f"it has {what}", "name another --engine")


def _check_rerank(spec: DeploymentSpec, abilities: Abilities) -> None:
    """Raises `Invalid` where the engine cannot, or is asked for what excludes it."""
    if apis.RERANK.path not in abilities.routes:
        raise Invalid(f"{spec.engine} does not rerank", todo="name another engine, see docs/gateway.md")
    if spec.embedding:
        raise Invalid(
            "--rerank and --embedding are asked for together",
            "an engine pools what it reads in one way",
            "make two deployments of the two models",
        )


def _check_pooling(spec: DeploymentSpec) -> None:
    """Raises `Invalid` for slots among which llama.cpp cannot share what it reads at once: it would end at its start,
    over a check of its own (measured with 3, 5, 6 and 7)."""
    if sizing.N_UBATCH % spec.parallel:
        less = 1 << (spec.parallel.bit_length() - 1)
        raise Invalid(
            f"a model that embeds or ranks cannot have {spec.parallel} slots",
            f"it shares the {sizing.N_UBATCH} tokens that it reads at once evenly among them",
            f"take --parallel {less} or {2 * less}",
        )


def _check_ctx(spec: DeploymentSpec, model: Model) -> None:
    """Raises `Invalid` for a context of which a conversation gets less than engines give out: some abort over it,
    others give more than the plan says."""
    least = min(sizing.PIECE, model.shape.ctx_train or sizing.PIECE)
    if spec.ctx and spec.ctx < least * spec.parallel:
        each = spec.ctx // spec.parallel
        raise Invalid(
            f"ctx is {spec.ctx}",
            f"that is {each} for a conversation ({spec.parallel} at once), and engines give none less than {least}",
            f"--ctx {least * spec.parallel} or more" + (", or fewer --parallel" if spec.parallel > 1 else ""),
        )


def admit(spec: DeploymentSpec, plan: Plan, left: Room, *, replicas: int, freed: int = 0) -> None:
    """Raises `NoRoom` unless `replicas` more plans fit; `freed` bytes are given back by those that they replace."""
    if not plan.plan_bytes or not replicas:
        return
    need, have = plan.plan_bytes * replicas, left.left + freed
    if _limit_too_small(spec, plan):
        why = _limit_reason(spec, plan)
    elif need <= have:
        return
    else:
        why = (
            f"{replicas} x {sizing.human(plan.plan_bytes)} is needed and {sizing.human(max(0, have))} is left beside"
            f" {sizing.human(left.reserve_bytes)} for the host and {sizing.human(left.reserved_bytes)} held by others"
        )
    near, count = plan.nearest, max(0, have) // plan.plan_bytes
    if _limit_too_small(spec, plan):
        hint = f"--memory {-(-plan.plan_bytes >> 20)}M or more, or a smaller --ctx, --parallel or --cache-type"
    elif replicas > count >= 1:
        hint = f"what would fit: {count} more" if replicas > 1 else ""
    elif near:
        hint = f"what would fit: --ctx {near.ctx} --parallel {near.parallel} --cache-type {near.cache_type}"
    else:
        hint = "stop another deployment, or take a smaller model"
    raise NoRoom(
        f"{spec.name} does not fit", why, hint, plan_bytes=need, free_bytes=left.free_bytes,
        reserve_bytes=left.reserve_bytes, reserved_bytes=left.reserved_bytes,
        nearest=msgspec.to_builtins(near) if near else None,
    )  # fmt: skip


def check_url(url: str) -> None:
    """Raises `Invalid` for what is no URL of a server, and for one that holds a secret: a spec is stored, shown and
    recorded, so it is told without it."""
    if "@" in url or "?" in url:
        raise Invalid(
            "a URL of a server holds no user, key or query", "it would be stored and shown",
            "put the key in a file of its own (README: keys), and take it for known to whoever saw this command",
        )  # fmt: skip
    try:
        port = urlsplit(url).port
    except ValueError:
        port = -1
    if not _URL.fullmatch(url) or port in (-1, 0):
        raise Invalid(f"{url!r} is no URL of a server", "it is http(s)://host[:port][/prefix]", "give one with --url")


def waits(plan: Plan, left: Room) -> str:
    """The last look before a launch, when the host may have filled up: empty, or why the replica waits."""
    if plan.plan_bytes <= max(0, left.left):
        return ""
    return f"waits for room: {sizing.human(plan.plan_bytes)} needed, {sizing.human(max(0, left.left))} left"


def _limit_too_small(spec: DeploymentSpec, plan: Plan) -> bool:
    return bool(spec.memory) and spec.memory < plan.plan_bytes


def _limit_reason(spec: DeploymentSpec, plan: Plan) -> str:
    return f"--memory {sizing.human(spec.memory)} is less than the plan of {sizing.human(plan.plan_bytes)}"
