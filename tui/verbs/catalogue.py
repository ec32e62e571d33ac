"""The curated list: which models there are for which use, and where each figure was read."""

from __future__ import annotations

import asyncio

import click

from core.client import Client
from core.errors import CorralError
from core.nouns import USES, Catalogue, CatalogueEntry, CatalogueFile, Score, Source
from tui.command import COMPLETION_S, Nouns, filled, note, options, run, with_options
from tui.lines import as_json, say, table
from tui.plain import line, plain
from tui.words import size


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_S):
            client = await Client.connect(start=False)
            return [each.name for each in (await client.curated.read()).entries]

    try:
        return [plain(name) for name in asyncio.run(names()) if name.startswith(incomplete)]
    except (CorralError, TimeoutError):
        return []


@click.group(cls=Nouns, invoke_without_command=True)
@click.option("--for", "use", type=click.Choice(USES), help="only what is for this")
@with_options
@click.pass_context
def catalogue(context: click.Context, use: str | None) -> None:
    """The curated list of models, with sourced figures.

    `show NAME` tells where each figure was read. Own entries: docs/catalogue.md.
    """
    if context.invoked_subcommand is not None:
        if use:
            raise click.UsageError("--for goes with the list, not with a verb")
        return
    found = run(lambda client: client.curated.read(use or ""))
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found.entries:
            say(line(each.name))
    else:
        _list(found, use)
    if options().json or options().quiet:
        return
    for problem in found.problems:
        at = f"{problem.file}:{problem.line}" if problem.line else problem.file
        note(f"{at}: {problem.what} ({problem.why})" + (f"; {problem.todo}" if problem.todo else ""))


@catalogue.command("show")
@click.argument("name", callback=filled, shell_complete=_names)
@with_options
def show(name: str) -> None:
    """All that is known of one model, and where it was read."""
    entry = run(lambda client: client.curated.entry(name))
    if options().json:
        as_json(entry)
    else:
        _show(entry)


def _list(found: Catalogue, use: str | None) -> None:
    if not found.entries:
        say(f"nothing in the catalogue is for {use}" if use else "the catalogue is empty")
    marked = any(_marks(each) for each in found.entries)
    table(
        ("NAME", "PARAMS", "CONTEXT", "SMALLEST FILE", "LICENCE", *(("MARK",) if marked else ()),
         "SCORE" if use else "FOR"),
        [
            (each.name, _params(each), each.ctx or "?", _smallest(each), each.licence or "?",
             *((_marks(each),) if marked else ()), _scores(each, use) if use else ", ".join(each.uses))
            for each in found.entries
        ],
        spare=("LICENCE", "CONTEXT", "PARAMS", "MARK"),
    )  # fmt: skip
    if any(each.files and _least(each).computed for each in found.entries):
        say("~ computed of the shape, not read")
    if use and (told := found.advice.get(use)):
        what = f"plain advice for {use}: {told.family}" if told.family else f"no plain advice for {use}"
        say(f"{what} ({told.reason}); figures may overrule it")


def _show(entry: CatalogueEntry) -> None:
    numbers = {source: f"[{number}]" for number, source in enumerate(entry.sources, 1)}

    def told(value: object, figure: str, empty: bool = False) -> str:
        if empty:
            return "not known"
        if figure in entry.computed:
            return f"{value} (computed)"
        source = entry.licence_source if figure == "licence" else entry.cited.get(figure)
        mark = numbers[source] if source else "(unsourced)"
        return f"{value} {mark}"

    for key, value in (
        ("name", entry.name), ("title", entry.title), ("family", entry.family),
        ("for", told(", ".join(entry.uses), "uses")),
        ("parameters", told(_count(entry.params), "params", not entry.params)),
        ("active", told(_count(entry.active_params), "active_params", not entry.active_params)),
        ("context", told(entry.ctx, "ctx", not entry.ctx)),
        ("licence", told(entry.licence, "licence", not entry.licence)),
        ("pull", told(f"hf:{entry.repo}", "repo", not entry.repo)),
        ("shape", told(_shape(entry), "shape", entry.shape is None)),
        ("template", told(f"sha256 {entry.template_sha256[:16]}…", "template", not entry.template_sha256)),
        ("not known", ", ".join(entry.unknown) or "-"),
        *((("mark", _marks(entry)),) if _marks(entry) else ()),
        *((("note", entry.notes),) if entry.notes else ()),
    ):  # fmt: skip
        say(f"{key:<12} {line(value)}")
    for each in entry.files:
        mark = "computed of the shape, without what lies before the tensors" if each.computed else _of(each, numbers)
        say(f"{'file':<12} {line(each.quantization):<8} {size(each.bytes):>10} = {each.bytes} bytes, {mark}")
    for score in entry.scores:
        how = f" ({line(score.variant)})" if score.variant else ""
        said = f"{line(score.benchmark)}{how}: {score.value:g} of {score.of:g} {_of(score, numbers)}"
        say(f"{'score':<12} {score.use}: {said}")
    for source, number in numbers.items():
        path = f" {line(source.path)}" if source.path else ""
        say(f"{number:<12} {line(source.what)}{path} @ {line(source.commit_or_date)}")


def _of(figure: CatalogueFile | Score, numbers: dict[Source, str]) -> str:
    return numbers[figure.source] if figure.source else "(unsourced)"


def _shape(entry: CatalogueEntry) -> str:
    shape = entry.shape
    if shape is None:
        return ""
    experts = f", {shape.n_expert} experts" if shape.n_expert else ""
    return f"{shape.arch}, {shape.n_layer} layers of {shape.n_embd}{experts}, vocabulary {shape.n_vocab}"


def _count(params: int) -> str:
    return f"{params / 1e9:.1f} B" if params >= 1e9 else f"{params / 1e6:.0f} M"


def _params(entry: CatalogueEntry) -> str:
    if not entry.params:
        return "?"
    few = 0 < entry.active_params < entry.params
    return _count(entry.params) + (f", {_count(entry.active_params)} active" if few else "")


def _least(entry: CatalogueEntry) -> CatalogueFile:
    return min(entry.files, key=lambda each: each.bytes)


def _smallest(entry: CatalogueEntry) -> str:
    if not entry.files:
        return "?"
    least = _least(entry)
    return f"{'~' if least.computed else ''}{size(least.bytes)} {least.quantization}"


def _scores(entry: CatalogueEntry, use: str) -> str:
    there = [f"{each.benchmark} {each.value:g}" for each in entry.scores if each.use == use]
    return ", ".join(there) or "not known"


def _marks(entry: CatalogueEntry) -> str:
    return ", ".join((*(("own",) if entry.own else ()), *(("unsourced",) if entry.unsourced else ())))
