"""Doubles of what a runner asks: a host on which nothing runs, an engine without a program, a gateway that agrees."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from core.catalog import Serving
from core.catalog.tiers import Loading
from core.engines.base import Abilities, Availability, Command, Endpoint, Engine, Failure, Health, LaunchPlan
from core.errors import Failed
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState, LogPiece, Node
from core.nouns import Counters, Model, ModelShape, NodeFacts, NodeSample, Plan, PlanParts, ProcessSample
from core.settings import EnginesTable

MIB = 1 << 20
SHAPE = ModelShape(
    arch="llama", n_layer=1, n_embd=8, n_ff=8, n_head=1, n_head_kv=(1,), key_length=8, value_length=8, n_vocab=8,
    ctx_train=512,
)  # fmt: skip
MODEL = Model(
    name="m", version=1, sha256="0", files=(), bytes=1, shape=SHAPE, licence="", origin="", imported_at=0,
    imported_by="",
)  # fmt: skip
PLAN = Plan(
    model="m", ctx=512, ctx_per_slot=512, parallel=1, cache_type="f16", rss_bytes=MIB, plan_bytes=MIB,
    parts=PlanParts(weights=0, kv_cache=0, compute=0, repack=0, output=0, base=0), free_bytes=0, reserve_bytes=0,
    reserved_bytes=0, fits=True, reason="",
)  # fmt: skip


class HostDouble(Node):
    """Launches are entries; a second living one of an owner is the fault that must never be."""

    name = "local"

    def __init__(self) -> None:
        self.launched: dict[str, LaunchState] = {}
        self.ended: Callable[[LaunchState], None] = lambda launch: None
        self.refuses = self.stubborn = False
        self.signals: list[tuple[str, int]] = []
        self.pid = 1000
        self.cores = self.cpus = 2
        self.orders: list[LaunchOrder] = []

    def living(self) -> list[LaunchState]:
        return [each for each in self.launched.values() if each.alive]

    def die(self, launch: str, *, code: int | None = None, signal: int | None = None) -> None:
        state = self.launched[launch]
        if state.alive:
            exit = ExitRecord(code=code, signal=signal, time=1.0)
            self.launched[launch] = msgspec.structs.replace(state, alive=False, exit=exit)
            asyncio.get_running_loop().call_soon(self.ended, self.launched[launch])

    async def launch(self, order: LaunchOrder) -> LaunchState:
        await asyncio.sleep(0)
        assert order.id not in self.launched
        self.orders.append(order)
        assert order.owner not in [each.owner for each in self.living()], "a second copy"
        self.pid += 1
        state = LaunchState(
            id=order.id, kind=order.kind, owner=order.owner, alive=not self.refuses, keeper_pid=1, pid=self.pid,
            started_at=1.0, boot_id="b", same_boot=True, spec=order.spec, folder=f"/{order.id}", exit=None,
        )  # fmt: skip
        if self.refuses:
            raise Failed(f"{order.owner} was not started", "this host refuses")
        self.launched[order.id] = state
        return state

    async def launches(self) -> list[LaunchState]:
        return list(self.launched.values())

    async def watch(self) -> AsyncIterator[LaunchState]:
        raise NotImplementedError
        yield

    def lives(self, launch: str) -> bool:
        return launch not in self.launched or self.launched[launch].alive

    async def signal(self, launch: str, signal: int) -> bool:
        self.signals.append((launch, signal))
        if launch not in self.launched or not self.launched[launch].alive:
            return False
        if signal == 9:
            self.die(launch, signal=9)
        elif not self.stubborn:
            self.die(launch, code=0)
        return True

    async def samples(self, launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]:
        return []

    async def read_log(self, launch: str, start: int, limit: int) -> LogPiece:
        return LogPiece(start=0, end=0, data=b"")

    async def log_since(self, launch: str, moment: float) -> int:
        return 0

    async def remove(self, launch: str) -> None:
        assert launch not in self.launched or not self.launched[launch].alive

    def socket(self, launch: LaunchState) -> str:
        return f"{launch.folder}/e.sock"

    def port(self, launch: LaunchState, file: str = "port") -> int | None:
        return None

    async def facts(self) -> NodeFacts:
        return NodeFacts(
            name="local", boot_id="b", machine="x", system="Linux", cores=self.cores, memory_bytes=1 << 34,
            cpus=self.cpus, python="3", cpu_model="", avx2=True,
        )  # fmt: skip

    async def sample(self) -> NodeSample:
        raise NotImplementedError


class EngineDouble(Engine):
    """Ready when the test says so."""

    name = "xllamacpp"
    abilities = Abilities()

    def __init__(self) -> None:
        super().__init__(EnginesTable())
        self.ready = True
        self.permanent = False

    def availability(self) -> Availability:
        return Availability(found=True)

    def command(self, plan: LaunchPlan) -> Command:
        return Command(argv=("/engine",), env={})

    async def health(self, endpoint: Endpoint) -> Health:
        await asyncio.sleep(0)
        return Health(state="ready" if self.ready else "loading")

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        return None

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return Failure(reason=f"code {code}, signal {signal}", permanent=self.permanent)


class AttachDouble(EngineDouble):
    """A server of somebody else that is always there."""

    name = "attach"
    abilities = Abilities(starts=False, unix_socket=False)

    def command(self, plan: LaunchPlan) -> Command:
        raise AssertionError("it is never started")


class LinkDouble:
    """A gateway that acknowledges at once, and says what the test says of requests in flight."""

    def __init__(self) -> None:
        self.acknowledges = True
        self.busy = 0

    def status(self) -> Any:
        return SimpleNamespace(snapshot=1)

    async def acknowledged(self, n: int, timeout: float) -> bool:
        await asyncio.sleep(0)
        return self.acknowledges

    def in_flight(self, replica: str) -> int:
        return self.busy


class CorrectionsDouble:
    """Nothing is learned."""

    def of(self, arch: str, engine: str, build: str) -> float:
        return 0.0

    def told(self, launch: str) -> str:
        return ""

    async def refresh(self) -> None:
        pass


class LoadsDouble:
    async def begin(self, reference: str) -> Loading:
        return Loading(MODEL, None)

    async def ready(self, loading: Loading, seconds: float, engine: str) -> None:
        pass


class CatalogDouble:
    corrections = CorrectionsDouble()
    loads = LoadsDouble()

    async def get(self, name: str) -> Model:
        return MODEL

    async def serving(self, wanted: str) -> Serving:
        return Serving(await self.get(wanted), "/m.gguf", "", (), "")

    async def pools(self, model: Model) -> bool:
        return True
