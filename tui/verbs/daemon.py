"""The daemon: status, shutdown, reload, events, engines."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec

from core.client import Client
from core.errors import NoDaemon
from core.nouns import API_VERSION, Event, Status
from tui.command import Nouns, Told, again, note, note_answers, options, run, with_options
from tui.lines import as_json, say, table, tell
from tui.plain import line
from tui.words import age, in_force, size

EVENT_ID = re.compile(r"[0-9a-z]+\.\d{1,19}")
STATUS_S = 5.0
"""How long a daemon may take to say how it is, before it is called hung."""
RECENT = 100
"""Events that `corral events` shows."""


@click.command()
@with_options
def status() -> None:
    """What runs and whether all is right. Exit 6 if no daemon runs."""
    found = run(lambda client: client.status(STATUS_S), start=False)
    if options().json:
        as_json(found)
        return
    daemon, gateway = found.daemon, found.gateway_status
    say(f"daemon    pid {daemon.pid}, version {daemon.version}, up {age(daemon.started_at)}, {daemon.mode} mode")
    pid = f"pid {gateway.pid}, " if gateway.pid else ""
    pid += "compiled, " if gateway.compiled else ""
    say(
        f"gateway   {line(gateway.state)}, {pid}{gateway.in_flight} in flight, {gateway.queued} queued,"
        f" {gateway.requests} served"
    )
    for door in gateway.doors:
        where = f"{line(door.url)}/v1, with an API key" if door.url else f"{line(door.address)} is closed"
        if door.url and door.url.rpartition(":")[2] != door.address.rpartition(":")[2]:
            where += f" ({line(door.address)} was taken when it was looked for)"
        say(f"programs  {where}{f': {line(door.trouble)}' if door.trouble else ''}")
    for whose, why in (("daemon", daemon.swapped), ("gateway", gateway.swapped)):
        if why is not None:
            say(f"memory    the {whose}'s {_swap(why)}")
    for node in found.nodes:
        say(
            f"host      {node.cpu_percent:.0f} % CPU, {size(node.free_bytes)} of {size(node.memory_bytes)} memory free,"
            f" {size(node.disk_free_bytes)} disk free"
        )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found.deployments.items())) or "none"
    say(f"models    {found.models}; deployments: {line(counts)}")
    say(f"audit     {found.audit_records} records, {line(found.audit_message) if found.audit_ok else 'BROKEN'}")
    for sink in found.audit_sinks:
        more = f", {sink.waiting} wait" if sink.waiting else ""
        say(f"sink      {line(sink.name)} {line(sink.state)}, has records up to {sink.sent}{more}")
    say(f"socket    {line(daemon.socket)}")
    say(f"settings  {line(in_force(daemon))}")
    warnings = list(daemon.warnings)
    if daemon.api != API_VERSION:
        warnings.append("this terminal and the daemon have different versions: corral shutdown, then start again")
    for warning in warnings:
        say(f"! {line(warning)}")


def _swap(why: str) -> str:
    return f"may be written to swap: {line(why)}" if why else "is not written to swap"


@click.command()
@click.option("--all", "everything", is_flag=True, help="stop the models and the gateway first")
@with_options
def shutdown(everything: bool) -> None:
    """End the daemon and wait until it is gone. Models run on, unless --all."""

    async def work(client: Client) -> None:
        if everything:
            await note_answers(client)
        await client.shutdown(everything)

    try:
        run(work, start=False)
    except Told as told:
        if everything and isinstance(told.error, NoDaemon):
            told.error.todo = "models may run on: `corral ps` starts a daemon that finds them, then shut down again"
        raise
    models = "its models are stopped" if everything else "models run on"
    tell({"daemon": "gone", "models": models}, f"the daemon is gone; {models}")


@click.command()
@with_options
def reload() -> None:
    """Read corral.toml again; it is refused whole if it is wrong."""

    async def work(client: Client) -> tuple[list[dict[str, Any]], Status]:
        await client.reload()
        wrong = [each for each in await client.engines() if each["path"] and not each["found"]]
        return wrong, await client.status()

    wrong, found = run(work)
    daemon = found.daemon
    tell({"reloaded": True, "config": daemon.config, "defaults": daemon.defaults}, line(in_force(daemon)))
    if not options().json and not options().quiet:
        for each in wrong:  # it may be a disk that is not mounted yet: no reason to refuse the rest
            note(f"{each['name']} cannot be started: {each['reason']}")
        for door in found.gateway_status.doors:
            if door.trouble:
                note(f"programs on {door.address}: {door.trouble}")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="go on until ctrl+c")
@click.option("--since", help="after this event's id, as the first column or `id` has it")
@with_options
def events(follow: bool, since: str | None) -> None:
    """What happened last, one line an event.

    -f follows, and goes on through a new daemon.
    """
    if since is not None and not EVENT_ID.fullmatch(since):
        raise click.BadParameter(f"{since!r} is no id of an event, as 1a2142e3a4a.110", param_hint="'--since'")

    async def work(client: Client) -> None:
        last = (await client.picture()).event
        epoch, _, seq = last.partition(".")
        at = since or (last if follow else f"{epoch}.{max(0, int(seq) - RECENT)}")

        async def after() -> AsyncIterator[Event]:
            nonlocal at
            async with contextlib.aclosing(client.events(at)) as news:  # type: ignore[type-var]
                async for event in news:
                    at = event.id
                    yield event

        if follow:
            async for event in again(after):
                _one(event)
        elif at != last:
            _all([event async for event in client.events(at, last)])
        else:
            _all([])

    run(work)


def _one(event: Event) -> None:
    if options().json:
        say(msgspec.json.encode(event).decode())
    else:
        data = event.data if isinstance(event.data, dict) else {"": event.data} if isinstance(event.data, str) else {}
        told = [str(data[key]) for key in ("verb", "outcome", "state", "reason", "") if data.get(key)]
        at = time.strftime("%H:%M:%S", time.localtime(event.time))
        say(f"{event.id}  {at}  {line(event.type):<12} {line(event.object):<24} {line(': '.join(told))}".rstrip())


def _all(found: list[Event]) -> None:
    if options().json:
        as_json(found)
        return
    for event in found:
        _one(event)


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def engines(context: click.Context) -> None:
    """Which inference servers can be started here, or why not.

    Without a verb: the same as `corral engines ls`.
    """
    if context.invoked_subcommand is None:
        _engines()


@engines.command("ls")
@with_options
def engines_ls() -> None:
    """Engines that can be started here, and where; or why not."""
    _engines()


def _engines() -> None:
    rows = run(lambda client: client.engines())
    if options().json:
        as_json(rows)
    elif options().quiet:
        for each in rows:
            if each["found"]:
                say(line(each["name"]))
    else:
        table(
            ("ENGINE", "USABLE", "VERSION", "WHERE", "REASON"),
            [(r["name"], "yes" if r["found"] else "no", r["version"] or "-", r["path"] or "-", r["reason"])
             for r in rows],
        )  # fmt: skip
