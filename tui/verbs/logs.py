"""What a deployment tells of itself: its engine's log, and why it is in its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import click
import msgspec

from core.client import Client
from core.errors import NotFound
from core.nouns import LogText
from tui.amounts import Moment, Whole
from tui.command import again, named, note, options, run, with_options
from tui.lines import as_json, local, say, table
from tui.plain import line, plain
from tui.words import age, size

PIECE = 1 << 20
"""Bytes of a log that are asked for at once."""


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@click.option("-f", "--follow", is_flag=True, help="go on until ctrl+c")
@click.option("--previous", is_flag=True, help="of the launch before")
@click.option("--replica", type=Whole(0, 63), default=0, show_default=True)
@click.option("--since", type=Moment(), help="10m, 2h, 14:03, or an ISO 8601 time (local unless it names a zone)")
@with_options
def logs(name: str, follow: bool, previous: bool, replica: int, since: float | None) -> None:
    """The engine's log: its last 64 KiB, or all since a time. NAME may be a replica's (chat/1)."""
    name, number = _parts(name)
    replica = replica if number is None else number

    async def work(client: Client) -> None:
        at = await client.logs(name, replica=replica, previous=previous, since=since, limit=PIECE)
        if since is None and at.start and not at.lost:  # from the end: not from the middle of a line
            at = msgspec.structs.replace(at, text=at.text[at.text.find("\n") + 1 :])
        pieces = [at]
        while since is not None and at.end - at.start >= PIECE:
            at = await client.logs(name, replica=replica, start=at.end, previous=previous, limit=PIECE)
            pieces.append(at)
        for piece in pieces:
            _print(piece, follow)
        if options().json and not follow:
            as_json(msgspec.structs.replace(at, start=pieces[0].start, text="".join(piece.text for piece in pieces)))

        async def after() -> AsyncIterator[LogText]:
            nonlocal at
            while True:
                if at.ended:
                    begun = None if previous else await _next_launch(client, name, replica, at)
                    if begun is None:
                        return
                    at = begun
                    yield at
                news = await client.logs(name, replica=replica, start=at.end, previous=previous, wait=20)
                if news.launch != at.launch:  # started anew meanwhile: its log begins at 0
                    news = await client.logs(name, replica=replica, start=0)
                at = news
                yield news

        if follow:
            async for news in again(after):
                _print(news, True)

    run(work)


def _parts(name: str) -> tuple[str, int | None]:
    """A deployment and, where `name` is that of a replica as `corral ps` shows it, the replica's number."""
    base, slash, number = name.rpartition("/")
    return (base, int(number)) if slash and number.isdecimal() and number.isascii() else (name, None)


async def _next_launch(client: Client, name: str, replica: int, last: LogText) -> LogText | None:
    """The beginning of the log of the launch after `last`, waited for; None when the deployment is removed."""
    note(f"{name}/{replica}: this launch has ended; waiting for the next one (ctrl+c ends)")
    while True:
        try:
            news = await client.logs(name, replica=replica, start=0)
        except NotFound:
            note(f"{name}/{replica} is gone")
            return None
        if news.launch != last.launch:
            return news
        await asyncio.sleep(0.5)


def _print(piece: LogText, stream: bool) -> None:
    if options().json:
        if stream:
            say(msgspec.json.encode(piece).decode())
        return
    if piece.lost:
        click.echo(f"({piece.lost} bytes before this are rotated away)", err=True)
    if piece.text:
        click.echo(plain(piece.text), nl=stream is False and not piece.text.endswith("\n"))


@click.command()
@click.argument("name", shell_complete=named("deployments"))
@with_options
def explain(name: str) -> None:
    """Why a deployment is in its state.

    Sentences first, evidence after. NAME may be a replica's (chat/1): its deployment is explained.
    """
    found = run(lambda client: client.explain(_parts(name)[0]))
    if options().json:
        as_json(found)
        return
    for sentence in found.sentences:
        say(line(sentence))
    if found.launches:
        say()
        table(
            ("LAUNCH", "STARTED", "ENDED", "HOW", "PEAK", "REASON"),
            [
                (s.launch, age(s.started_at), age(s.ended_at) if s.ended_at else "-",
                 f"signal {s.signal}" if s.signal else f"code {s.code}" if s.code is not None else "-",
                 size(s.peak_rss_bytes) if s.peak_rss_bytes else "-", s.reason)
                for s in found.launches[:8]
            ],
            spare=("LAUNCH", "PEAK", "ENDED"),
        )  # fmt: skip
    if found.audit:
        say()
        table(
            ("TIME", "ACTOR", "VERB", "OUTCOME", "REASON"),
            [(local(r.time), r.actor, r.verb, r.outcome, r.reason) for r in found.audit[-10:]],
            spare=("ACTOR",),
        )
