"""Tiers: the folders that models are stored in, and by which rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from core.client import Client
from core.errors import Conflict
from core.nouns import HOME, Demoted, Tier, TierChecked
from tui.amounts import Size, Whole
from tui.command import Nouns, Told, filled, goes_on, named, note, options, run, with_options
from tui.lines import Passing, as_json, ask, say, table, tell
from tui.plain import line
from tui.verbs.moves import measured, seconds
from tui.words import age, moment, plural, size

DAYS = Whole(0, 3650)
TIER = named("tiers")
ASKED = {
    "another": "Taken over, that database has it no more.",
    "lost": "Its marker is put back.",
}
"""What comes of a folder that is taken over."""


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def tiers(context: click.Context) -> None:
    """Folders that models are stored in: fast ones, large ones.

    Without a verb: the same as `corral tiers ls`.
    """
    if context.invoked_subcommand is None:
        context.invoke(ls)


@tiers.command("ls")
@with_options
def ls() -> None:
    """The tiers there are, what they hold and still take.

    `home` is built in. New models land in the one with LANDS.
    """
    found = run(lambda client: client.tiers.ls())
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for tier in found:
            say(line(tier.name))
        return
    table(
        (
            "TIER", "STATE", "CAPACITY", "STORED", "PROMISED", "FREE", "COLD", "WARM", "LANDS", "SPILLS", "DEMOTES",
            "PATH",
        ),
        [
            (t.name, t.state, _capacity(t), size(t.stored_bytes), size(t.reserved_bytes),
             "-" if t.state == "away" else size(t.free_bytes), _cold(t), _speed(t.warm),
             "yes" if t.landing else "-", t.spill or "-", _demotes(t), t.path)
            for t in found
        ],
        spare=("WARM", "PROMISED", "DEMOTES", "SPILLS", "PATH", "COLD", "LANDS"),
    )  # fmt: skip
    for tier in found:
        if tier.reason:
            say(f"! {line(tier.name)} is {tier.state}: {line(tier.reason)}")
        elif tier.over:
            say(f"! {_over(tier)}")


@tiers.command("show")
@click.argument("name", shell_complete=TIER)
@with_options
def show(name: str) -> None:
    """A tier and what lies in it, with how long each model takes to load.

    COLD and WARM are expected from the reading speed alone; MEASURED is the last launch from there.
    """
    found = run(lambda client: client.tiers.get(name))
    if options().json:
        as_json(found)
        return
    tier = found.tier
    for key, value in (
        ("name", tier.name), ("path", tier.path), ("state", tier.state + (f": {tier.reason}" if tier.reason else "")),
        ("capacity", _capacity(tier) if tier.capacity else "what its disk has"),
        ("stored", f"{size(tier.stored_bytes)} in {tier.objects}"), ("promised", size(tier.reserved_bytes)),
        *((("set aside", size(tier.aside_bytes)),) if tier.aside_bytes else ()),
        ("free", _free(tier)), ("disk", f"{size(tier.disk_free)} free of {size(tier.disk_bytes)}"),
        ("read cold", _cold(tier)), ("read warm", _speed(tier.warm)),
        ("measured", moment(tier.measured_at) if tier.measured_at else f"corral tiers check {tier.name} --speed does"),
        ("new models", "land here" if tier.landing else "land elsewhere"),
        ("without room", f"spills to {tier.spill}" if tier.spill else "refuses"), ("demotes", _demotes(tier)),
    ):  # fmt: skip
        say(f"{key:<14} {line(value)}")
    table(
        ("MODEL", "SIZE", "USED", "COLD", "WARM", "MEASURED"),
        [
            (m.reference, size(m.bytes), age(m.used_at) if m.used_at else "never", seconds(m.load.cold_s),
             seconds(m.load.warm_s), measured(m.load))
            for m in found.models
        ],
    )  # fmt: skip


def _rules(command: Any) -> Any:
    """The options that say a tier's rules."""
    for option in (
        click.option("--demote-to", callback=_named, shell_complete=TIER, help="the tier that it is moved to"),
        click.option("--demote-after", type=DAYS, help="whole days without a launch after which a model goes; 0: none"),
        click.option(
            "--spill", callback=_named, shell_complete=TIER, help="the tier that takes what has no room; none: refuse"
        ),
        click.option("--default", "landing", is_flag=True, default=None, help="new models land here"),
        click.option("--capacity", type=Size(), help="what may be stored there, e.g. 200GiB; 0: what its disk has"),
    ):  # fmt: skip
        command = option(command)
    return command


