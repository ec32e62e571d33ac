"""All that is known of a model, as lines: versions, header, template, licence, planned memory as a bar, load times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from core.errors import CorralError
from core.nouns import Bench, CatalogueEntry, DeploymentSpec, LoadTime, Model, Plan, Source
from tui.columns import SAID, cut, fitted
from tui.curves import brief, chart
from tui.modelplan import memory
from tui.plain import line, plain, visible
from tui.spoken import spoken
from tui.stock import Offer
from tui.words import lasting, moment, params, plural, size, state, unwhole

FEW = 2
"""Versions, and flags, that the pane shows."""


class Story(NamedTuple):
    """What was read of one row. None: not asked; a text: why it could not be read."""

    offer: Offer
    versions: Sequence[Model] = ()
    plan: Plan | str | None = None
    loads: Sequence[LoadTime] | None = None
    bench: Bench | None = None
    """What was measured last."""
    template: str | None = None


async def read(client: Any, offer: Offer, *, whole: bool) -> Story:
    """Ask for what the picture has not: the versions and the template only if `whole`. What may not be seen, or is not
    to be had, is left out."""
    model = offer.model
    if model is None:
        return Story(offer)
    story = Story(offer, (model,), await _plan(client, model))
    if model.versions > 1:
        story = story._replace(versions=await _or(client.catalog.versions(model.name), [model]))
    story = story._replace(loads=await _loads(client, model), bench=await _bench(client, model))
    if whole and model.template_sha256:
        found = await _or(client.catalog.template(model.reference), None)
        story = story._replace(template=found["template"] if found else None)
    return story


async def _plan(client: Any, model: Model) -> Plan | str:
    try:
        plan: Plan = await client.fit(DeploymentSpec(name="fit", model=model.reference))
    except CorralError as error:
        return spoken(error)
    return plan


async def _loads(client: Any, model: Model) -> Sequence[LoadTime] | None:
    found: Sequence[LoadTime] | None = await _or(client.tiers.loads(model.reference), None)
    return found


async def _bench(client: Any, model: Model) -> Bench | None:
    found: Sequence[Bench] = await _or(client.choosing.benches(model.reference), ())
    return found[0] if found else None


async def _or(asked: Any, otherwise: Any) -> Any:
    try:
        found = await asked
    except CorralError:
        return otherwise
    return otherwise if found is None else found


# ---------------------------------------------------------------------------------------- as lines


def short(story: Story, width: int, ascii: bool = False) -> list[str]:
    """What the pane below the list shows."""
    model = story.offer.model
    if model is None:
        return list(_entry(story.offer, width, whole=False))
    out = [_head(story.offer, width - 1), *_absent(model)]
    out += _versions(story.versions, width, ascii, most=FEW)
    out += [_header(model), *_flags(model)[:FEW], *memory(story.plan, width), *_loading(story.loads, width)]
    out += brief(story.bench, ascii)
    return [line(each) for each in out if each]


def whole(story: Story, width: int, ascii: bool = False) -> str:
    """What the screen of its own shows."""
    offer, model = story.offer, story.offer.model
    if model is None:
        return "\n".join(line(each) for each in _entry(offer, width, whole=True))
    out = [_head(offer), *_absent(model), "", *_versions(story.versions, width, ascii), ""]
    out += [_header(model), f"from {model.origin}, {moment(model.imported_at)} by {model.imported_by}"]
    out.append(f"files {', '.join(f'{f.name} {size(f.bytes)}' for f in model.files) or '-'}")
    if model.projector is not None:
        out.append(f"projector {model.projector.name} {size(model.projector.bytes)}")
    if model.adapters:
        out.append(f"adapters {', '.join(each.name for each in model.adapters)}")
    if model.defaults:
        out.append("defaults " + " ".join(f"{key}={value:g}" for key, value in model.defaults.items()))
    if model.notes:
        out.append(f"notes {model.notes}")
    out += ["", *memory(story.plan, width), *_loading(story.loads, width), ""]
    out += [*chart(story.bench, width, ascii), ""] if story.bench is not None else []
    out += _template(story, model)
    if offer.entry is not None:
        out += ["", "In the catalogue:", *(f"  {each}" for each in _entry(offer, width - 2, whole=True))]
    return plain("\n".join(out))


def _head(offer: Offer, width: int = 0) -> str:
    """What it is; in `width` cells, where that is said, what there is no room for is left out whole."""
    model = offer.model
    assert model is not None
    names = f" ({', '.join(model.aliases)})" if model.aliases else ""
    label = f" {model.label}" if model.label else ""
    count = f", {model.versions} versions" if model.versions > 1 else ""
    away = ", AWAY" if width and model.state == "away" else ""
    out = f"{model.reference}{label}{names}{away}{count}, licence {cut(offer.licence or 'not stated', SAID)}"
    for n, use in enumerate(offer.uses):
        more = f", {'for ' if n == 0 else ''}{use}"
        if width and len(out + more) > width:
            break
        out += more
    return out


def _absent(model: Model) -> list[str]:
    """Why it cannot be started now."""
    return [f"! it is {unwhole(model)}"] if model.state != "stored" else []


def _versions(found: Sequence[Model], width: int, ascii: bool, most: int = 0) -> list[str]:
    if len(found) < 2:
        return []
    shown = sorted(found, key=lambda each: -each.version)
    if most and len(shown) > most:  # those that something means come first
        shown = sorted(shown, key=lambda each: (not each.aliases, -each.version))[:most]
    rows: list[list[str]] = [["version", "aliases", "state", "size", "quant", "tier", "imported", "by", "label"]]
    for m in shown:
        names, how = " ".join(m.aliases) or "-", state(m.state, ascii) + ("!" if m.flags else "")
        of = (m.shape.quantization, m.tier, moment(m.imported_at), m.imported_by, m.label)
        rows.append([line(cell) for cell in (f"@{m.version}", names, how, size(m.bytes), *of)])
    lines = fitted(rows, width, ("by", "imported", "tier", "quant"), "..." if ascii else "…")
    return [*lines, f"and {len(found) - len(shown)} more: enter shows all"] if len(shown) < len(found) else lines


def _header(model: Model) -> str:
    shape = model.shape
    experts = f", {shape.n_expert} experts" if shape.n_expert else ""
    return (
        f"{shape.arch}, {params(shape.n_params)} parameters, {shape.n_layer} layers of {shape.n_embd}{experts},"
        f" vocabulary {shape.n_vocab}, trained with {shape.ctx_train} tokens of context, sha256 {model.sha256[:16]}"
    )


def _flags(model: Model) -> list[str]:
    if model.flags:
        return [f"! {each}" for each in model.flags]
    return [] if model.template_sha256 or model.shape.chat_template else ["it has no chat template"]


def _template(story: Story, model: Model) -> list[str]:
    if not model.template_sha256:
        return ["It has no chat template"]
    whose = "of its own" if model.own_template else "of its file"
    out = [f"Chat template {whose}, sha256 {model.template_sha256[:16]}", *(f"! {each}" for each in model.flags)]
    if story.template is None:
        return [*out, "its text was not read"]
    return [*out, *(f"  | {each}" for each in visible(story.template).split("\n"))]


# ---------------------------------------------------------------------------------------- loading


def _loading(loads: Sequence[LoadTime] | None, width: int) -> list[str]:
    if not loads:
        return []
    told = []
    for each in loads:
        words = [
            f"{lasting(value)} {what}"
            for value, what in (
                (each.cold_s, "cold"), (each.warm_s, "warm"), (each.measured_s, "measured"),
            )
            if value is not None
        ]  # fmt: skip
        told.append(f"{each.tier}{' (here)' if each.here else ''} {', '.join(words) or 'not measured'}")
    return [f"loads from {'; '.join(told)}"]


# ---------------------------------------------------------------------------------------- the catalogue


def _entry(offer: Offer, width: int, *, whole: bool) -> Iterator[str]:
    entry, fit = offer.entry, offer.fit
    if entry is None:
        return
    stored = "not stored, " if offer.model is None else ""
    yield f"{entry.title or entry.name}: {stored}for {', '.join(entry.uses) or 'not known'}"
    active = f", {params(entry.active_params)} active" if 0 < entry.active_params < entry.params else ""
    yield (
        f"{params(entry.params)} parameters{active}, made for {entry.ctx or '?'} tokens of context, licence"
        f" {entry.licence or 'not known'}"
    )
    if fit is not None and fit.plan_bytes and not fit.stored:
        does = "fits here" if fit.fits else "DOES NOT FIT here, nor does any other of its files"
        copied = f", of it {size(fit.repack_bytes)} a copy of the weights for the CPU" if fit.repack_bytes else ""
        yield f"{fit.quantization} {does}: a replica reserves {size(fit.plan_bytes)}{copied}"
    yield f"pulled from hf:{entry.repo}" if entry.repo else "where to pull it from is not known"
    numbers = {source: n for n, source in enumerate(entry.sources, 1)}
    if entry.files:
        yield "files: " + ", ".join(
            f"{'~' if each.computed else ''}{size(each.bytes)} {each.quantization}" for each in entry.files
        )
    yield from _scores(entry, numbers if whole else {})
    if entry.unknown:
        yield f"not known: {', '.join(entry.unknown)}"
    if entry.notes:
        yield entry.notes
    if whole:
        yield from _sources(numbers)


def _scores(entry: CatalogueEntry, numbers: dict[Source, int]) -> Iterable[str]:
    told = []
    for each in entry.scores:
        variant = f" ({each.variant})" if each.variant else ""
        mark = f" [{numbers[each.source]}]" if each.source is not None and each.source in numbers else ""
        told.append(f"{each.use}: {each.benchmark}{variant} {each.value:g} of {each.of:g}{mark}")
    if numbers:
        return [f"  {each}" for each in told]
    more = f" and {len(told) - 3} more {plural(len(told) - 3, 'score')}" if len(told) > 3 else ""
    return [f"scores: {'; '.join(told[:3])}{more}"] if told else []


def _sources(numbers: dict[Source, int]) -> Iterable[str]:
    for source, n in numbers.items():
        yield f"[{n}] {source.what} {source.path} @ {source.commit_or_date}"
