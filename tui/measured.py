"""A measurement that the daemon carries out: begun, followed to its end, looked at, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import click

from core.client import Client
from core.errors import Failed, NoDaemon, NotFound, from_body
from core.nouns import BenchJob
from tui.command import given_up, options, run
from tui.lines import Passing, say, tell
from tui.plain import line

ENDED = ("done", "failed", "cancelled")
LOOK_S = 0.25


async def follow(client: Client, job: BenchJob) -> BenchJob:
    """Show a measurement until it ends; ctrl+c cancels it. Raises why it failed."""
    with Passing() as passing:
        try:
            while job.state not in ENDED:
                passing.show(told(job))
                await asyncio.sleep(LOOK_S)
                job = await client.choosing.job(job.id)
        except NoDaemon as error:
            error.todo = "a measurement ends with its daemon and nothing of it is kept: give the command again"
            raise
        except asyncio.CancelledError:
            job = await client.choosing.cancel(job.id)
            passing.end()
            kept = "nothing of it is kept" if job.state != "done" else "--last shows it"
            given_up(f"the measurement of {job.object} {'is' if job.state == 'done' else 'was'} {job.state}: {kept}")
            raise
    return ended(job)


def ended(job: BenchJob) -> BenchJob:
    """One that is not done is an error."""
    if job.error is not None:
        raise from_body(job.error)
    if job.state != "done":
        raise Failed(f"the measurement was {job.state}", "nothing of it is kept")
    return job


def told(job: BenchJob) -> str:
    """How far it is: `model:chat: measuring, 3 of 9, 2 threads, …`."""
    return f"{job.object}: {job.state}, {job.done} of {job.total}" + (f", {job.step}" if job.step else "")


def turn(object: str, *, status: bool, cancel: bool, last: bool, no_wait: bool) -> bool:
    """Carry out --status or --cancel for the last measurement of `object` (`model:*`: of any), if one is said. Raises
    `UsageError` where what is said contradicts itself."""
    if status + cancel + last + no_wait > 1:
        raise click.UsageError("say --status, --cancel, --last or --no-wait, and one of them")
    if not status and not cancel:
        return False

    async def work(client: Client) -> BenchJob:
        kind, _, name = object.partition(":")
        some = name == "*"
        mine = [job for job in await client.choosing.jobs() if (job.kind == kind if some else job.object == object)]
        live = [job for job in mine if job.state not in ENDED]
        none = f"no {kind} is being measured now" if some else f"{object} is not being measured now"
        verb = f"corral {kind}s bench {kind.upper() if some else name}"
        if cancel and not live:
            raise NotFound(none, todo=f"`{verb} --last` shows what was measured last")
        if not mine:
            why = "nor was it since the daemon began"
            raise NotFound(none, why, f"begin it: {verb}")
        return await client.choosing.cancel(live[-1].id) if cancel else mine[-1]

    job = run(work)
    why = f": {from_body(job.error)}" if job.error is not None else ""
    tell(job, line(f"{told(job)}{why}"))
    return True


def begun(begin: Callable[[Client], Awaitable[BenchJob]], *, no_wait: bool) -> BenchJob | None:
    """Begin one, and follow it to its end; with `no_wait` only say that it goes on, and give None."""

    async def work(client: Client) -> BenchJob:
        job = await begin(client)
        return job if no_wait else await follow(client, job)

    job = run(work)
    if not no_wait:
        return job
    verb = f"corral {job.kind}s bench {job.object.partition(':')[2]}"
    if options().quiet and not options().json:
        say(job.id)
    else:
        tell(job, line(f"{told(job)}; `{verb} --status` says how far, --cancel ends it"))
    return None
