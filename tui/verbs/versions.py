"""Versions of models: what there are, which one is live, in what they differ, what may go, what has rotted."""

from __future__ import annotations

import asyncio

import click

from core.client import Client
from core.client.catalog import parted
from core.errors import Failed, Invalid, NotFound, from_body
from core.nouns import AliasMoved, Collected, Rotten, Verified, VersionDifference
from tui.amounts import Number
from tui.columns import CELL
from tui.command import Told, filled, given_up, named, options, run, with_options
from tui.lines import Progress, agreed, as_json, ask, bounded, listed, say, table, tell
from tui.plain import line, visible
from tui.words import age, moment, several, size, subject, why_unread


def _alone(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A model's name without a version."""
    if parted(value)[1]:
        raise click.BadParameter(f"{value!r} is a version: name the model alone", context, parameter)
    return value


@click.command()
@click.argument("name", callback=_alone, shell_complete=named("models"))
@with_options
def versions(name: str) -> None:
    """The versions of a model.

    LIVE is what the bare name means; the alias `previous` is what it meant before.
    """
    found = run(lambda client: client.catalog.versions(name))
    listed(
        found[::-1], lambda m: m.reference,
        ("VERSION", "ALIASES", "LABEL", "STATE", "SIZE", "QUANT", "SHA256", "LICENCE", "IMPORTED", "BY"),
        lambda m: (
            m.version, " ".join(m.aliases) or "-", m.label or "-", m.state + ("!" if m.flags else ""), size(m.bytes),
            bounded(m.shape.quantization, CELL), m.sha256[:12], bounded(m.licence or "-", CELL), age(m.imported_at),
            m.imported_by,
        ),
    )  # fmt: skip
    if not options().json and not options().quiet:
        for model in found:
            for flag in model.flags:
                say(f"! {model.reference}: {line(flag)}")


@click.command()
@click.argument("name", callback=_alone, shell_complete=named("models"))
@click.argument("alias", callback=filled)
@click.argument("to", required=False, callback=filled)
@click.option("--rm", "away", is_flag=True, help="take the alias away")
@click.option("--dry-run", is_flag=True, help="only tell what moving it would touch")
@click.option("--restart", is_flag=True, help="have the deployments that it touches go over now")
@with_options
def alias(name: str, alias: str, to: str | None, away: bool, dry_run: bool, restart: bool) -> None:
    """Have an alias mean a version: `corral models alias chat live 3`.

    TO is a number, another alias (`previous` is the way back) or sha256: and the first digits of a hash. Deployments
    that want the alias keep what they run and get the new version when they are next restarted, or now with --restart.
    """
    if away == (to is not None) or (away and (dry_run or restart)):
        raise click.UsageError("say what it shall mean, or --rm")
    if away:
        run(lambda client: client.catalog.drop_alias(name, alias))
        tell({"removed": f"{name}:{alias}"}, f"took away {line(name)}:{line(alias)}")
        return
    told = run(lambda client: client.catalog.alias(name, alias, str(to), move=False))
    users = ", ".join(map(line, told.touches))
    if dry_run:
        was = f"it means {told.before}" if told.before else "it is new"
        tell(
            told, f"{line(name)}:{line(alias)} would mean version {told.version}; {was}; touched: {users or 'nothing'}"
        )
        return
    if told.touches and told.before != told.version:
        when = "are restarted with it now" if restart else "get it when they are next restarted"
        ask(f"{line(name)}:{line(alias)} will mean version {told.version}; deployments that {when}: {users}. Go on?")

    async def work(client: Client) -> AliasMoved:
        moved = await client.catalog.alias(name, alias, str(told.version), seen=told.before or 0)
        for each in moved.touches:
            if restart and each in told.touches:  # no other was asked about
                await client.restart_deployment(each)
        return moved

    moved = run(work)
    left = [each for each in moved.touches if not restart or each not in told.touches]
    later = f"; restart to go over: {', '.join(map(line, left))}" if left else ""
    tell(moved, f"{line(name)}:{line(alias)} means version {moved.version}{later}")


@click.command()
@click.argument("old", shell_complete=named("models"))
@click.argument("new", required=False, callback=filled)
@with_options
def diff(old: str, new: str | None) -> None:
    """In what two versions differ: `corral models diff chat@1 chat@2`.

    With a name alone: what `previous` has become with `live`.
    """
    name, which = parted(old)
    if new is None:
        if which:
            raise click.UsageError("name two versions, or a model alone")
        old, new = f"{name}:previous", f"{name}:live"
    elif (other := parted(new)[0]) != name:
        run(lambda client: client.catalog.versions(other))  # one that is not there is said first
        raise Told(Invalid("the two are versions of different models", todo="name two versions of one"))
    found = run(lambda client: _differences(client, old, new, before=not which))
    if options().json:
        as_json(found)
        return
    if not found:
        say(f"{line(old)} and {line(new)} are the same")
    for each in found:
        before, after = each.old, each.new
        if "\n" in (before or "") + (after or "") or each.kind == "template":
            say(f"{line(subject(each))}:")
            for mark, text in (("-", before), ("+", after)):
                for piece in visible(text).split("\n") if text else ():
                    say(f"  {mark} {piece}")
        else:
            say(f"{line(subject(each))}: {visible(before or 'none')} -> {visible(after or 'none')}")


async def _differences(client: Client, old: str, new: str, before: bool) -> list[VersionDifference]:
    """`before`: nobody named the older one, and there may be none."""
    try:
        return await client.catalog.diff(old, new)
    except NotFound:
        if not before:
            raise
    name = parted(old)[0]
    there = await client.catalog.versions(name)
    if len(there) < 2:
        why, todo = "there is nothing to compare it with", "import or pull another under this name"
        raise NotFound(f"{name} has one version", why, todo)
    numbers = ", ".join(f"@{each.version}" for each in there)
    todo = f"name two: corral models diff {name}@{there[0].version} {name}@{there[-1].version}"
    raise NotFound(f"no version of {name} was live before this one", f"it has {numbers}", todo)


@click.command()
@click.argument("name", callback=_alone, shell_complete=named("models"))
@click.option(
    "-n", "limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="so many, newest first"
)
@with_options
def history(name: str, limit: int) -> None:
    """What happened to a model's versions and aliases, newest first."""
    listed(
        run(lambda client: client.catalog.history(name, limit)), lambda each: each.what,
        ("TIME", "BY", "WHAT", "VERSION", "DETAIL"),
        lambda each: (moment(each.at), each.by, each.what, each.version, each.detail or "-"),
    )  # fmt: skip


@click.command()
@click.argument("name", shell_complete=named("models"))
@with_options
def template(name: str) -> None:
    """The chat template of a version: code that came with it.

    What in it a person should look at is said on standard error.
    """
    found = run(lambda client: client.catalog.template(name))
    if options().json:
        as_json(found)
        return
    say(visible(found["template"]) if found["template"] else "it has no chat template")
    for flag in found["flags"]:
        click.echo(f"corral: {line(flag)}", err=True)


@click.command()
@click.argument("name", shell_complete=named("models"))
@click.option("--label", help="what people call this version; empty takes it away")
@click.option("--notes", help="what they should know of it")
@with_options
def note(name: str, label: str | None, notes: str | None) -> None:
    """Give a version a label or notes: `corral models note chat@3 --label 2026-11`."""
    if label is None and notes is None:
        raise click.UsageError("say --label or --notes")
    model = run(lambda client: client.catalog.note(name, label=label, notes=notes))
    tell(model, f"{model.reference} is noted")


@click.command()
@click.option("--dry-run", is_flag=True, help="only tell what would go, and what that frees")
@click.option("--older-than", type=Number(0, 36500), default=0, help="only versions imported so many days ago")
@with_options
def gc(dry_run: bool, older_than: float) -> None:
    """Remove the versions that no alias means and no deployment wants.

    Rotten bytes that were set aside go after 30 days, or at once when they were imported anew.
    """

    def asked() -> Collected:
        found = run(lambda client: client.catalog.gc(dry_run=True, older_than_days=older_than))
        if found.gone and not dry_run:
            if not options().json and not options().quiet:
                _tables(found)
            goes = line(several([each.name for each in found.gone]))
            ask(f"Remove {goes}, which frees {size(found.bytes)}?")
        return found

    def remove(found: Collected) -> Collected:
        if dry_run or not found.gone:
            return found
        seen = None if options().yes else [each.name for each in found.gone]
        return run(lambda client: client.catalog.gc(dry_run=False, older_than_days=older_than, seen=seen))

    done = agreed(asked, remove)
    if done.dry_run:
        _collected(done)
    else:
        tell(done, f"removed {len(done.gone)}, freed {size(done.bytes)}")


def _collected(found: Collected) -> None:
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for each in found.gone:
            say(line(each.name))
        return
    _tables(found)
    say(f"{'would free' if found.dry_run else 'freed'} {size(found.bytes)}")


def _tables(found: Collected) -> None:
    """What goes and what stays."""
    table(("GOES", "FREES", "WHY"), [(each.name, size(each.bytes), each.why) for each in found.gone])
    table(("STAYS", "THOUGH NOTHING SERVES IT"), [(each.name, each.why) for each in found.kept])


@click.command()
@click.argument("models", nargs=-1, callback=filled, shell_complete=named("models"))
@click.option("--status", is_flag=True, help="how far it is, and what was found")
@click.option("--cancel", is_flag=True, help="end it; what was verified stays verified")
@click.option("--no-wait", is_flag=True, help="do not wait for its end")
@with_options
def verify(models: tuple[str, ...], status: bool, cancel: bool, no_wait: bool) -> None:
    """Read all stored bytes again and compare their hashes.

    A job of the daemon at the lowest priority: it goes on without this terminal and after a restart. Bytes that are not
    what they were are set aside, and the deployments that use them are named. Exit 1 if there
    are any that are not whole again, and where something that is named could not be read.
    """
    if status + cancel + bool(models) > 1:
        raise click.UsageError("say models, --status or --cancel")

    async def work(client: Client) -> Verified:
        if cancel:
            return await client.catalog.cancel_verify()
        if status:
            return await client.catalog.verified()
        found = await client.catalog.verify(list(models))
        progress = Progress("verify")
        try:
            while found.state == "hashing" and not no_wait:
                progress.show(found.bytes_done, found.bytes_total)
                await asyncio.sleep(0.2)
                found = await client.catalog.verified()
        except asyncio.CancelledError:
            progress.end()
            given_up("the verification goes on in the daemon: `corral models verify --status`, --cancel ends it")
            raise
        finally:
            progress.end()
        return found

    found = run(work)
    if options().json:
        as_json(found)
    elif not options().quiet:
        say(f"{found.state}: {found.objects_done} of {found.objects_total} files, {size(found.bytes_done)}")
        if found.state == "done" and (passed := found.objects_total - found.objects_done) and not found.unread:
            say(f"! {passed} not read: they came or moved meanwhile; see `corral models ls`")
    bad = [*((each, "is not what it was and was set aside") for each in found.rotten)]
    bad += [(each, "is gone") for each in found.missing]
    if not options().json:
        for rotten, how in bad:
            _rotten(rotten, how)
        for unread in found.unread if found.state == "done" else ():
            say(f"! {line(unread.version)} was not read: {line(why_unread(unread))}")
    if found.state == "failed":
        raise Told(from_body(found.error) if found.error else Failed("the verification failed", todo="say it again"))
    lost = [each for each in found.unread if models or each.state != "away"]
    if any(not rotten.settled for rotten, _ in bad) or (found.state == "done" and lost):
        raise click.exceptions.Exit(1)


def _rotten(found: Rotten, how: str) -> None:
    if found.healed:
        names = ", ".join(map(line, found.versions)) or found.sha256[:16]
        say(f"{names} was found not to be whole and is whole again: it was imported anew")
        return
    if found.removed:
        names = ", ".join(map(line, found.versions)) or found.sha256[:16]
        say(f"{names} was found not to be whole and is removed since")
        return
    say(f"{', '.join(map(line, found.versions)) or found.sha256[:16]} {how}: {size(found.bytes)}, {found.sha256[:16]}…")
    if found.deployments:
        say(f"  used by {', '.join(map(line, found.deployments))}")
    say("  import it again from where it came from: the same version is whole then")
