"""Who did what when, allowed or refused: filter and follow it, verify the chain, write it to a file, report on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from textual.app import ComposeResult

from core.errors import CorralError
from core.nouns import AuditRecord, ChainReport, Event
from tui.changes import actor, told
from tui.plain import line
from tui.rights import lacks, unseen
from tui.screens.room import Line, Room
from tui.screens.whole import Whole
from tui.spoken import spoken
from tui.trail import Trail, asked
from tui.widgets.table import Column, Row, Table
from tui.words import dated, plural, state

NEAR = 30
"""Rows from the end of what is held at which the next page is asked for."""


class Records(Table):
    """The trail is longer than what is held: its first and last row are asked for."""

    class Edge(Table.Opened):
        """The newest record (`key` is "first"), or the oldest ("last")."""

    def action_first(self) -> None:
        self.post_message(self.Edge(self, "first"))

    def action_last(self) -> None:
        self.post_message(self.Edge(self, "last"))


class Record(Whole):
    """One record, with what it changed side by side."""

    def __init__(self, record: AuditRecord, width: int) -> None:
        super().__init__(told(record, width))
        self.record = record

    def on_resize(self) -> None:
        if self.stands:
            self.set(told(self.record, max(20, self.app.size.width - 2)))


class Audit(Room):
    """Screen 9, newest first."""

    ROOM = "audit"
    ASKS = frozenset({"verify", "filter", "export", "report", "archive"})

    def __init__(self) -> None:
        super().__init__()
        self._trail = Trail()
        self._following = False
        self._asked = self._stale = False
        self._database = self._verdict = ""
        self._verifying = False
        self._wrong = ""
        """What is wrong with the filter that is typed."""

    def fill(self) -> ComposeResult:
        yield Line(id="chain")
        yield Records(
            [
                Column("seq", 8, 4, True), Column("time", 20, 1), Column("who", 8, 1), Column("through", 8, 6),
                Column("what", 18, fit=True), Column("object", 12, fit=True), Column("outcome", 13, state=True),
                Column("reason", 20, 5, flex=True),
            ],
            id="records",
        )  # fmt: skip
        yield Line(id="found")
        yield Line(id="detail")

    # ------------------------------------------------------------------ drawing

    def draw(self, kinds: set[str]) -> None:
        if kinds & {"all", "reload"}:
            self._ask_of("reload" in kinds)
        self._show_none()
        self._show_chain()
        self._show_found()
        self._show_record()

    def _unseen(self) -> str:
        """That the trail may not be seen; "" where it may."""
        return unseen(self.corral.state.me, "audit.read", "the trail", "audit:chain")

    def _show_none(self) -> None:
        self.table().none(self._unseen() or ("No record fits" if self._trail.text else "No record yet"))

    def _ask_of(self, anew: bool) -> None:
        """Ask for what is new, also after a connection that was lost."""
        if self.corral.client is None:
            self._stale = True
        elif anew or not self._asked or self._exchanged():
            self._search()
        elif self._stale or self._trail.at_top:
            self._stale = False
            known = self.corral.state.audit
            if known and known[-1].seq < self._trail.newest:  # an older copy, or a picture from a moment ago: ask
                self._ask_newer()
            else:
                self._take_news()

    def _exchanged(self) -> bool:
        """Whether the rows are of another database than the daemon has now, or of one that went on otherwise."""
        state = self.corral.state
        before, self._database = self._database, state.status.daemon.database_id if state.status else ""
        known = {r.seq: r.hash for r in state.audit}
        other = any(known.get(r.seq, r.hash) != r.hash for r in self._trail.records[: len(known)])
        if before in ("", self._database) and not other:
            return False
        self._trail, self._verdict = Trail(self._trail.text), ""
        self._show_rows()
        return True

    def _show_rows(self) -> None:
        if not self.stands:
            return
        table = self.table()
        self._show_none()
        table.set_rows(
            [
                Row(str(r.seq), (str(r.seq), dated(r.time), actor(r), r.through, r.verb, r.object,
                                 state(r.outcome, self.corral.ascii), r.reason))
                for r in self._trail.records
            ]
        )  # fmt: skip
        if self._following:
            table.move(0)
        self._show_found()
        self._show_record()
        self.mind_keys()

    def _show_chain(self) -> None:
        status = self.corral.state.status
        words = self._verdict
        if not words and status is not None:
            whole = "chain whole" if status.audit_ok else f"CHAIN BROKEN: {status.audit_message}"
            newest = max(self._trail.newest, status.audit_records)
            barred = lacks(self.corral.state.me, "audit.verify", "audit:chain")
            verify = "You may not verify it (audit.verify)" if barred else "v verifies it now"
            words = f"{newest} records, {whole}. {verify}"
        self.query_one("#chain", Line).set(words)

    def _show_found(self) -> None:
        trail, words = self._trail, []
        if self._wrong:
            words.append(self._wrong)
        elif trail.text:
            more = "" if trail.at_end else "at least "
            words.append(f"{more}{len(trail.records)} {plural(len(trail.records), 'record')} that fit {trail.text!r}")
        if trail.searching and trail.working:
            words.append(trail.working)
        elif trail.searching and trail.oldest:
            words.append(f"searched down to record {trail.oldest}")
        words += trail.unread
        if trail.at_end and trail.first > 1:
            words.append(f"records before {trail.first} were archived and cannot be read: see `corral audit archives`")
        if self._following:
            words.append("following (f ends it)")
        box = self.query_one("#found", Line)
        box.set("; ".join(words))
        box.display = bool(words)

    def _show_record(self) -> None:
        record = self.record()
        words = ""
        if record is not None:
            whence = f" (archive {record.archive})" if record.archive else ""
            words = f"{record.seq}{whence}: {record.verb} {record.object} {record.outcome}"
            words += f", {actor(record)} through {record.through}"
            words += f": {record.reason}" if record.reason else f", hash {record.hash[:12]}"
        self.query_one("#detail", Line).set(f"-- {words}")

    def record(self) -> AuditRecord | None:
        """The one under the cursor."""
        key = int(self.table().key or 0)
        return next((each for each in self._trail.records if each.seq == key), None)

    # ------------------------------------------------------------------ the window

    def _work(self, work: Callable[[Any], Awaitable[object]]) -> None:
        """Ask in a worker; the question before is given up. What would only be refused is not asked."""
        if self._unseen():
            self._asked = False
            return
        self.run_worker(partial(self._tried, work), group="trail", exclusive=True, exit_on_error=True)  # type: ignore[arg-type]

    async def _tried(self, work: Callable[[Any], Awaitable[object]]) -> None:
        client = self.corral.client
        if client is None:
            self._stale = True
            return
        try:
            await work(client.proof)
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            if self.stands:
                self.say(spoken(error))

    def _search(self, before: int | None = None) -> None:
        """Begin anew with what is typed; at the record below `before`."""
        typed = next((box.value for box in self.query("#needle.on")), "")  # type: ignore[attr-defined]
        try:
            text, self._wrong = asked(typed, time.time()), ""
        except ValueError as error:
            self._wrong = line(error)
            self._show_found()
            return
        self._asked = True
        trail = Trail(text)

        def drawn() -> None:
            self._trail = trail  # not before something is known: the rows that stand there are of use
            self._show_rows()

        self._work(lambda of: trail.begin(of, drawn, before))

    def _ask_newer(self) -> None:
        trail = self._trail

        async def newer(of: Any) -> None:
            await trail.newer(of, self._show_rows)
            if trail.cut:
                self._search()

        self._work(newer)

    def happened(self, event: Event) -> None:
        if event.type == "audit":
            self._take_news()

    def _take_news(self) -> None:
        """What came while one looked elsewhere, or just now."""
        if not self._trail.at_top or self._trail.searching:
            return
        if self._trail.live([r for r in self.corral.state.audit if r.seq > self._trail.newest]):
            self._show_rows()
        else:
            self._ask_newer()

    def on_table_moved(self, event: Table.Moved) -> None:
        table, trail = self.table(), self._trail
        self._show_record()
        if self._following and table.cursor > 0:
            self._following = False
            self._show_found()
        if trail.searching:
            return
        if table.cursor > len(table.rows) - NEAR and not trail.at_end:
            self._work(lambda of: trail.older(of, self._show_rows))
        elif table.cursor < NEAR and not trail.at_top:
            self._ask_newer()

    def on_records_edge(self, event: Records.Edge) -> None:
        table, trail = self.table(), self._trail
        if event.key == "first":
            if trail.at_top:
                table.move(0)
            else:
                self._search()
                table.move(0)
        elif trail.at_end:
            table.move(len(table.rows))
        else:

            def drawn() -> None:
                self._show_rows()
                table.move(len(table.rows))

            self._work(lambda of: trail.last(of, drawn))

    def seek(self, row: str) -> bool:
        if super().seek(row) or not row.isdigit():
            return True
        self._search(int(row) + 1)
        return True

    # ------------------------------------------------------------------ keys

    def on_input_changed(self, event: Any) -> None:
        event.prevent_default()  # the rows that are here are not all that there are
        self._search()

    def field_keys(self, field: Any) -> list[str]:
        return ["enter To the rows", "actor: verb: object: outcome: since: until: change: -word", "esc Clear"]

    def hindered(self, action: str) -> str:
        if action == "explain" and not self.table().key:
            return self._unseen() or "No record is selected"
        if action == "verify" and self._verifying:
            return ""
        return super().hindered(action)

    def about(self, action: str) -> str:
        return "audit:chain"

    async def on_table_opened(self, event: Table.Opened) -> None:
        if not isinstance(event, Table.Moved | Records.Edge):
            await self.action_do("explain")

    def action_explain(self) -> None:
        record = self.record()
        if record is not None:
            self.app.push_screen(Record(record, max(20, self.app.size.width - 2)))

    def action_follow(self) -> None:
        self._following = not self._following
        if self._following:
            self.on_records_edge(Records.Edge(self.table(), "first"))
        self._show_found()

    def action_export(self) -> None:
        from tui.screens.auditforms import ExportForm

        self.app.push_screen(ExportForm())

    def action_report(self) -> None:
        from tui.screens.auditforms import ReportForm

        self.app.push_screen(ReportForm())

    def action_archive(self) -> None:
        from tui.screens.archiveform import ArchiveForm

        self.app.push_screen(ArchiveForm())

    def action_verify(self) -> None:
        if self._verifying:
            self.workers.cancel_group(self, "verify")
        else:
            self.run_worker(self._verify(), group="verify", exclusive=True, exit_on_error=True)

    async def _verify(self) -> None:
        def looked(done: int, of: int) -> None:
            share = f" ({done * 100 // of} %)" if of else ""
            self._said_of(f"Verifying: {done} of {of} records{share}. v ends it")

        self._verifying = True
        self._said_of("Verifying. v ends it")
        words = "The verification was ended"
        try:
            report: ChainReport = await self.corral.client.proof.verify(looked)
            told = "the chain is whole" if report.ok else f"WRONG at {report.wrong} ({report.how}): {report.message}"
            words = f"Verified {report.records} records in {report.seconds:.1f} s: {told}"
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            words = f"Not verified: {spoken(error)}"
        finally:
            self._verifying = False
            self._said_of(words)

    def _said_of(self, words: str) -> None:
        self._verdict = words
        if self.stands:
            self._show_chain()
            self.mind_keys()
