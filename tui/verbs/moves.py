"""Moves of versions between tiers, and how long they take to load from each."""

from __future__ import annotations

import asyncio

import click

from core.client import Client
from core.errors import Failed, from_body
from core.nouns import LoadTime, MoveJob
from tui.command import filled, given_up, named, note, options, run, with_options
from tui.lines import Progress, as_json, ask, listed, say, tell
from tui.moving import along, back
from tui.plain import line
from tui.words import age, lasting, size

ENDED = ("done", "failed", "cancelled")
TIER = named("tiers")


@click.command()
@click.argument("model", shell_complete=named("models"))
@click.option("--to", required=True, callback=filled, shell_complete=TIER, help="the tier")
@click.option("--no-wait", is_flag=True, help="do not wait for its end; `corral models moves` shows it")
@click.option("--dry-run", is_flag=True, help="only tell where to, how much, and which versions go along")
@with_options
def move(model: str, to: str, no_wait: bool, dry_run: bool) -> None:
    """Move a version to another tier: `corral models move chat@3 --to fast`.

    It is copied, read back and compared, and only then is the old copy removed; what runs keeps that until it
    restarts. Versions that are made of the same bytes go along: they are named first, and asked about. Ctrl+c cancels
    it and leaves everything as it was.
    """
    plan = run(lambda client: client.tiers.move(model, to, move=False))
    same = ", ".join(map(line, plan.touches))
    if dry_run:
        with_it = ", ".join(map(line, (*plan.beside, *plan.touches))) or "nothing else"
        how = f"would go from {line(plan.from_tier)} to {line(plan.to_tier)}{_spilled(plan)}"
        told = f"{size(plan.bytes_total)} of {line(plan.model)} {how}; with it: {with_it}"
        tell(plan, "\n".join([told, *([line(back(plan))] if plan.back else [])]))
        return
    if plan.back and not options().quiet:
        note(line(back(plan)))
    if same:
        ask(f"{line(plan.model)} moves to {line(plan.to_tier)}, and with it, being the same bytes: {same}. Go on?")

    async def work(client: Client) -> MoveJob:
        job = await client.tiers.move(model, to)
        return job if no_wait else await _followed(client, job)

    job = run(work)
    if options().json:
        as_json(job)
    elif not options().quiet:
        how = "moved" if job.state == "done" else "is on its way:"
        said = ", ".join(map(line, (job.model, *job.touches)))
        say(f"{how} {said} from {line(job.from_tier)} to {line(job.to_tier)}{_spilled(job)}")
        if job.left_bytes:
            say(f"! {size(job.left_bytes)} stay on {line(job.from_tier)} as well, until it takes changes")


def _spilled(job: MoveJob) -> str:
    return f" ({line('; '.join(job.spilled))})" if job.spilled else ""


async def _followed(client: Client, job: MoveJob) -> MoveJob:
    """A move when it is done. Raises why it is not."""
    progress, state = Progress(f"{line(job.model)} copying"), "copying"
    try:
        while job.state not in ENDED:
            if job.state != state:
                progress.end()
                progress, state = Progress(f"{line(job.model)} {line(job.state)}"), job.state
            progress.show(job.bytes_done, job.bytes_total)
            await asyncio.sleep(0.1)
            job = await client.tiers.move_job(job.id)
    except asyncio.CancelledError:
        job = await client.tiers.cancel_move(job.id)
        progress.end()
        where = f"lies on {job.to_tier}" if job.state in ("done", "freeing") else f"stays on {job.from_tier}"
        given_up(f"the move of {job.model} {'is' if job.state == 'done' else 'was'} {job.state}: it {where}")
        raise
    finally:
        progress.end()
    if job.error is not None:
        raise from_body(job.error)
    if job.state != "done":
        raise Failed(f"the move was {job.state}", "the version lies where it lay")
    return job


@click.command()
@click.option("--cancel", "id", callback=filled, help="end this one; the version stays where it was")
@with_options
def moves(id: str | None) -> None:
    """Moves between tiers, on their way and ended since the daemon began, the oldest first.

    What was moved before, or interrupted when a daemon ended, `corral models history MODEL` tells.
    """
    if id is not None:
        job = run(lambda client: client.tiers.cancel_move(id))
        tell(job, f"{line(job.model)}: {line(job.state)}")
        return
    listed(
        run(lambda client: client.tiers.moves()), lambda job: job.id,
        ("ID", "MODEL", "FROM", "TO", "STATE", "DONE", "LEFT", "BY", "STARTED", "ABOUT"),
        lambda job: (
            job.id, job.model, job.from_tier, job.to_tier, job.state, _done(job),
            lasting(job.left_s) if job.left_s is not None else "-", job.by, age(job.started_at),
            job.error.what if job.error else ", ".join(filter(None, (job.why, *along(job)))) or "-",
        ),
        empty="nothing was moved since the daemon began; moves before, also interrupted: corral models history MODEL",
    )  # fmt: skip


@click.command()
@click.argument("model", shell_complete=named("models"))
@with_options
def loads(model: str) -> None:
    """How long a version takes to load from each tier.

    COLD (past the page cache) and WARM (from it) are expected from the tier's reading speed alone; MEASURED is the last
    launch from there, from the engine's start until it was ready, with what part of the file was in the page cache.
    """
    listed(
        run(lambda client: client.tiers.loads(model)), lambda each: each.tier,
        ("TIER", "LIES", "COLD", "WARM", "MEASURED", "WHEN"),
        lambda each: (
            each.tier, "here" if each.here else "-", seconds(each.cold_s), seconds(each.warm_s), measured(each),
            age(each.measured_at) if each.measured_at else "-",
        ),
    )  # fmt: skip


def _done(job: MoveJob) -> str:
    return f"{100 * job.bytes_done // job.bytes_total} %" if job.bytes_total else "-"


def seconds(seconds: float | None) -> str:
    return "-" if seconds is None else lasting(seconds)


def measured(load: LoadTime) -> str:
    if load.measured_s is None:
        return "-"
    part = "" if load.measured_cached is None else f", {100 * load.measured_cached:.0f} % cached"
    return seconds(load.measured_s) + part