def _named(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A tier, or `none` for no tier."""
    return "" if filled(context, parameter, value) == "none" else value


def _said(
    capacity: int | None, landing: bool | None, spill: str | None, demote_after: float | None, demote_to: str | None
) -> dict[str, Any]:
    if demote_after == 0 and demote_to is None:
        demote_to = ""
    return {
        "capacity": capacity, "landing": landing, "spill": spill, "demote_days": demote_after, "demote_to": demote_to,
    }  # fmt: skip


async def _added(
    client: Client, name: str, folder: str, rules: dict[str, Any], *, take_over: bool, asking: bool
) -> Tier | Conflict:
    """The tier; with `asking` what has to be asked about before it is taken over."""
    try:
        return await client.tiers.add(name, folder, take_over=take_over, **rules)
    except Conflict as error:
        if asking and error.details.get("take_over") in ASKED:
            return error
        raise


@tiers.command("add")
@click.argument("name", callback=filled)
@click.argument("path", callback=filled)
@_rules
@click.option("--take-over", is_flag=True, help="though it has a marker, or has lost that of NAME; asks")
@click.option("--no-speed", is_flag=True, help="do not measure how fast it is read")
@with_options
def add(
    name: str, path: str, capacity: int | None, landing: bool | None, spill: str | None, demote_after: float | None,
    demote_to: str | None, take_over: bool, no_speed: bool,
) -> None:  # fmt: skip
    """Make a folder a tier: `corral tiers add fast /mnt/nvme/corral --capacity 200GiB`.

    It must be there, belong to root or to the daemon's user, be no link, and be written by nobody else.
    """
    rules = _said(capacity, landing, spill, demote_after, demote_to)
    folder = str(Path(path).absolute())

    def added(take_over: bool, *, asking: bool = False) -> Tier | Conflict:
        return run(lambda client: _added(client, name, folder, rules, take_over=take_over, asking=asking))

    first = added(take_over and options().yes, asking=take_over)
    if isinstance(first, Conflict):
        ask(f"{line(first.what)}: {line(first.why)}. {ASKED[first.details['take_over']]} Go on?")
        added(True)

    async def work(client: Client) -> Tier:
        made = (await client.tiers.get(name)).tier
        if no_speed:
            return made
        with Passing() as passing:
            passing.show(f"reading {name} to see how fast it is")
            return await client.tiers.measure(name)

    made = run(work)
    read = ""
    if made.memory and made.warm:
        read = f"; it is read at {_speed(made.warm)}, from memory"
    elif made.cold:
        read = f"; it is read at {_speed(made.cold)} cold"
    tell(made, f"{line(made.name)} takes {_free(made)}{read}")
    _warn(made)


@tiers.command("set")
@click.argument("name", shell_complete=TIER)
@_rules
@with_options
def set_(
    name: str, capacity: int | None, landing: bool | None, spill: str | None, demote_after: float | None,
    demote_to: str | None,
) -> None:  # fmt: skip
    """Say by which rules a tier is used.

    `corral tiers set fast --default --spill home --demote-after 30 --demote-to home`; `--spill none` takes it away.
    """
    rules = _said(capacity, landing, spill, demote_after, demote_to)
    if all(value is None for value in rules.values()):
        raise click.UsageError("say a rule: --capacity, --default, --spill, --demote-after with --demote-to")
    made = run(lambda client: client.tiers.set(name, **rules))
    tell(made, f"{line(made.name)}: {_ruled(made)}")
    if capacity is not None:
        _warn(made)


@tiers.command("rm")
@click.argument("name", shell_complete=TIER)
@with_options
def rm(name: str) -> None:
    """Forget a tier that holds nothing.

    The folder stays, without its marker. What it holds is named: move or remove that first.
    """
    found = run(lambda client: client.tiers.get(name))
    tier = found.tier
    if name == HOME:  # what will be refused is not asked
        raise Told(Conflict("home stays", "it is the tier beside the database"))
    if tier.objects:
        there = [each.reference for each in found.models]
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        what = f"{', '.join(there[:5])}{more}" if there else f"{tier.objects} {plural(tier.objects, 'object')}"
        raise Told(Conflict(f"the tier {name} holds {what}", todo="move or remove these first"))
    named = _naming(tier, run(lambda client: client.tiers.ls()))
    ask("; ".join([f"Forget the tier {line(name)} ({line(tier.path)})", *named]) + "?")
    left = run(lambda client: client.tiers.rm(name))
    stays = f", and {size(left)} of models in it, which nothing here needs" if left else ""
    told = [f"forgot {line(name)}", f"{line(tier.path)} stays{stays}", *named]
    tell({"removed": name, "left_bytes": left}, "; ".join(told))


def _naming(gone: Tier, there: Sequence[Tier]) -> list[str]:
    """Which rules of others name a tier, and what becomes of them without it."""
    out = [f"{line(each.name)} spills nowhere then" for each in there if each.spill == gone.name]
    out += [f"{line(each.name)} demotes nothing then" for each in there if each.demote_to == gone.name]
    return out + (["new models land in home then"] if gone.landing else [])


@tiers.command("check")
@click.argument("names", nargs=-1, callback=filled, shell_complete=TIER)
@click.option("--speed", is_flag=True, help="measure how fast it is read, past the page cache and from it")
@with_options
def check(names: tuple[str, ...], speed: bool) -> None:
    """Look whether a tier is as it should be: all of them, or those named.

    Its marker, owner and mode; each stored file with its size; files that nobody knows. Exit 1 if something is wrong.
    """

    async def work(client: Client) -> list[TierChecked]:
        found = []
        for name in names or [tier.name for tier in await client.tiers.ls()]:
            with Passing() as passing:
                if speed:
                    passing.show(f"reading {name} to see how fast it is")
                    with goes_on(f"no longer waiting; the daemon measures {name} to its end: corral tiers show {name}"):
                        await client.tiers.measure(name)
                passing.show(f"looking at {name}")
                with goes_on(f"no longer waiting; the daemon looks at {name} to its end, and changes nothing"):
                    found.append(await client.tiers.check(name))
        return found

    found = run(work)
    if options().json:
        as_json(found)
    for each in found if not options().json else ():
        tier = each.tier
        if not options().quiet:
            cold = "from memory" if tier.memory else f"{_speed(tier.cold)} cold"
            read = f"; read at {_speed(tier.warm)} warm, {cold}" if tier.warm else ""
            takes = f"; takes {_free(tier)}" if tier.bound else ""
            say(f"{line(tier.name)}: {each.objects} as they should be, {size(each.bytes)}{takes}{read}")
            if tier.over:
                say(f"  {_over(tier)}")
            if each.aside_bytes:
                where = line(f"{tier.path}/quarantine")
                say(f"  {size(each.aside_bytes)} lie in {where}, set aside as rotten: corral models gc removes what was"
                    " healed since, and the rest after 30 days")  # fmt: skip
        for fault in each.faults:
            say(f"! {fault.what}: {line(fault.path)}: {line(fault.words)}")
    if any(each.faults for each in found):
        raise click.exceptions.Exit(1)


@tiers.command("demote")
@click.argument("name", shell_complete=TIER)
@click.option("--dry-run", is_flag=True, help="only tell what would be moved")
@with_options
def demote(name: str, dry_run: bool) -> None:
    """Move out of a tier what was not launched for long, as its rule does once a day. Exit 1 if something was not."""

    async def work(client: Client) -> Demoted:
        with goes_on("no longer waiting; what is being moved goes on: `corral models moves`, --cancel ID ends one"):
            return await client.tiers.demote(name, dry_run=dry_run)

    found = run(work)
    if options().json:
        as_json(found)
    elif not options().quiet:
        moved = ", ".join(map(line, found.moved)) or "nothing"
        say(f"{'would move' if dry_run else 'moved'} {moved}")
        for each in found.failed:
            say(f"! {line(each)}")
    if found.failed:
        raise click.exceptions.Exit(1)


def _capacity(tier: Tier) -> str:
    """With a mark where its disk has less in all."""
    return f"{size(tier.capacity)}{'!' if tier.over else ''}" if tier.capacity else "-"


def _free(tier: Tier) -> str:
    """What it still takes, and what bounds that where it has a capacity."""
    by = f" (its {tier.bound})" if tier.capacity and tier.bound else ""
    return f"{size(tier.free_bytes)}{by}"


def _over(tier: Tier) -> str:
    return (
        f"{line(tier.name)} has a capacity of {size(tier.capacity)}, and its disk {size(tier.disk_bytes)} in all: it"
        " takes no more than the disk has, until that grows"
    )


def _warn(tier: Tier) -> None:
    """Say that a capacity is more than there is; it is taken all the same, since disks grow."""
    if tier.over and not options().quiet:
        note(_over(tier))


def _speed(rate: float | None) -> str:
    return f"{size(rate)}/s" if rate else "not measured"


def _cold(tier: Tier) -> str:
    """Past the page cache; what lies in memory is never read so."""
    return "in memory" if tier.memory else _speed(tier.cold)


def _demotes(tier: Tier) -> str:
    days = max(1, round(tier.demote_days))  # an older program took a part of a day
    return f"after {days} {plural(days, 'day')} to {tier.demote_to}" if tier.demote_days else "-"


def _ruled(tier: Tier) -> str:
    """A tier's rules in words."""
    words = [f"capacity {size(tier.capacity)}" if tier.capacity else "what its disk has"]
    words += ["new models land here"] if tier.landing else []
    words += [f"spills to {line(tier.spill)}"] if tier.spill else []
    words += [f"demotes {line(_demotes(tier))}"] if tier.demote_days else []
    return ", ".join(words)
