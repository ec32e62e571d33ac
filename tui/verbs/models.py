"""Models: import, list, show, remove; and the memory plan."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from core.client import Client
from core.errors import CorralError, Failed, Invalid, NotFound, from_body
from core.nouns import DeploymentSpec, ImportJob, ImportOptions, Model, Plan, Speed, Split
from tui.amounts import Size, Tokens, Whole
from tui.columns import CELL
from tui.command import Spread, Told, filled, given_up, named, options, run, with_options
from tui.lines import Progress, agreed, as_json, ask, bounded, note_ctx, say, table, tell
from tui.plain import line
from tui.rights import unseen
from tui.verbs.arrived import arrived
from tui.words import age, lasting, moment, removal, size, unwhole

ENDED = ("done", "failed", "cancelled")
LONGEST = 1 << 20
"""Characters of a chat template's file that are read: more than the daemon takes, and less than harms."""


class Models(Spread):
    ELSEWHERE = {
        **dict.fromkeys(("versions", "alias", "diff", "history", "template", "note", "gc", "verify"), "versions"),
        **dict.fromkeys(("move", "moves", "loads"), "moves"),
        "catalogue": "catalogue",
        "corrections": "sizes",
        "bench": "modelbench",
        "recommend": "choosing",
        **dict.fromkeys(("pull", "pulls"), "pull"),
        "fits": "fits",
    }


@click.group(cls=Models, invoke_without_command=True)
@with_options
@click.pass_context
def models(context: click.Context) -> None:
    """Import, list, show and remove models and their versions.

    Without a verb: the same as `corral models ls`.
    """
    if context.invoked_subcommand is None:
        context.invoke(ls)


@models.command("ls")
@with_options
@click.option("--versions", is_flag=True, help="every version, not only what each name means")
def ls(versions: bool = False) -> None:
    """The models there are."""

    async def work(client: Client) -> tuple[list[Model], str]:
        found = await (client.catalog.all() if versions else client.models())
        return found, "" if found else unseen(await client.access.whoami(), "models.read", "models")

    found, barred = run(work)
    if options().json:
        as_json(found)
    elif options().quiet:
        for model in found:
            say(line(model.reference if versions else model.name))
    elif barred:
        say(f"{barred}: ask an admin, `corral access grant models.read user:NAME --scope 'model:*'`")
    elif not found:
        say("no models yet: corral models sample, models import FILE, or models pull hf:ORG/REPO")
    else:
        table(
            ("NAME", "VERSION", "SIZE", "QUANT", "ARCH", "CONTEXT", "LICENCE", "IMPORTED"),
            [
                (m.name, _which(m), size(m.bytes), bounded(m.shape.quantization, CELL), bounded(m.shape.arch, CELL),
                 m.shape.ctx_train, bounded(m.licence or "-", CELL), age(m.imported_at))
                for m in found
            ],
            spare=("LICENCE", "CONTEXT", "ARCH", "QUANT", "IMPORTED", "VERSION"),
        )  # fmt: skip
        for model in found:
            if model.state != "stored":
                say(f"! {line(model.reference)} is {line(unwhole(model))}")


@models.command("show")
@click.argument("name", shell_complete=named("models"))
@with_options
def show(name: str) -> None:
    """All that is known of a model, or of one version: `chat`, `chat:previous`, `chat@3`."""
    model, loads = run(lambda client: _with_loads(client, name))
    if options().json:
        as_json(model)
        return
    shape = model.shape
    for key, value in (
        ("name", model.name), ("version", model.version), ("sha256", model.sha256), ("size", size(model.bytes)),
        ("label", model.label or "-"), ("aliases", ", ".join(model.aliases) or "none"), ("state", unwhole(model)),
        ("tier", model.tier), ("files", ", ".join(f.name for f in model.files)),
        *((("projector", model.projector.name),) if model.projector else ()),
        *((("adapters", ", ".join(a.name for a in model.adapters)),) if model.adapters else ()),
        *((("defaults", " ".join(f"{k}={v:g}" for k, v in model.defaults.items())),) if model.defaults else ()),
        ("architecture", bounded(shape.arch)),
        ("parameters", f"{shape.n_params / 1e6:.0f} M"), ("quantisation", shape.quantization),
        *((("repacked", f"{size(shape.repack_bytes)}: the CPU gets a copy"),) if shape.repack_bytes else ()),
        ("layers", shape.n_layer), ("context", shape.ctx_train), ("vocabulary", shape.n_vocab),
        ("chat template", _template(model)), ("licence", bounded(model.licence or "not stated")),
        ("origin", model.origin), ("imported", f"{moment(model.imported_at)} by {model.imported_by}"),
        *((("notes", model.notes),) if model.notes else ()),
        *(("loads", words) for words in loads),
    ):  # fmt: skip
        say(f"{key:<14} {line(value)}")
    for flag in model.flags:
        say(f"! {line(flag)}")


