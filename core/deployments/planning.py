"""What a replica would take and how it would sit beside those that run: asked by whoever weighs a model, changing
nothing."""

from __future__ import annotations

from core.catalog import Catalog, sizing
from core.catalog.speeds import Served
from core.deployments.capacity import Capacity
from core.deployments.herd import Herd
from core.errors import Conflict, Invalid, NotFound
from core.nouns import DeploymentSpec, Model, ModelShape, Plan


class Planning(Herd):
    """What `Deployments` answers before anybody deploys."""

    _capacity: Capacity
    _catalog: Catalog

    async def seat(self, spec: DeploymentSpec) -> tuple[DeploymentSpec, Model | None, int]:
        """A spec with its defaults, its model, and the threads that a replica of it would get now."""
        spec, model = await self._capacity.complete(spec)
        return spec, model, spec.threads or await self._capacity.threads(self._running())

    async def threads(self) -> int:
        """Those that a new replica would get now."""
        return await self._capacity.threads(self._running())

    def served(self, launch: str) -> Served | None:
        """What a launch serves; None for one that has ended."""
        for runner in self._runners.values():
            wanted, view = self._wanted.get(runner.deployment), runner.view
            if view.launch == launch and wanted is not None and view.threads:
                return Served(
                    model=f"{view.model}@{view.version}", engine=view.engine, threads=view.threads,
                    parallel=view.parallel, cache_type=wanted.spec.cache_type, busy=self.link.in_flight(runner.id) > 0,
                )  # fmt: skip
        return None

    async def foresee(self, spec: DeploymentSpec, *, replace: bool) -> None:
        """Raises what `deploy` would refuse of a model that is still to come, whatever it turns out to be."""
        if not self._engines.get(spec.engine).abilities.starts:
            raise Invalid(f"{spec.engine} serves no model of this host", todo="leave out --engine")
        await self._capacity.check(spec)
        if spec.tier and spec.tier not in (names := await self._catalog.tiers.names()):
            raise NotFound(f"no tier {spec.tier!r}", f"there are: {', '.join(names)}", "see `corral tiers ls`")
        if spec.name in self._wanted and not replace:
            raise Conflict(
                f"deployment {spec.name!r} exists", "it would be changed when the model is here",
                "say --replace to change it, or another name",
            )  # fmt: skip

    async def plan(self, spec: DeploymentSpec, gpus: sizing.Gpus | None = None) -> Plan:
        """What a replica of `spec` would take and whether that fits now; also over GPUs, if it is asked so."""
        spec, model = await self._capacity.complete(spec)
        left = await self._capacity.look(self._holdings(except_for=spec.name))
        return self._capacity.plan(spec, model, left, gpus)

    async def plan_shape(self, shape: ModelShape, ctx: int) -> Plan:
        """The same of one conversation with a model that is not stored yet (`ctx` 0: as is usual)."""
        model = Model(
            name="it", version=1, sha256="", files=(), bytes=shape.tensor_bytes, shape=shape, licence="", origin="",
            imported_at=0.0, imported_by="",
        )  # fmt: skip
        cells = min(ctx, shape.ctx_train or ctx) or sizing.default_ctx(shape, 1)
        spec = DeploymentSpec(name="it", model="it", ctx=cells)
        return self._capacity.plan(spec, model, await self._capacity.look(self._holdings()))

    async def left(self) -> int:
        """Memory that one more replica may reserve (bytes)."""
        room = await self._capacity.look(self._holdings())
        return max(0, room.left)
