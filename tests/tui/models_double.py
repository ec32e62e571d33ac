"""Of the double: what a console asks of versions, the catalogue, pulls, tiers and choosing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import Changed, Conflict, NotFound
from core.nouns import (
    AliasMoved,
    Bench,
    BenchJob,
    BenchPoint,
    Catalogue,
    CatalogueEntry,
    CatalogueFile,
    Choice,
    Collected,
    DeploymentSpec,
    DevicePlan,
    Fit,
    Fits,
    Gone,
    LoadTime,
    Model,
    ModelChange,
    MoveJob,
    Pull,
    PullChoice,
    PulledDeploy,
    PullFile,
    PullPlan,
    Recommendation,
    Score,
    Source,
    Speed,
    Split,
    Tier,
    Verified,
    VersionDifference,
    Wishes,
)

NOW = 1_790_000_000.0
MIB = 1 << 20
READ = Source(what="github:lab/coder", path="README.md", commit_or_date="abc123")


def entry(name: str, *uses: str, **fields: Any) -> CatalogueEntry:
    base = dict(
        name=name, family="lab", title=name.title(), uses=uses, params=7_000_000_000, ctx=32768, licence="mit",
        repo=f"lab/{name}-GGUF", files=(CatalogueFile(quantization="Q4_K_M", bytes=4000 * MIB, source=READ),),
        scores=(Score(use="code", benchmark="HumanEval", value=62.2, source=READ),), sources=(READ,),
        unknown=("active_params",),
    )  # fmt: skip
    return CatalogueEntry(**{**base, **fields})


def fit(name: str, *, stored: bool = True, fits: bool = True, **fields: Any) -> Fit:
    base = dict(quantization="Q4_K_M", bytes=4000 * MIB, plan_bytes=5000 * MIB)
    return Fit(**{**base, "name": name, "stored": stored, "fits": fits, **fields})


def pull(id: str = "p1", **fields: Any) -> Pull:
    base = dict(
        id=id, name="coder", source="hf:lab/coder-GGUF", state="pulling", owner="ann", started_at=NOW,
        files=(PullFile(name="coder.gguf", bytes=1000 * MIB),), bytes_done=420 * MIB, bytes_total=1000 * MIB,
        rate=10.0 * MIB, left_s=58.0,
    )  # fmt: skip
    return Pull(**{**base, **fields})


def choice(name: str, **fields: Any) -> Choice:
    speed = Speed(known=True, threads=2, users=8, ctx=2048, prompt=512, prefill=90.0, decode=20.0, each=11.5, error=0.2)
    base = dict(
        rank=1, name=name, title=name.title(), quantization="Q4_K_M", stored=False, fits=True, plan_bytes=5000 * MIB,
        bound=False, short_bytes=0, bytes=4000 * MIB, params=7_000_000_000, licence="mit", speed=speed, quality=0.8,
        load_s=None, reasons=("quality 0.80 for code: HumanEval 62.2 of 100", "takes 4.9 GiB"),
        commands=(
            f"corral deploy {name} --ctx 65536 --parallel 8"
            if fields.get("stored")
            else f"corral models pull hf:lab/{name}-GGUF:Q4_K_M --name {name} --deploy {name} --ctx 65536 --parallel 8",
        ),
    )  # fmt: skip
    return Choice(**{**base, **fields})


def split(gpus: tuple[int, ...]) -> Split:
    """20 layers on each GPU, the first in the host."""
    host = DevicePlan(
        device="host", layers=1, weights=50 * MIB, kv_cache=10 * MIB, compute=5 * MIB, other=30 * MIB, total=95 * MIB,
        free_bytes=5000 * MIB, fits=True,
    )  # fmt: skip
    there = [
        DevicePlan(
            device=f"gpu{n}", layers=20, weights=2000 * MIB, kv_cache=600 * MIB, compute=100 * MIB, other=500 * MIB,
            total=3200 * MIB, free_bytes=free, fits=free > 3200 * MIB,
        )
        for n, free in enumerate(gpus)
    ]  # fmt: skip
    fits = all(each.fits for each in there)
    return Split(gpu_layers=20 * len(gpus), cpu_moe=3, devices=(host, *there), fits=fits)


def point(threads: int, parallel: int, ctx: int, total: float) -> BenchPoint:
    return BenchPoint(
        threads=threads, parallel=parallel, ctx=ctx, filled=ctx - 20, prefill=90.0, each=total / parallel, total=total,
        ttft_s=0.25, expected=10.0,
    )  # fmt: skip


def bench(*points: BenchPoint, **fields: Any) -> Bench:
    base = dict(
        id="b1", model="gemma@3", sha256="ab" * 32, node="local", engine="xllamacpp", version="0.3", cache_type="f16",
        at=NOW, by="ann",
    )  # fmt: skip
    return Bench(**{**base, "points": points, **fields})


def measuring(**fields: Any) -> BenchJob:
    base = dict(
        id="b1", kind="model", object="model:gemma", state="measuring", by="ann", done=3, total=9,
        step="2 threads, 4 at once, 512 cells",
    )  # fmt: skip
    return BenchJob(**{**base, **fields})


class Curated:
    """What `client.curated` answers."""

    def __init__(self, double: Any) -> None:
        self._double = double
        self.entries: tuple[CatalogueEntry, ...] = (entry("coder", "code", "general"), entry("seer", "vision"))

    async def read(self, use: str = "") -> Catalogue:
        self._double.calls.append(("catalogue",))
        return Catalogue(entries=self.entries, advice={})


class CatalogCalls:
    """What `client.catalog` answers. Every model has the versions that its noun says, 1 to n."""

    def __init__(self, double: Any) -> None:
        self._double = double
        self.touches: tuple[str, ...] = ("chat",)
        self.run: Verified | None = None
        self.previous = False
        """Another version was live before."""
        self.changed: Changed | None = None
        """What was shown is not there any more."""
        self.text = "{{ messages }}"
        self.fitting: tuple[Fit, ...] | None = None
        self.mistaken: set[str] = set()
        """Stored ones that are called as an entry and are not that."""
        self.collected = Collected(
            dry_run=True, gone=(Gone(what="version", name="smollm2@1", bytes=90 * MIB, why="nothing means it"),),
            kept=(Gone(what="version", name="smollm2@2", bytes=0, why="smollm2:previous means it"),), bytes=90 * MIB,
        )  # fmt: skip

    async def fits(self) -> Fits:
        self._double.calls.append(("fits",))
        known = {each.name for each in self._double.curated.entries} - self.mistaken
        stored = [
            fit(each.name, fits=each.name != "gemma", entry=each.name if each.name in known else "")
            for each in self._double.stored
        ]
        listed = [fit(each.name, stored=False, fits=each.name != "seer") for each in self._double.curated.entries]
        return Fits(room_bytes=6000 * MIB, models=self.fitting or (*stored, *listed))

    def _model(self, name: str) -> Model:
        return next(each for each in self._double.stored if each.name == name)

    async def versions(self, name: str) -> list[Model]:
        self._double.calls.append(("versions", name))
        live = self._model(name)
        before = {1: ("previous",)} if self.previous else {}
        return [
            live if n == live.version else msgspec.structs.replace(live, version=n, aliases=before.get(n, ()), flags=())
            for n in range(1, live.versions + 1)
        ]

    async def template(self, wanted: str) -> dict[str, Any]:
        return {"template": self.text, "flags": []}

    async def history(self, name: str, limit: int = 200) -> list[ModelChange]:
        return [ModelChange(at=NOW, by="ann", what="alias", version=2, detail="live: 1 to 2")]

    async def diff(self, old: str, new: str) -> list[VersionDifference]:
        self._double.calls.append(("diff", old, new))
        if old == new:
            return []
        return [
            VersionDifference(kind="size", what="bytes", old="1", new="2"),
            VersionDifference(kind="template", what="chat template", old="a\nb", new="c"),
        ]

    async def alias(
        self, name: str, alias: str, to: str, *, move: bool = True, seen: int | None = None
    ) -> AliasMoved:  # fmt: skip
        self._double.calls.append(("alias", name, alias, to, move, *(() if seen is None else (seen,))))
        if move and self.changed is not None:
            raise self.changed
        if to == "9":
            raise NotFound("no version 9 of it", "", "see the list")
        version = int(to) if to.isdecimal() else 1
        return AliasMoved(model=name, alias=alias, version=version, before=2, touches=self.touches, moved=move)

    async def drop_alias(self, name: str, alias: str) -> None:
        self._double.calls.append(("drop_alias", name, alias))

    async def note(self, wanted: str, *, label: str | None = None, notes: str | None = None) -> Model:
        self._double.calls.append(("note", wanted, label, notes))
        return self._model(wanted.partition("@")[0])

    async def gc(
        self, *, dry_run: bool, older_than_days: float = 0, seen: Sequence[str] | None = None
    ) -> Collected:  # fmt: skip
        self._double.calls.append(("gc", dry_run, older_than_days, *(() if seen is None else (list(seen),))))
        if not dry_run and self.changed is not None:
            raise self.changed
        return self.collected

    async def verify(self, models: list[str]) -> Verified:
        self._double.calls.append(("verify", tuple(models)))
        self.run = Verified(
            state="hashing", objects_done=1, objects_total=4, bytes_done=25, bytes_total=100, started_at=NOW,
            started_by="ann",
        )  # fmt: skip
        return self.run

    async def verified(self) -> Verified:
        if self.run is None:
            raise NotFound("nothing was verified yet")
        return self.run

    async def cancel_verify(self) -> Verified:
        self._double.calls.append(("cancel_verify",))
        assert self.run is not None
        self.run = msgspec.structs.replace(self.run, state="cancelled")
        return self.run


class Pulls:
    """What `client.pulls` answers."""

    def __init__(self, double: Any) -> None:
        self._double = double
        self.there: dict[str, Pull] = {}
        self.gated = False

    async def plan(self, source: str, ctx: int = 0) -> PullPlan:
        self._double.calls.append(("pull plan", source))
        taken = PullChoice(
            quantization="Q4_K_M", files=(), bytes=4000 * MIB, need_bytes=5000 * MIB, fits=True, chosen=True, why="fits"
        )
        return PullPlan(
            source=source, revision="abc", licence="mit", gated=self.gated, architecture="llama", params=7_000_000_000,
            ctx=4096, left_bytes=6000 * MIB, disk_bytes=90_000 * MIB, choices=(taken,),
            why="Q4_K_M is the best that fits",
        )  # fmt: skip

    async def begin(self, source: str, **fields: Any) -> Pull:
        self._double.calls.append(("pull", source, fields))
        said = fields.get("deploy")
        deploy = PulledDeploy(spec=said["spec"], replace=said["replace"]) if said else None
        made = pull(name=fields.get("name", "coder"), source=source, deploy=deploy)
        self.there[made.id] = made
        return made

    async def get(self, id: str) -> Pull:
        return self.there[id]

    async def pause(self, id: str) -> Pull:
        self._double.calls.append(("pause", id))
        return pull(id, state="paused", rate=0.0, left_s=None)

    async def resume(self, id: str) -> Pull:
        self._double.calls.append(("resume", id))
        return pull(id)

    async def undeploy(self, id: str) -> Pull:
        self._double.calls.append(("undeploy", id))
        made = self.there[id]
        assert made.deploy is not None
        left = msgspec.structs.replace(made, deploy=msgspec.structs.replace(made.deploy, state="dropped"))
        self.there[id] = left
        return left

    async def cancel(self, id: str) -> Pull:
        self._double.calls.append(("cancel pull", id))
        return pull(id, state="cancelled")


class Tiers:
    """What `client.tiers` answers."""

    def __init__(self, double: Any) -> None:
        self._double = double
        self.there = [
            Tier(name="home", path="/h/models", state="there", free_bytes=50_000 * MIB, cold=500.0 * MIB),
            Tier(name="fast", path="/fast", state="there", free_bytes=40 * MIB, spill="home"),
            Tier(name="nas", path="/nas", state="away", reason="what it is mounted from is not there"),
        ]
        self.touches: tuple[str, ...] = ()
        self.beside: tuple[str, ...] = ()

    async def ls(self) -> list[Tier]:
        return self.there

    async def loads(self, wanted: str) -> list[LoadTime]:
        return [LoadTime(tier="home", here=True, bytes=1, cold_s=1.25, warm_s=0.2, measured_s=1.5)]

    async def move(self, wanted: str, to: str, *, move: bool = True) -> MoveJob:
        self._double.calls.append(("move" if move else "plan move", wanted, to))
        if to == "nas":
            raise Conflict("nas is away", "what it is mounted from is not there", "mount it")
        return MoveJob(
            id="m1", model=wanted, from_tier="home", to_tier=to, asked=to, state="copying" if move else "planned",
            bytes_done=int(move), bytes_total=4, touches=self.touches, beside=self.beside,
        )  # fmt: skip

    async def cancel_move(self, id: str) -> None:
        self._double.calls.append(("cancel move", id))


class Choosing:
    """What `client.choosing` answers."""

    def __init__(self, double: Any) -> None:
        self._double = double
        self.found: tuple[Choice, ...] = (choice("coder"), choice("smollm2", rank=2, stored=True))
        self.nearest: tuple[Choice, ...] = ()
        self.kept: list[Bench] = []

    async def benches(self, model: str) -> list[Bench]:
        self._double.calls.append(("benches", model))
        return self.kept

    async def measure_model(self, model: str, **grid: Any) -> BenchJob:
        self._double.calls.append(("measure", model, grid))
        return measuring()

    async def cancel(self, id: str) -> BenchJob:
        self._double.calls.append(("cancel bench", id))
        return measuring(state="cancelled")

    async def speed(self, spec: DeploymentSpec, users: int = 0, prompt: int = 512) -> Speed:
        self._double.calls.append(("speed", spec, users, prompt))
        return Speed(
            known=True, threads=2, users=users or spec.parallel, ctx=2048, prompt=prompt, prefill=90.0, decode=20.0,
            each=11.5, ttft_s=1.5, ttft_all_s=4.0, error=0.2, basis=("seen on this host",),
        )  # fmt: skip

    async def recommend(self, wishes: Wishes) -> Recommendation:
        self._double.calls.append(("recommend", wishes))
        return Recommendation(
            wishes=wishes, choices=() if wishes.users > 99 else self.found, nearest=self.nearest,
            plain="Phi-4 for code",
            notes=("3 of 9 have no score for code",), weighed=9, room_bytes=6000 * MIB,
        )  # fmt: skip