async def _with_loads(client: Client, name: str) -> tuple[Model, list[str]]:
    """A version, and how long it takes to load from each tier that was measured, or that it was launched from."""
    model = await client.model(name)
    try:
        found = await client.tiers.loads(name)
    except CorralError:  # it is told without
        return model, []
    words = []
    for each in found:
        told = [
            f"{what} expected {lasting(s)}"
            for what, s in (("cold", each.cold_s), ("warm", each.warm_s))
            if s is not None
        ]
        told += [f"measured {each.measured_s:.2f} s"] if each.measured_s is not None else []
        words += [f"from {each.tier}: {', '.join(told)}"] if told else []
    return model, words


@models.command("import")
@click.argument("path", callback=filled)
@click.option("--name", callback=filled, help="default: from the file's name; of a name that is there, a new version")
@click.option("--label", default="", help="what people call this version")
@click.option("--notes", default="", help="what they should know of it")
@click.option("--licence", default="", help="where the file says none, or another")
@click.option("--live", is_flag=True, help="the name means this version from now on (a first one always is)")
@click.option("--projector", callback=filled, help="a GGUF file for pictures or sound, beside the model")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    callback=filled,
    help="a LoRA adapter that it is served with; again for more",
)
@click.option("--template", "template_file", callback=filled, help="a file with another chat template")
@click.option("--default", "defaults", multiple=True, help="as temperature=0.7, where a request says nothing")
@with_options
def import_(
    path: str, name: str | None, label: str, notes: str, licence: str, live: bool, projector: str | None,
    adapters: tuple[str, ...], template_file: str | None, defaults: tuple[str, ...],
) -> None:  # fmt: skip
    """Import a GGUF file, or a folder with one complete model.

    A name that is there gets a new version; which one it means, `corral models alias NAME live N` says.
    """
    whole = Path(path).absolute()
    if not whole.exists() and (path.startswith("hf:") or "://" in path):
        raise click.UsageError(f"that is no file here: corral models pull {path}")
    given = ImportOptions(
        label=label, notes=notes, licence=licence, live=live, template=_text(template_file), defaults=_numbers(defaults)
    )
    beside = [str(Path(each).absolute()) for each in adapters]
    picture = str(Path(projector).absolute()) if projector else ""
    run(lambda client: import_and_follow(client, whole, name, given, picture, beside))


async def import_and_follow(
    client: Client, whole: Path, name: str | None, given: ImportOptions, projector: str = "",
    adapters: Sequence[str] = (),
) -> None:  # fmt: skip
    """Import a file or folder and show it until it ends."""
    sending = Progress(f"send {line(whole.name)}")
    try:
        job = await client.import_model(
            str(whole), name, sending.show, options=given, projector=projector, adapters=adapters
        )
    except asyncio.CancelledError:
        sending.end()
        given_up(f"the import of {whole.name} was cancelled: nothing of it is kept")
        raise
    finally:
        sending.end()
    await _follow(client, job)


@models.command("sample")
@click.option("--name", callback=filled, help="default: smollm2-135m")
@with_options
def sample(name: str | None) -> None:
    """Import the sample model (98 MB, Apache-2.0).

    It is SmolLM2-135M-Instruct.
    """

    async def work(client: Client) -> Model | None:
        there = next((each for each in await client.models() if each.origin == "sample"), None)
        if there is not None and name in (None, there.name):
            return there
        await _follow(client, await client.import_sample(name))
        return None

    if there := run(work):
        tell(there, f"{line(there.name)} is here already; next: corral deploy {line(there.name)}")


