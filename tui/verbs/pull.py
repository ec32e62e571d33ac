"""Pulling models: from a hub, an address, a file or folder; and what becomes of the pulls under way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from core.client import Client
from core.errors import Failed, NoDaemon, from_body
from core.nouns import PULL_ENDED, DeploymentSpec, ImportOptions, Pull, PulledDeploy, PullPlan
from tui.amounts import Size, Whole
from tui.command import Nouns, Told, filled, goes_on, named, note, options, run, with_options
from tui.lines import Passing, as_json, bounded, listed, say, table, tell
from tui.plain import line
from tui.verbs.arrived import arrived
from tui.words import age, params, size

HOW = ("parallel", "engine", "threads", "memory", "cache_type", "replicas", "embedding", "rerank", "tier")
"""Options that say how to deploy it."""
LOOK_S = 0.5
"""Between two looks at a pull that is followed."""
STILL = (*PULL_ENDED, "paused", "needs token")
"""States in which a pull goes on by itself no more."""


@click.command()
@click.argument("source", callback=filled)
@click.option(
    "--name", callback=filled, help="default: the repository's or file's; of one that is there, a new version"
)
@click.option("--list", "only_list", is_flag=True, help="show what there is and what fits, and pull nothing")
@click.option(
    "--ctx",
    type=Whole(0, 1 << 24),
    default=0,
    help="cells that memory is planned for (default: 4096); with --deploy those of a replica, as `corral deploy --ctx`",
)
@click.option("--limit", type=Size(), default="0", help="at most so many bytes a second, e.g. 20M")
@click.option("--sha256", default="", help="that the file of an address must have")
@click.option(
    "--projector", is_flag=False, flag_value="auto", default="",
    help="take along what the model sees pictures or hears with; or the name of its file",
)  # fmt: skip
@click.option(
    "--deploy", "deployed", callback=filled, metavar="NAME",
    help="deploy it under this name when it is here; the daemon does, by the rights that you have then",
)  # fmt: skip
@click.option("--parallel", type=Whole(1, 256), default=1, help="with --deploy: conversations at once")
@click.option("--engine", callback=filled, shell_complete=named("engines"), help="with --deploy")
@click.option("--threads", type=Whole(0, 1024), default=0, help="with --deploy: as of `corral deploy`")
@click.option("--memory", type=Size(), default="0", help="with --deploy: hard limit of private memory, e.g. 2G")
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16", help="with --deploy")
@click.option("--replicas", type=Whole(0, 64), default=1, help="with --deploy")
@click.option("--embedding", is_flag=True, help="with --deploy: serve /v1/embeddings")
@click.option("--rerank", is_flag=True, help="with --deploy: serve /v1/rerank")
@click.option("--tier", callback=filled, shell_complete=named("tiers"), help="with --deploy: where it must lie")
@click.option("--replace", is_flag=True, help="with --deploy: change a deployment that exists")
@click.option("--detach", is_flag=True, help="begin it and come back at once")
@click.option("--label", default="", help="what people call this version")
@click.option("--notes", default="", help="what they should know of it")
@click.option("--live", is_flag=True, help="the name means this version from now on (a first one always is)")
@with_options
def pull(
    source: str, name: str | None, only_list: bool, ctx: int, limit: int, sha256: str, projector: str,
    deployed: str | None, detach: bool, label: str, notes: str, live: bool, replace: bool, **how: Any,
) -> None:  # fmt: skip
    """Pull a model: hf:ORG/REPO[:QUANT], an https address, or a file or folder here.

    Without a quantisation the best that fits is taken: --list shows why. A token is read from HF_TOKEN, HF_TOKEN_PATH
    or where `hf auth login` keeps it. The pull is the daemon's: it goes on when this ends (ctrl+c too), and over
    restarts, and so is what --deploy says: `corral models pulls` shows both, `cancel` and `undeploy` end them.
    """
    _check_how(deployed, replace)
    import_options = ImportOptions(label=label, notes=notes, live=live)
    if not remote(source):
        if projector:
            raise click.UsageError("of files here, `corral models import FILE --projector FILE` takes one along")
        if ctx or limit or sha256 or detach:
            raise click.UsageError("--ctx, --limit, --sha256 and --detach are for a repository or an address")
        if deployed:
            raise click.UsageError("--deploy is for a repository or an address: of files here, `corral deploy` later")
        _import(source, name, import_options, only_list)
        return
    if only_list:
        _list(source, ctx)
        return
    meant: dict[str, Any] = {}
    if deployed:
        how["engine"], how["tier"] = how["engine"] or "xllamacpp", how["tier"] or ""
        spec = DeploymentSpec(name=deployed, model=name or "pulled", ctx=ctx, **how)
        meant = {"deploy": {"spec": spec, "replace": replace}}

    async def work(client: Client) -> Pull:
        with Passing() as words:
            words.show(f"asking what {source} has")
            with goes_on("no longer waiting; whether it was begun, `corral models pulls` shows; `cancel ID` ends it"):
                begun = await client.pulls.begin(
                    source, name=name, ctx=ctx, limit=limit, sha256=sha256.lower(), options=import_options,
                    projector=projector, **meant,
                )  # fmt: skip
        return begun if detach else await _follow(client, begun)

    _say(run(work))


def _check_how(deployed: str | None, replace: bool) -> None:
    """What says how to deploy goes with --deploy."""
    context = click.get_current_context()
    given = [each for each in HOW if context.get_parameter_source(each) is ParameterSource.COMMANDLINE]
    if (given or replace) and not deployed:
        named = "--" + (given[0].replace("_", "-") if given else "replace")
        raise click.UsageError(f"{named} goes with --deploy NAME")


def remote(source: str) -> bool:
    """Whether it names something to pull, and no file here."""
    return source.startswith("hf:") or ("://" in source and not source.startswith("file://"))


def _import(source: str, name: str | None, given: ImportOptions, only_list: bool) -> None:
    """A file, folder or share: the same as an import."""
    from tui.verbs import models

    if only_list:
        raise click.UsageError("--list is for a repository or an address")
    whole = Path(source.removeprefix("file://")).absolute()
    run(lambda client: models.import_and_follow(client, whole, name, given))


def _list(source: str, ctx: int) -> None:
    async def work(client: Client) -> PullPlan:
        with Passing() as words:
            words.show(f"asking what {source} has")
            return await client.pulls.plan(source, ctx)

    plan = run(work)
    if options().json:
        as_json(plan)
        return
    if options().quiet:
        for choice in plan.choices:
            say(line(choice.quantization))
        return
    at = f" at {plan.revision[:12]}" if plan.revision else ""
    gated = ", gated" if plan.gated else ""
    say(f"{line(plan.source)}{at}: licence {bounded(plan.licence or 'not stated')}{gated}")
    if plan.architecture:
        say(f"{bounded(plan.architecture)}, {params(plan.params)} parameters")
    table(
        ("", "QUANT", "SIZE", "FILES", "MEMORY", "FITS", "WHY"),
        [
            (">" if c.chosen else "", c.quantization, size(c.bytes), len(c.files), size(c.need_bytes),
             "yes" if c.fits else "no", c.why)
            for c in plan.choices
        ],
        spare=("FILES", "WHY"),
    )  # fmt: skip
    planned = f"one conversation of {plan.ctx} cells" if plan.ctx else "their sizes alone"
    room = f"{size(plan.disk_bytes)} where new models land"
    say(f"{size(plan.left_bytes)} of memory are left, and {room}; planned for {planned}")
    say(line(plan.why))
    for each in plan.notes:
        say(f"note: {line(each)}")


async def _follow(client: Client, pull: Pull) -> Pull:
    """Show a pull until it goes on by itself no more; ctrl+c leaves it to the daemon."""
    told: tuple[str, ...] = ()
    with Passing() as words:
        try:
            while True:
                new = [each for each in pull.notes if each not in told]
                if new and not options().quiet and not options().json:
                    words.end()
                    for each in new:
                        note(each)
                told = pull.notes
                if pull.state in STILL and not (pull.state == "done" and pull.open and not _stuck(pull)):
                    break
                words.show(progress(pull))
                await asyncio.sleep(LOOK_S)
                pull = await client.pulls.get(pull.id)
        except NoDaemon as error:
            words.end()
            error.todo = f"pull {pull.id} goes on with the next daemon: corral models pulls"
            raise
        except asyncio.CancelledError:
            words.end()
            if not options().quiet:
                then = f", and is then deployed as {pull.deploy.spec.name}" if pull.deploy and pull.open else ""
                ends = f"`corral models pulls cancel {pull.id}` ends it"
                note(f"pull {pull.id} goes on{then}: corral models pulls; {ends}")
            raise
    return pull


def _stuck(pull: Pull) -> bool:
    """It is here, and what it is to be deployed as waits for more than a moment."""
    return pull.deploy is not None and pull.deploy.error is not None


def progress(pull: Pull) -> str:
    """How far it is, how fast and how long yet."""
    if pull.state != "pulling":
        return f"{pull.name}: {pull.state}"
    share = 100 * pull.bytes_done // max(1, pull.bytes_total)
    said = f"{pull.name}: {share} % of {size(pull.bytes_total)}"
    return said + (f", {size(pull.rate)}/s" if pull.rate else "") + (f", {left(pull)} left" if left(pull) else "")


def left(pull: Pull) -> str:
    """Time that it takes yet, in two units; "" while nobody knows."""
    if pull.left_s is None:
        return ""
    seconds = round(pull.left_s)
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


def _say(pull: Pull) -> None:
    """What became of it. Raises `Told` with why not."""
    if pull.error is not None and pull.state in STILL:
        error = from_body(pull.error)
        if pull.state == "paused":
            error.todo = error.todo or f"when that is mended: corral models pulls resume {pull.id}"

        async def fail(client: Client) -> None:
            raise error

        run(fail)
    if pull.state == "cancelled":
        note(f"pull {pull.id} of {line(pull.name)} was cancelled")
        raise click.exceptions.Exit(Failed.exit)
    _say_deployed(pull)
    if options().json:
        as_json(pull)
    elif options().quiet:
        say(line(pull.name if pull.model else pull.id))
    elif pull.model is None:
        say(f"pull {pull.id} of {line(pull.name)} is {pull.state}: {size(pull.bytes_total)}; see corral models pulls")
        if pull.deploy is not None:
            say(f"it is deployed as {line(pull.deploy.spec.name)} when it is here, with or without this terminal")
    else:
        done = pull.deploy is not None and pull.deploy.state == "done"
        how = "pulled" if pull.model.imported_at >= pull.started_at else "here already:"
        arrived(how, pull.model, sum(file.bytes for file in pull.files if file.stored), deployed=done)
        if pull.deploy is not None:
            name = line(pull.deploy.spec.name)
            say(f"{name} is being started: corral ps" if done and pull.deploy.changed else line(deploys(pull.deploy)))


def _say_deployed(pull: Pull) -> None:
    """Raises `Told` where it is here and could not be deployed."""
    if pull.deploy is None or pull.deploy.state != "failed" or pull.deploy.error is None:
        return
    error = from_body(pull.deploy.error)
    error.what = f"{pull.name} is here, and was not deployed as {pull.deploy.spec.name}: {error.what}"
    raise Told(error)


def deploys(wanted: PulledDeploy) -> str:
    """What becomes of what a pull is to be deployed as."""
    name, why = wanted.spec.name, f": {from_body(wanted.error)}" if wanted.error is not None else ""
    match wanted.state:
        case "waits":
            return f"deployed as {name} when it is here{why}"
        case "done":
            return f"was deployed as {name}" if wanted.changed else f"{name} is deployed just so already: corral ps"
        case "dropped":
            return f"not deployed as {name}"
    return f"NOT deployed as {name}{why}"


# -------------------------------------------------------------------------------------------- pulls


def _ls() -> None:
    found = run(lambda client: client.pulls.ls())
    listed(
        found, lambda p: p.id,
        ("ID", "NAME", "STATE", "DONE", "SIZE", "RATE", "LEFT", "QUANT", "BY", "SINCE", "SOURCE"),
        lambda p: (
            p.id, p.name, p.state, f"{100 * p.bytes_done // max(1, p.bytes_total)} %", size(p.bytes_total),
            f"{size(p.rate)}/s" if p.rate else "-", left(p) or "-", p.quantization or "-", p.owner, age(p.started_at),
            p.source,
        ),
        empty="nothing is being pulled: corral models pull hf:ORG/REPO",
    )  # fmt: skip
    if not options().json and not options().quiet:
        for each in found:
            if each.error is not None:
                say(f"! {each.id}: {line(str(from_body(each.error)))}")
            elif each.notes and each.state not in PULL_ENDED:
                say(f"{each.id}: {line(each.notes[-1])}")
            if each.deploy is not None:
                say(f"{'! ' if each.deploy.error is not None else ''}{each.id}: {line(deploys(each.deploy))}")


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def pulls(context: click.Context) -> None:
    """Pulls under way and lately ended: the same as `corral models pulls ls`."""
    if context.invoked_subcommand is None:
        _ls()


@pulls.command("ls")
@with_options
def ls() -> None:
    """Pulls under way and lately ended, the oldest first."""
    _ls()


@pulls.command("pause")
@click.argument("id", shell_complete=named("pulls"), callback=filled)
@with_options
def pause(id: str) -> None:
    """Let a pull rest; what is here of it stays."""
    _turned(run(lambda client: client.pulls.pause(id)))


@pulls.command("resume")
@click.argument("id", shell_complete=named("pulls"), callback=filled)
@click.option("--url", default="", help="its address again, where what follows the ? is needed")
@click.option("--limit", type=Size(), default=None, help="from now on at most so many bytes a second; 0: no cap")
@with_options
def resume(id: str, url: str, limit: int | None) -> None:
    """Let a pull go on, with the token that one that waits for it needs."""
    _turned(run(lambda client: client.pulls.resume(id, url, limit)))


@pulls.command("cancel")
@click.argument("id", shell_complete=named("pulls"), callback=filled)
@with_options
def cancel(id: str) -> None:
    """End a pull; nothing of it is left."""
    _turned(run(lambda client: client.pulls.cancel(id)))


@pulls.command("undeploy")
@click.argument("id", shell_complete=named("pulls"), callback=filled)
@with_options
def undeploy(id: str) -> None:
    """Leave a pull's model undeployed when it is here; the pull goes on."""
    pull = run(lambda client: client.pulls.undeploy(id))
    name = pull.deploy.spec.name if pull.deploy is not None else pull.name
    tell(pull, f"{line(name)} is not deployed; pull {pull.id} of {line(pull.name)} is {line(pull.state)}")


def _turned(pull: Pull) -> None:
    tell(pull, f"pull {pull.id} of {line(pull.name)} is {line(pull.state)}")
