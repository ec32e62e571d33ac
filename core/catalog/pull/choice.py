"""Which quantisation: what a repository has, grouped, and the best one that fits in memory and on the disk.

Bytes alone don't say whether a model fits: the memory of a conversation depends on its shape. All quantisations of one
model share it, so that one header, read over the network, serves them all; only the weights differ.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from core.amounts import size_said
from core.catalog.files import SPLIT
from core.catalog.identity import label
from core.catalog.sizing import human
from core.errors import Invalid, NoRoom, NotFound
from core.nouns import ModelShape, Plan, PullChoice, PullFile

NO_MODEL = re.compile(r"(^|[/._-])(mmproj|imatrix|lora|adapter)([/._-]|$)", re.IGNORECASE)
"""Beside the model in many repositories: what turns pictures into tokens, what it was quantised with, changes to it."""
FULL = ("F32", "FP32", "F16", "FP16", "BF16")
"""Twice the bytes of Q8_0 and more, to be read for each token, and no better answers: only by name."""
UNKNOWN_SHARE, UNKNOWN_BYTES = 1.2, 1 << 30
"""Where the shape isn't known: a fifth more than the weights, and 1 GiB."""

Planner = Callable[[ModelShape, int], Awaitable[Plan]]
"""A replica of this shape with one conversation of so many cells (0: the default), against what is free now."""


