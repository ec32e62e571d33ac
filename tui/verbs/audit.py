"""The audit trail: list, follow, verify, export, report, accept a fault, its keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from core.client import Client
from core.errors import CorralError, Failed
from core.nouns import AuditArchive, AuditArchives, AuditKeys, AuditRecord
from tui.amounts import Moment, Whole
from tui.changes import actor
from tui.command import Nouns, Told, again, filled, note, options, run, with_options
from tui.lines import Passing, Progress, as_json, ask, local, say, table, tell
from tui.plain import line

POLL_S = 0.5


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def audit(context: click.Context) -> None:
    """Who did what when, allowed or refused.

    Without a verb: the same as `corral audit ls`.
    """
    if context.invoked_subcommand is None:
        context.invoke(ls)


@audit.command("ls")
@click.option("--actor", callback=filled, help="user name; may end in *")
@click.option("--verb", callback=filled, help="e.g. deployments.create or replica.*")
@click.option("--object", "object_", callback=filled, help="e.g. deployment:chat or model:*")
@click.option("--outcome", type=click.Choice(["intent", "done", "refused", "failed", "interrupted"]))
@click.option("--since", type=Moment(), help="10m, 2h, 1d, or an ISO 8601 time (local unless it names a zone)")
@click.option("--until", type=Moment(), help="as --since")
@click.option("--find", callback=filled, metavar="WORDS", help="as / on screen 9: 'actor:ann refused -verb:chats'")
@click.option("--limit", default=100, show_default=True, type=Whole(1, 10000))
@click.option("-f", "--follow", is_flag=True, help="go on until ctrl+c")
@with_options
def ls(
    actor: str | None, verb: str | None, object_: str | None, outcome: str | None, since: float | None,
    until: float | None, find: str | None, limit: int, follow: bool,
) -> None:  # fmt: skip
    """The last records, newest last; older ones out of archives.

    Where --limit, --since or --find reach so far, records are read out of archives too (not with -f): `archive` in
    --json is the archive's number, 0 for the database. An archive that is not as it was sealed is not read, and told.
    """
    filters: dict[str, Any] = {
        "actor": actor, "verb": verb, "object": object_, "outcome": outcome, "since": since, "until": until,
    }  # fmt: skip

    if find is not None and (follow or any(value is not None for value in filters.values())):
        raise click.UsageError("--find has words for all of that: actor: verb: object: outcome: since: until:")

    async def work(client: Client) -> None:
        if follow:
            records = await client.audit(**filters, limit=limit)
            _show(records, True)
            if len(records) < limit and not (options().quiet or options().json):
                _say_older(await client.proof.archives(), since)
        else:
            asked = {name: value for name, value in filters.items() if value is not None}
            records = await _found(client, find or "", limit, asked)
            _show(records, False)
        last = records[-1].seq if records else 0

        async def after() -> AsyncIterator[list[AuditRecord]]:
            while True:
                yield await client.audit(**filters, after_seq=last, limit=1000)
                await asyncio.sleep(POLL_S)

        if follow:
            async for news in again(after):
                _show(news, True)
                last = news[-1].seq if news else last

    run(work)


async def _found(client: Client, words: str, limit: int, filters: dict[str, Any]) -> list[AuditRecord]:
    """The newest records that fit, by as many steps as it takes, out of archives too. On standard error: which of them
    come from one, and what could not be read."""
    from tui.trail import asked

    try:
        text = asked(words, time.time())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found: list[AuditRecord] = []
    unread: dict[str, None] = {}
    before: int | None = None
    with Passing() as passing:
        while len(found) < limit:
            page = await client.proof.find(text, before_seq=before, limit=min(1000, limit - len(found)), **filters)
            found[:0] = page.records
            unread.update(dict.fromkeys(page.unread))
            passing.show(page.working)
            if not page.more:
                break
            before = page.searched
    for told in unread:
        note(line(told))
    if not (options().quiet or options().json):
        _say_archived(found)
    return found


def _say_archived(found: Sequence[AuditRecord]) -> None:
    of: dict[int, list[int]] = {}
    for each in found:
        if each.archive:
            of.setdefault(each.archive, []).append(each.seq)
    for number, seqs in of.items():
        which = f"record {seqs[0]} comes" if len(seqs) == 1 else f"{len(seqs)} records, {seqs[0]} to {seqs[-1]}, come"
        note(f"{which} from archive {number} (`corral audit archives`)")


def _say_older(found: AuditArchives, since: float | None) -> None:
    """On standard error: where older records lie that may fit too."""
    start = datetime.fromtimestamp(since or 0, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    older = [each for each in found.archives if each.ended >= start]
    if older:
        files = ", ".join(line(each.file) for each in older[-3:])
        more = f" and {len(older) - 3} more: see `corral audit archives`" if len(older) > 3 else ""
        note(f"records {older[0].first} to {older[-1].last} are archived and not searched with -f: {files}{more}")


def _show(records: Sequence[AuditRecord], stream: bool) -> None:
    if options().json and not stream:
        as_json(records)
        return
    if options().json:
        for record in records:
            say(msgspec.json.encode(record).decode())
        return
    if stream:
        for r in records:
            say(f"{r.seq:>6}  {local(r.time)}  {line(actor(r))}  {line(r.verb)}  {line(r.object)}  {line(r.outcome)}")
        return
    table(
        ("SEQ", "TIME", "ACTOR", "VERB", "OBJECT", "OUTCOME", "REASON"),
        [(r.seq, local(r.time), actor(r), r.verb, r.object, r.outcome, r.reason) for r in records],
        spare=("REASON", "ACTOR"),
    )


@audit.command("verify")
@click.argument("file", required=False)
@click.option("--key", "keys", multiple=True, metavar="PUB", help="with FILE: a public key that you trust, or its file")
@click.option("--against", metavar="OLDER", help="with FILE: an earlier export, or a copy of audit.proof")
@click.option("--archives", is_flag=True, help="also the files that older records lie in, whole")
@with_options
def verify(file: str | None, keys: tuple[str, ...], against: str | None, archives: bool) -> None:
    """Walk the whole chain; names the first record that is wrong. Exit 1 if there is one.

    With FILE, an export (- is standard input), it needs no daemon: whether the file is complete, in order and
    unaltered, by the public keys that you trust (--key), and with --against that it goes on from an earlier file.
    """
    if file == against == "-":
        raise click.UsageError("- is standard input, which is one file: name the other one")
    if file is not None and archives:
        raise click.UsageError("--archives is for the trail of this daemon, and an archive is a FILE of its own")
    if file is not None:
        _verify_file(file, keys, against)
        return
    if keys or against:
        raise click.UsageError("--key and --against are for a FILE")
    progress = Progress("verify")
    try:
        report = run(lambda client: client.proof.verify(progress.show, archives=archives))
    finally:
        progress.end()
    if options().json:
        as_json(report)
    else:
        say(f"{report.records} records in {report.seconds} s: {line(report.message)}")
        for fault in report.faults[1:]:
            say(f"also: {line(fault.message)} ({line(fault.how)})")
        say(f"head {report.head}")
    if not report.ok:
        raise click.exceptions.Exit(1)


def _verify_file(file: str, keys: tuple[str, ...], against: str | None) -> None:
    from tui.verbs import proof

    if not keys:
        raise click.UsageError("say --key PUB: the public key that you trust (a file proves nothing about itself)")
    try:
        found = proof.check(file, keys, against)
    except CorralError as error:
        raise Told(error) from error
    proof.tell(found)
    if not found.ok:
        raise click.exceptions.Exit(1)


@audit.command("export")
@click.option("--since", type=Moment(), help="10m, 2h, 90d, or an ISO 8601 time; without it from the first record on")
@click.option("--out", required=True, metavar="FILE", help="file to make, or - for standard output")
@with_options
def export(since: float | None, out: str) -> None:
    """Write the trail to a signed file, to be verified elsewhere.

    It has the records, checkpoints and public keys; `corral audit verify FILE --key PUB` needs no daemon.
    """
    from tui import exports

    if out == "-" and options().json:
        raise click.UsageError("--out - writes the export itself: there is no place for --json")
    progress = Progress("export")

    async def work(client: Client) -> bytes:
        of = (await client.status()).audit_records  # more than comes where --since leaves some out
        watch = lambda lines, size: progress.show(min(lines, of), of)  # noqa: E731
        file = None if out == "-" else Path(out)
        return await exports.write(client.proof.export(since), file, replace=options().yes, watch=watch)

    try:
        tail = run(work)
    finally:
        progress.end()
    if out == "-":
        return
    end = exports.ended(tail)
    told = {"file": out, "records": end.records, "last": end.last, "head": end.hash, "checkpoints": end.checkpoints,
            "key": end.key}  # fmt: skip
    signed = f"signed by key {end.key}" if end.key else "NOT SIGNED (see `corral audit key show`)"
    tell(told, f"{end.records} records up to {end.last} and {end.checkpoints} checkpoints in {line(out)}, {signed}")


@audit.command("archive")
@click.option("--before", required=True, type=Moment(), help="90d, 2026-01-01, or another ISO 8601 time")
@click.option("--to", metavar="DIR", help="folder for the file; the daemon has to run as you")
@click.option("--reason", default="", help="why; it goes into the record")
@click.option("--recent", is_flag=True, help="also records of the last day")
@click.option("--plan", is_flag=True, help="say what would be archived, and do nothing")
@with_options
def archive(before: float, to: str | None, reason: str, recent: bool, plan: bool) -> None:
    """Move old records into a signed file, under a seal.

    Up to the last checkpoint before the time that is named. The file is an export: `corral audit verify FILE` checks it
    anywhere, and `corral audit verify --archives` both together. For the owner of a daemon of his own, and for root.
    """
    folder = str(Path(to).expanduser().absolute()) if to else ""
    meant = run(lambda client: client.proof.archive_plan(before, folder, recent=recent))
    words = f"records {meant.first} to {meant.last} ({local(meant.began)} to {local(meant.ended)})"
    if plan:
        tell(meant, f"{words} would go into {line(meant.file)}; {meant.stays} stay")
        return
    ask(f"Move {words} out of the database, into {line(meant.file)}?", before=before)

    async def work(client: Client) -> AuditArchive:
        doing, passing = asyncio.create_task(client.proof.archive(before, folder, reason, recent=recent)), Passing()
        try:
            while not (await asyncio.wait([doing], timeout=POLL_S))[0]:
                passing.show((await client.proof.archives()).working)
            return await doing
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            passing.end()

    found = run(work)
    tell(found, f"records {found.first} to {found.last} lie in {line(found.file)}, sealed by key {found.key}")


@audit.command("archives")
@with_options
def archives() -> None:
    """Which older records lie in which file."""
    found = run(lambda client: client.proof.archives())
    if options().json:
        as_json(found)
        return
    table(
        ("NUMBER", "RECORDS", "FROM", "TO", "BYTES", "THERE", "FILE"),
        [(a.number, f"{a.first}-{a.last}", local(a.began), local(a.ended), a.bytes, "yes" if a.there else "NO", a.file)
         for a in found.archives],
    )  # fmt: skip
    if found.working:
        say(f"now: {line(found.working)}")


@audit.command("report")
@click.option("--since", type=Moment(), help="10m, 2h, 90d, or an ISO 8601 time; without it from the first record on")
@click.option("--html", is_flag=True, help="a page of HTML instead of Markdown")
@click.option("--out", metavar="FILE", help="file to make; without it standard output")
@with_options
def report(since: float | None, html: bool, out: str | None) -> None:
    """One page to file: rights, use, changes, refusals, gaps.

    With the verification, and who was given what by whom. Exit 1 if the chain does not verify; the page is written
    all the same.
    """
    from tui import exports, page
    from tui import report as made

    found = run(lambda client: client.proof.report(since))
    if options().json:
        as_json(found)
    else:
        draw = page.as_html if html else page.as_markdown
        text = draw(made.title(found), made.sections(found))
        if out is None:
            say(text)
        else:
            try:
                exports.make(Path(out), text.encode(), replace=options().yes)
            except CorralError as error:
                raise Told(error) from error
            tell(found, f"the report is in {line(out)}")
    if not found.chain.ok:
        raise click.exceptions.Exit(1)


@audit.command("accept")
@click.option("--reason", required=True, help="why; it goes into the record")
@with_options
def accept(reason: str) -> None:
    """Accept what is wrong with the chain, by a record in it. Root's, or the owner's; what changes later is told."""
    if not reason.strip():
        raise click.UsageError("--reason is empty")
    found = run(lambda client: client.verify_audit())
    if found.ok:
        tell(found, "the chain is whole: there is nothing to accept")
        return
    if not options().json:
        for fault in found.faults:
            say(f"{line(fault.message)} ({line(fault.how)})")
    faults = [fault.message for fault in found.faults]
    ask(f"Accept {'this' if len(faults) == 1 else 'these'} as {line(reason)!r}?", faults=faults)
    report = run(lambda client: client.accept_audit(reason, found.faults))
    if not report.ok:
        raise Told(Failed("the chain still does not verify", report.message, "see the daemon's log"))
    tell(report, line(report.message))


@audit.group("key", cls=Nouns)
def key() -> None:
    """The key that signs the trail."""


@key.command("show")
@with_options
def show_key() -> None:
    """The public keys, and how far the trail is vouched for. With -q the active public key alone."""
    _tell_keys(run(lambda client: client.proof.keys()))


@key.command("rotate")
@click.option("--reason", default="", help="why; it goes into the record")
@click.option("--lost", is_flag=True, help="the key before is gone for good, and does not sign the next one")
@with_options
def rotate(reason: str, lost: bool) -> None:
    """Go over to another key, which the one before signs."""
    if lost:
        ask("Without the old key's signature, whoever holds its public half must be given the new one. Go on?")
    _tell_keys(run(lambda client: client.proof.rotate(reason, lost=lost)))


def _tell_keys(found: AuditKeys) -> None:
    if options().json:
        as_json(found)
        return
    if options().quiet:
        say(line(next((each.key for each in found.keys if each.state == "active"), "")))
        return
    table(
        ("NUMBER", "ID", "STATE", "SINCE", "SIGNED BY", "KEY"),
        [(k.number, k.id, k.state, local(k.time), k.signed_by or "nobody", k.key) for k in found.keys],
    )
    say(f"installation {line(found.installation)}")
    if found.checkpoints:
        more = f"{found.unvouched} after it" if found.unvouched else "none after it"
        say(f"checkpoint {found.checkpoints} of {local(found.last_time)} vouches for {found.last_seq} records; {more}")
    else:
        say("no checkpoint yet")
    where = f"with {found.place}" if found.place.startswith("agent:") else f"in {found.place}"
    say(f"the private key is {line(where)}" if found.usable else f"NOT SIGNED: {line(found.reason)}")
