"""What sizing has learned of the memory that models take: shown, revoked, restored."""

from __future__ import annotations

import click

from core.client import Client
from core.errors import Invalid, NotFound
from core.nouns import SizeCorrection
from tui.command import Nouns, options, run, with_options
from tui.lines import as_json, ask, say, table, tell
from tui.plain import line
from tui.words import age, size


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def corrections(context: click.Context) -> None:
    """What plans learn from launches, by architecture and engine build.

    From three launches on that agree, plans are changed by their median, by 15 % at most. A launch far from the others
    is kept out (`!`), and one of a small model that is off by 24 MiB or less says nothing of larger ones.
    """
    if context.invoked_subcommand is not None:
        return
    found = run(lambda client: client.sizes.ls())
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found:
            say(line(each.arch))
    elif not found:
        say("nothing yet: it learns when a deployment has become ready")
    else:
        rows = [
            (e.arch, e.engine, e.build, _change(e), _launches(e), age(e.seen[0].at) if e.seen else "-") for e in found
        ]
        table(("ARCH", "ENGINE", "BUILD", "CHANGE", "LAUNCHES", "NEWEST"), rows, spare=("NEWEST", "BUILD"))
        for each in found:
            for seen in each.seen:
                if seen.outlier:
                    off = seen.measured / seen.planned - 1
                    which = f"launch {line(seen.launch)} of {line(seen.model)}"
                    say(f"! {line(each.arch)}: {which} took {size(seen.measured)} ({off:+.1%}) and is kept out")


@corrections.command("rm")
@click.argument("arch")
@click.option("--engine", help="where more than one has learned")
@click.option("--build", help="where more than one has learned")
@with_options
def rm(arch: str, engine: str | None, build: str | None) -> None:
    """Plan by the formula alone again."""
    found = run(lambda client: _one(client, arch, engine, build))
    ask(f"Revoke the correction of {line(found.arch)} on {line(found.engine)} {line(found.build)} ({_change(found)})?")
    done = run(lambda client: client.sizes.revoke(found))
    tell(done, f"revoked: plans of {line(done.arch)} follow the formula alone")


@corrections.command("restore")
@click.argument("arch")
@click.option("--engine", help="where more than one has learned")
@click.option("--build", help="where more than one has learned")
@with_options
def restore(arch: str, engine: str | None, build: str | None) -> None:
    """Learn again what was revoked."""
    found = run(lambda client: _one(client, arch, engine, build))
    done = run(lambda client: client.sizes.restore(found))
    tell(done, f"restored: plans of {line(done.arch)} are changed by {_change(done)}")


async def _one(client: Client, arch: str, engine: str | None, build: str | None) -> SizeCorrection:
    found = [
        each for each in await client.sizes.ls()
        if each.arch == arch and engine in (None, each.engine) and build in (None, each.build)
    ]  # fmt: skip
    if not found:
        raise NotFound(f"nothing was learned of {arch!r}", todo="see `corral models corrections`")
    if len(found) > 1:
        told = ", ".join(f"--engine {each.engine} --build {each.build}" for each in found[:5])
        raise Invalid(f"{len(found)} have learned of {arch!r}", f"they are {told}", "name one")
    return found[0]


def _change(found: SizeCorrection) -> str:
    if found.revoked_by:
        return f"revoked by {line(found.revoked_by)}"
    return f"{found.correction:+.1%}" + (" (held)" if found.bounded else "") if found.correction else "none"


def _launches(found: SizeCorrection) -> str:
    out, small = sum(seen.outlier for seen in found.seen), sum(seen.small for seen in found.seen)
    return f"{len(found.seen)}" + (f", {out} kept out" if out else "") + (f", {small} too small" if small else "")
