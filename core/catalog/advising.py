"""Gathers what `recommend` weighs: what is stored, what the catalogue has, and what this host has room for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from core.catalog.choosing import Candidate, Host, recommend
from core.catalog.curated import shape_for
from core.catalog.curated.layout import NoLayout
from core.catalog.curated.sizes import Sized
from core.catalog.identity import entry_of, mistaken
from core.catalog.pull import hub
from core.catalog.speeds import Speeds
from core.catalog.work import Work, of_headers, of_shape
from core.errors import Invalid, NotFound
from core.nouns import USES, Catalogue, CatalogueEntry, LoadTime, Model, ModelShape, Recommendation, Wishes

LARGEST_CTX = 1 << 24
MOST_USERS = 256
ENGINE = "xllamacpp"
ENCODERS = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"}
"""Architectures that make no text."""


class Advisor:
    """`threads` and `room` say what a replica would get now; `catalogue` is read anew at each question."""

    def __init__(
        self, speeds: Speeds, *, node: str, catalogue: Callable[[], Awaitable[Catalogue]],
        room: Callable[[], Awaitable[int]], threads: Callable[[], Awaitable[int]],
        loads: Callable[[Sequence[Model]], Awaitable[Mapping[str, LoadTime]]],
    ) -> None:  # fmt: skip
        self._speeds, self._node, self._catalogue = speeds, node, catalogue
        self._room, self._threads, self._loads = room, threads, loads
        self._works: dict[tuple[str, str, int], tuple[CatalogueEntry, Candidate]] = {}

    async def recommend(self, wishes: Wishes, stored: Iterable[Model]) -> Recommendation:
        """The answer for `stored` models, which are those that the caller sees, and the catalogue. Raises `Invalid`,
        `NotFound`."""
        check(wishes)
        if wishes.node != self._node:
            raise NotFound(f"no node {wishes.node!r}", f"there is {self._node}", "see `corral nodes ls`")
        catalogue = await self._catalogue()
        mine = list(stored)
        loads = await self._loads(mine)
        own = [await self._stored(each, catalogue.entries, loads.get(each.reference)) for each in mine]
        taken = {(each.entry, each.quantization) for each in own if each.entry}
        listed = [
            candidate for candidate in await asyncio.to_thread(self._all, catalogue.entries)
            if (candidate.entry, candidate.quantization) not in taken
        ]  # fmt: skip
        host = Host(room_bytes=await self._room(), threads=await self._threads(), bench=self._speeds.host)
        return _with_means(recommend(wishes, [*own, *listed], host, catalogue.advice))

    async def _stored(self, model: Model, entries: Sequence[CatalogueEntry], load: LoadTime | None) -> Candidate:
        entry = entry_of(model, entries)
        uses = entry.uses if entry else ("embedding",) if model.shape.arch in ENCODERS else ()
        return Candidate(
            name=model.name, title=entry.title if entry else model.name, stored=True,
            quantization=model.shape.quantization, bytes=model.bytes, family=entry.family if entry else "",
            params=model.shape.n_params, uses=uses, ctx=model.shape.ctx_train,
            licence=model.licence or (entry.licence if entry else ""), scores=entry.scores if entry else (),
            shape=model.shape, work=await self._speeds.work(model),
            seen=tuple(self._speeds.seen(model.sha256, ENGINE)),
            load_s=(load.measured_s or load.cold_s or load.warm_s) if load else None,
            entry=entry.name if entry else "", flags=model.flags, lacks=_lacks(model),
            mistaken=mistaken(model, entries),
        )  # fmt: skip

    def _all(self, entries: Sequence[CatalogueEntry]) -> list[Candidate]:
        """In a thread: the first time it takes a second."""
        return [candidate for entry in entries for candidate in self._listed(entry)]

    def _listed(self, entry: CatalogueEntry) -> list[Candidate]:
        """One for each quantisation; the sizes of an entry are worked out once."""
        found = []
        for file in entry.files:
            key = (entry.name, file.quantization, file.bytes)
            kept = self._works.get(key)
            if kept is None or (kept[0] is not entry and kept[0] != entry):
                kept = entry, self._made(entry, file.quantization, file.bytes)
                self._works[key] = kept
            found.append(kept[1])
        return found

    def _made(self, entry: CatalogueEntry, quantization: str, size: int) -> Candidate:
        shape = shape_for(entry, quantization)
        work = work_of(entry, quantization, shape) if shape is not None else None
        return Candidate(
            name=entry.name, title=entry.title, stored=False, quantization=quantization, bytes=size,
            family=entry.family, params=entry.params, uses=entry.uses, ctx=entry.ctx, licence=entry.licence,
            scores=entry.scores, shape=shape, work=work, repo=entry.repo, entry=entry.name,
        )  # fmt: skip


def _lacks(model: Model) -> str:
    """What a stored version would need to be started at all."""
    if model.state == "away":
        return f"its tier {model.tier}, which is away"
    return "" if model.state == "stored" else f"its bytes: it is {model.state}, import it again"


def _with_means(found: Recommendation) -> Recommendation:
    """With a note of what is to be installed before what is recommended can be pulled."""
    pulled = any(each.commands and not each.stored for each in found.choices or found.nearest)
    command = hub.lacking() if pulled else ""
    if not command:
        return found
    note = f"to pull from a hub, {hub.PACKAGE} is to be installed beside the daemon first: `{command}`"
    return msgspec.structs.replace(found, notes=(*found.notes, note))


def work_of(entry: CatalogueEntry, quantization: str, shape: ModelShape) -> Work:
    """What a token costs an entry: by the tensors that such a file has, or by its counts where no rule says which."""
    try:
        tensors = [[name, kind, list(dims), size] for name, kind, dims, size in Sized(entry.header).typed(quantization)]
    except (KeyError, NoLayout):
        return of_shape(shape, active_params=entry.active_params, params=entry.params)
    meta = {f"{shape.arch}.{key}": value for key, value in entry.header.items()}
    return of_headers([{"metadata": meta, "tensors": tensors}], shape)


def check(wishes: Wishes) -> None:
    """Raises `Invalid` for wishes that no model could meet or that mean nothing."""
    if wishes.use not in USES:
        raise Invalid(f"{wishes.use!r:.40} is no use", f"uses are {', '.join(USES)}", "change --for")
    for field, value, low, high in (
        ("users", wishes.users, 1, MOST_USERS), ("context", wishes.ctx, 256, LARGEST_CTX),
        ("prompt", wishes.prompt, 1, LARGEST_CTX), ("limit", wishes.limit, 1, 100),
        ("memory", wishes.memory, 0, 1 << 62), ("min-speed", wishes.min_speed, 0, 1e6),
    ):  # fmt: skip
        if not low <= value <= high:
            raise Invalid(f"{field} is {value}", f"it may be {low} to {int(high)}", f"change --{field}")