class Group(msgspec.Struct, frozen=True):
    """The files of one quantisation, in order."""

    quantization: str
    files: tuple[PullFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def fetched(self) -> int:
        """Bytes that are not in the store yet."""
        return sum(file.bytes for file in self.files if not file.stored)


def group(files: Sequence[PullFile]) -> tuple[list[Group], list[str]]:
    """The models among the files of a repository, the largest first; and sentences on what is beside them."""
    sets: dict[tuple[str, int], dict[int, PullFile]] = {}
    beside: list[str] = []
    for file in files:
        folder, _, name = file.name.rpartition("/")
        if not name.endswith(".gguf"):
            continue
        if NO_MODEL.search(file.name):
            beside.append(file.name)
            continue
        part = SPLIT.fullmatch(name)
        base, count, number = (part[1], int(part[3]), int(part[2])) if part else (name.removesuffix(".gguf"), 1, 1)
        sets.setdefault((f"{folder}/{base}" if folder else base, count), {})[number] = file
    notes = [f"not taken, no model of its own: {_few(beside)}"] if beside else []
    whole = {}
    for (base, count), parts in sets.items():
        if set(parts) == set(range(1, count + 1)):
            whole[base] = tuple(parts[n] for n in range(1, count + 1))
        else:
            notes.append(f"{base}: {len(parts)} of its {count} parts are there")
    labels = [label(base) for base in whole]
    found = [
        Group(said if said and labels.count(said) == 1 else base, files)
        for said, (base, files) in zip(labels, whole.items(), strict=True)
    ]
    return sorted(found, key=lambda each: (-each.bytes, each.quantization)), notes


def projectors(files: Sequence[PullFile]) -> tuple[PullFile, ...]:
    """Those among the files of a repository, in the order in which they are chosen."""
    order = ("F16", "BF16", "Q8_0", "F32")
    found = [
        msgspec.structs.replace(file, kind="projector")
        for file in files
        if file.name.endswith(".gguf") and "mmproj" in file.name.rpartition("/")[2].lower()
    ]
    return tuple(
        sorted(found, key=lambda each: order.index(said) if (said := label(each.name[:-5])) in order else len(order))
    )


def projector(there: Sequence[PullFile], asked: str) -> PullFile:
    """The one that is asked for: by its name, or `auto`. Raises `NotFound`."""
    for each in there:
        if asked in ("auto", each.name, each.name.rpartition("/")[2]):
            return each
    names = ", ".join(each.name for each in there) or "none"
    raise NotFound("there is no such projector", f"there are: {names}", "leave --projector out, or name one of these")


def wanted(groups: Sequence[Group], quant: str, path: str, source: str) -> Group | None:
    """The one that is asked for by name; None: none is. Raises `NotFound` with those there are."""
    if not quant and not path:
        return None
    for each in groups:
        if path and any(file.name == path or file.name.rpartition("/")[2] == path for file in each.files):
            return each
        if quant and quant.lower() in (each.quantization.lower(), each.quantization.lower().removeprefix("ud-")):
            return each
    there = ", ".join(each.quantization for each in groups) or "none"
    raise NotFound(f"{source} has no {quant or path}", f"there are: {there}", "name one of these after the colon")


def shaped(shape: ModelShape, each: Group) -> ModelShape:
    """The shape of a model whose header was read of another quantisation: only its weights differ. Those that an engine
    copies into an order of its own it keeps no more from the file, so that nothing is counted twice."""
    share = each.bytes / max(1, shape.tensor_bytes)

    def scaled(layers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(round(share * layer) for layer in layers)

    return msgspec.structs.replace(
        shape, quantization=each.quantization, tensor_bytes=each.bytes, mapped_bytes=0, repack_bytes=0, layer_repack=(),
        layer_bytes=scaled(shape.layer_bytes), expert_bytes=scaled(shape.expert_bytes),
        output_bytes=round(share * shape.output_bytes),
    )  # fmt: skip


async def choose(
    groups: Sequence[Group], asked: Group | None, *, shape: ModelShape | None, ctx: int, plan: Planner,
    room: tuple[int, str], left_bytes: int,
) -> tuple[tuple[PullChoice, ...], str]:  # fmt: skip
    """Each against memory and `room` (what is left where new models land, and why none could), and a sentence on which
    is chosen and why, or why none."""
    rows = [await _row(each, shape, ctx, plan, room, left_bytes) for each in groups]
    fitting = [row for row in rows if row.fits and row.quantization not in FULL]
    if asked is not None:
        best = next((row for row in rows if row.quantization == asked.quantization), None)
        why = f"{asked.quantization or 'this file'} is what was asked for"
        if best is not None and not best.fits:
            why += f", and it does not fit now: {best.why}"
    elif fitting:
        best = fitting[0]
        better = [row.quantization for row in rows if row.bytes > best.bytes and row.quantization not in FULL]
        why = f"{best.quantization} is the best that fits"
        why += f": {_few(better)} would be better and {'do' if len(better) > 1 else 'does'} not" if better else ""
    elif whole := [row for row in rows if row.fits]:
        best, why = whole[-1], f"{whole[-1].quantization} is what fits of what there is"
    else:
        best, why = None, "none fits"
    told = [msgspec.structs.replace(row, chosen=True) if row is best else row for row in rows]
    return tuple(told), why


async def _row(
    each: Group, shape: ModelShape | None, ctx: int, plan: Planner, room: tuple[int, str], left_bytes: int
) -> PullChoice:  # fmt: skip
    if shape is None:
        need = round(UNKNOWN_SHARE * each.bytes) + UNKNOWN_BYTES
        fits, why = need <= left_bytes, f"about {human(need)} of {human(left_bytes)}, by its size alone"
    else:
        found = await plan(shaped(shape, each), ctx)
        need, fits = found.plan_bytes, found.fits
        why = found.reason.partition(":")[0]
    if each.fetched and room[1]:
        fits, why = False, f"where new models land nothing is taken now: {room[1]}"
    elif each.fetched > room[0]:
        left = f"{size_said(room[0])} are left"
        fits, why = False, f"its {size_said(each.fetched)} do not fit where new models land: {left}"
    elif fits and each.quantization in FULL:
        why = "fits; no better than Q8_0 and slower: only by name"
    if not each.fetched:
        why += "; its bytes are stored already"
    return PullChoice(
        quantization=each.quantization, files=each.files, bytes=each.bytes, need_bytes=need, fits=fits, chosen=False,
        why=why,
    )  # fmt: skip


def chosen(choices: Sequence[PullChoice], source: str, others: str) -> PullChoice:
    """The one that is chosen. Raises `Invalid` where there is nothing to choose from (`others`: what there is
    instead), `NoRoom` where nothing fits, with the nearest three."""
    if not choices:
        raise Invalid(f"{source} has no GGUF model", others, "look for one of the same name that ends in -GGUF")
    found = next((each for each in choices if each.chosen), None)
    if found is not None:
        return found
    near = sorted(choices, key=lambda each: each.need_bytes)[:3]
    raise NoRoom(
        f"no quantisation of {source} fits here",
        "; ".join(f"{each.quantization}: {each.why}" for each in near),
        f"pull one all the same by its name ({source}:{near[0].quantization}), or a smaller model",
        nearest=[
            {"quantization": each.quantization, "bytes": each.bytes, "need_bytes": each.need_bytes} for each in near
        ],
    )  # fmt: skip


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
