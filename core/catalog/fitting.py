"""Which models fit this host now: what is stored and what the curated list has, all at once and cheaply enough for a
list that is drawn. `Deployments.plan` says it of one model with all that was learned of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache

from core.catalog import sizing
from core.catalog.choosing import CACHE_RAM_MIB
from core.catalog.curated import shape_for
from core.catalog.identity import entry_of
from core.catalog.sizing import human
from core.nouns import CatalogueEntry, CatalogueFile, Fit, Fits, Model, ModelShape

COARSE = ("Q2_", "Q3_", "IQ1_", "IQ2_", "IQ3_", "TQ")
"""Of fewer than four bits a weight: what is named for an entry only where nothing better fits."""


def fits(stored: Iterable[Model], entries: Sequence[CatalogueEntry], room: int) -> Fits:
    """Each model and each entry against `room` bytes. An entry that a stored model is stands there too: it has other
    quantisations."""
    found = [_stored(model, entries, room) for model in stored]
    return Fits(room_bytes=room, models=(*found, *(_listed(each, room) for each in entries)))


def listed_as(name: str, entries: Sequence[CatalogueEntry], room: int) -> str:
    """Of a name that is not stored: what the curated list has of it, what that takes and how it is pulled; "" for one
    that is not in the list."""
    entry = next((each for each in entries if each.name == name), None)
    if entry is None:
        return ""
    found = _listed(entry, room)
    words = f"{name} is in the catalogue"
    if found.plan_bytes:
        words += (
            f" and {'fits' if found.fits else 'does not fit'}: in {found.quantization} it takes"
            f" {human(found.plan_bytes)} with the default context, and {human(room)} may be had"
        )
    if not entry.repo or not found.quantization:
        return f"{words}; see `corral models catalogue show {shlex.quote(name)}`"
    source = shlex.quote(f"hf:{entry.repo}:{found.quantization}")
    return f"{words}; to store it: corral models pull {source} --name {shlex.quote(name)}"


@lru_cache(maxsize=4096)
def need(shape: ModelShape) -> int:
    """What a replica with the default context and one slot reserves; 0 where the shape says too little."""
    if not shape.tensor_bytes:
        return 0
    ctx = sizing.default_ctx(shape, 1)
    return sizing.reserved(sizing.full(sizing.parts(shape, ctx, 1, "f16"), shape, ctx, 1), CACHE_RAM_MIB)


def _stored(model: Model, entries: Sequence[CatalogueEntry], room: int) -> Fit:
    takes, entry = need(model.shape), entry_of(model, entries)
    return Fit(
        name=model.name, stored=True, quantization=model.shape.quantization, bytes=model.bytes, plan_bytes=takes,
        fits=0 < takes <= room, entry=entry.name if entry is not None else "", repack_bytes=model.shape.repack_bytes,
        state=model.state, tier=model.tier,
    )  # fmt: skip


def _listed(entry: CatalogueEntry, room: int) -> Fit:
    weighed = [(file, _takes(entry, file)) for file in entry.files]
    fitting = [each for each in weighed if 0 < each[1] <= room]
    fine = [each for each in fitting if not each[0].quantization.startswith(COARSE)]
    if fine or fitting:
        file, takes = max(fine or fitting, key=lambda each: each[0].bytes)
    elif weighed:
        file, takes = min(weighed, key=lambda each: each[0].bytes)
    else:
        return Fit(name=entry.name, stored=False, quantization="", bytes=0, plan_bytes=0, fits=False)
    shape = shape_for(entry, file.quantization)
    return Fit(
        name=entry.name, stored=False, quantization=file.quantization, bytes=file.bytes, plan_bytes=takes,
        fits=bool(fitting), computed=file.computed, repack_bytes=shape.repack_bytes if shape is not None else 0,
    )  # fmt: skip


def _takes(entry: CatalogueEntry, file: CatalogueFile) -> int:
    shape = shape_for(entry, file.quantization)
    return need(shape) if shape is not None else 0