@models.command("rm")
@click.argument("name", shell_complete=named("models"))
@with_options
def rm(name: str) -> None:
    """Remove a model and its files, or one version: `chat@3`."""

    async def meant(client: Client) -> Sequence[Model]:
        model = await client.model(name)  # before anything is asked
        return await client.catalog.versions(name) if name == model.name else [model]

    def asked() -> list[str]:
        found = run(meant)
        seen = [each.reference for each in found]
        ask(f"Remove {line(removal(name, found))}?")
        return seen

    def remove(seen: list[str]) -> None:
        run(lambda client: client.remove_model(name, None if options().yes else seen))

    agreed(asked, remove)
    tell({"removed": name}, f"removed {line(name)}")


def _which(model: Model) -> str:
    """Its number, and how many there are."""
    return f"{model.version}" if model.versions == 1 else f"{model.version} of {model.versions}"


def _template(model: Model) -> str:
    if not model.template_sha256:
        return "yes" if model.shape.chat_template else "no"
    whose = "of its own" if model.own_template else "of its file"
    return f"{whose}, sha256 {model.template_sha256[:16]}…"


def _text(file: str | None) -> str:
    """What the file of a template says. Raises `Told`."""
    if file is None:
        return ""
    try:
        with Path(file).open(encoding="utf-8") as read:
            found = read.read(LONGEST + 1)
    except FileNotFoundError:
        raise Told(NotFound(f"{file} is not there", "", "name a file with a chat template")) from None
    except UnicodeError:
        raise Told(Invalid(f"{file} is no chat template", "it is not UTF-8")) from None
    except OSError as error:
        raise Told(Invalid(f"{file} cannot be read", error.strerror or str(error))) from error
    if len(found) > LONGEST:
        raise Told(Invalid(f"{file} is no chat template", f"it is longer than {LONGEST >> 20} MiB"))
    return found


def _numbers(given: tuple[str, ...]) -> dict[str, float]:
    """From `temperature=0.7`."""
    found = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise click.BadParameter(f"{each!r} is not NAME=NUMBER", param_hint="--default")
    return found


def _cut(job: ImportJob) -> str:
    """What became of an import that ctrl+c came into."""
    if job.model is not None:
        return f"{job.model.reference} was imported already"
    if job.state in ENDED:
        return f"the import of {job.name} was {job.state}: nothing of it is kept"
    return f"the import of {job.name} is being cancelled: nothing of it will be kept"


async def _follow(client: Client, job: ImportJob) -> None:
    """Show an import until it ends; ctrl+c cancels it and leaves nothing."""
    progress = Progress(f"import {line(job.name)}")
    try:
        while job.state not in ENDED:
            progress.show(job.bytes_done, job.bytes_total)
            await asyncio.sleep(0.1)
            job = await client.import_job(job.id)
    except asyncio.CancelledError:
        job = await client.cancel_import(job.id)
        progress.end()
        given_up(_cut(job))
        raise
    finally:
        progress.end()
    if job.error is not None:
        raise from_body(job.error)
    if job.state != "done" or job.model is None:
        raise Failed(f"the import was {job.state}")
    if options().json:
        as_json(job.model)
    elif options().quiet:
        say(line(job.model.name))
    else:
        arrived("imported", job.model, job.stored_bytes)
        if job.spilled:
            say(line(f"it came to lie in {job.model.tier}: {'; '.join(job.spilled)}"))


@click.command()
@click.argument("model", callback=filled, shell_complete=named("models"))
@click.option("--ctx", default=0, help="total context cells (default: 4096 a slot)")
@click.option("--parallel", default=1, help="conversations at once")
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16")
@click.option(
    "--engine", default="xllamacpp", shell_complete=named("engines"), help="engines differ in what they take",
    show_default=True,
)  # fmt: skip
@click.option("--memory", type=Size(), default="0", help="hard limit, e.g. 2G")
@click.option("--embedding", is_flag=True, help="as a deployment that serves /v1/embeddings")
@click.option("--gpu", "gpus", type=Size(), multiple=True, help="memory free of a GPU, e.g. 24G; once for each")
@click.option("--gpu-layers", type=Whole(0, 1 << 16), help="with --gpu: the last so many layers (default: the most)")
@click.option("--cpu-moe", type=Whole(0, 1 << 16), help="with --gpu: layers whose experts stay in the host")
@click.option("--threads", default=0, help="default: what a replica gets now")
@click.option("--users", type=Whole(1, 256), help="who ask at once (default: as many as --parallel)")
@click.option("--prompt", type=Tokens(), default="512", show_default=True, help="tokens of a question")
@with_options
def fit(
    model: str, ctx: int, parallel: int, cache_type: str, engine: str, memory: int, embedding: bool,
    gpus: tuple[int, ...], gpu_layers: int | None, cpu_moe: int | None, threads: int, users: int | None, prompt: int,
) -> None:  # fmt: skip
    """The memory a replica would need, whether it fits, and how fast it would be.

    Exit 5 if it does not fit now. With --gpu also how it would lie over GPUs.
    """
    if not gpus and (gpu_layers is not None or cpu_moe is not None):
        raise click.UsageError("--gpu-layers and --cpu-moe go with --gpu")
    if engine == "attach":
        raise click.UsageError("a server that is attached takes no memory of this host")
    spec = DeploymentSpec(
        name="fit", model=model, ctx=ctx, parallel=parallel, cache_type=cache_type,  # type: ignore[arg-type]
        engine=engine, memory=memory, embedding=embedding, threads=threads,
    )  # fmt: skip

    async def both(client: Client) -> tuple[Plan, Speed | None]:
        plan = await client.fit(spec, gpus, gpu_layers, cpu_moe)
        return plan, await client.choosing.speed(spec, users or 0, prompt) if plan.rss_bytes else None

    plan, speed = run(both)
    note_ctx(ctx, plan.ctx)
    if options().json:
        as_json({**msgspec.to_builtins(plan), "speed": msgspec.to_builtins(speed)})
    else:
        print_plan(plan)
        if speed is not None:
            from tui.speed import told

            for words in told(speed):
                say(words)
    if not plan.fits:
        raise click.exceptions.Exit(5)


def print_plan(plan: Plan) -> None:
    parts = plan.parts
    for what, amount in (
        ("weights", parts.weights), ("KV cache", parts.kv_cache), ("compute", parts.compute),
        ("repacked", parts.repack), ("output", parts.output), ("base", parts.base),
        *((what, amount) for what, amount in (
            ("states", parts.state), ("kept", parts.checkpoints), ("projector", parts.projector),
            ("pictures", parts.pictures), ("adapters", parts.adapters), ("learned", parts.learned),
        ) if amount),
    ):  # fmt: skip
        why = "   a copy of the weights in the CPU's own order" if what == "repacked" and amount else ""
        say(f"{what:<10} {('-' if amount < 0 else '') + size(abs(amount)):>10}{why}")
    if plan.margin:
        say(f"all but the weights is a bound, {plan.margin:.0%} above what is expected")
    say(f"{'in use':<10} {size(plan.rss_bytes):>10}   after a first long prompt; {size(plan.ready_bytes)} just ready")
    most = "with every slot busy and each context full, beside earlier prompts"
    say(f"{'at most':<10} {size(plan.full_bytes):>10}   {most}")
    in_all = "what it may take in all: that with 5 %, 32 MiB and the engine's cache of earlier prompts"
    say(f"{'reserved':<10} {size(plan.plan_bytes):>10}   {in_all}")
    say(f"ctx {plan.ctx} = {plan.parallel} x {plan.ctx_per_slot} per conversation, cache {plan.cache_type}")
    say(("fits: " if plan.fits else "does not fit: ") + line(plan.reason))
    if plan.nearest is not None:
        near = plan.nearest
        say(f"would fit: --ctx {near.ctx} --parallel {near.parallel} --cache-type {near.cache_type}")
    for note in plan.notes:
        say(f"note: {line(note)}")
    if plan.split is not None:
        _print_split(plan.split)


def _print_split(split: Split) -> None:
    moe = f", the experts of {split.cpu_moe} layers in the host" if split.cpu_moe else ""
    fits = "fits" if split.fits else "does not fit"
    basis = "as measured on one GPU" if split.measured else "llama.cpp's rules; not measured like this"
    say(f"over GPUs: {split.gpu_layers} layers there{moe}: {fits} ({basis})")
    table(
        ("DEVICE", "LAYERS", "WEIGHTS", "CACHE", "COMPUTE", "OTHER", "TOTAL", "FREE", ""),
        [
            (each.device, each.layers, *map(size, (each.weights, each.kv_cache, each.compute, each.other, each.total)),
             size(max(0, each.free_bytes)), "" if each.fits else "too little")
            for each in split.devices
        ],
        spare=("OTHER", "COMPUTE", "LAYERS"),
    )  # fmt: skip
