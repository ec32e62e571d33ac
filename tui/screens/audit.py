"""Who did what when, allowed or refused; filter and verify the chain."""

from __future__ import annotations

import json

import msgspec
from textual.app import ComposeResult

from core.nouns import AuditRecord, ChainReport
from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table
from tui.words import clock, state


def told(record: AuditRecord) -> str:
    """A record with every field on a line."""
    fields = msgspec.to_builtins(record)
    return "\n".join(
        f"{name:9} {json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value}"
        for name, value in fields.items()
        if value not in (None, "")
    )


class Audit(Room):
    """Screen 9, newest first."""

    ROOM = "audit"
    ASKS = frozenset({"verify"})

    def __init__(self) -> None:
        super().__init__()
        self._older: list[AuditRecord] = []
        self._asked = False

    def fill(self) -> ComposeResult:
        yield Line(id="chain")
        yield Table(
            [
                Column("seq", 7, 4, True), Column("time", 19, 1), Column("who", 8, 1), Column("through", 8, 6),
                Column("what", 18, fit=True), Column("object", 12, fit=True), Column("outcome", 13, state=True),
                Column("reason", 20, 5, flex=True),
            ],
            empty="No record yet", id="records",
        )  # fmt: skip
        yield Line(id="detail")

    def draw(self, kinds: set[str]) -> None:
        known = self.corral.state
        if "reload" in kinds:
            self._asked = False
        if not self._asked and self.corral.client is not None:
            self._asked = True
            self.corral.act(lambda client: client.audit(limit=300), self._take)
        records = self.records()
        self.table().set_rows(
            [
                Row(str(s), (str(s), clock(r.time), r.actor, r.through, r.verb, r.object,
                             state(r.outcome, self.corral.ascii), r.reason))
                for s, r in sorted(records.items(), reverse=True)
            ]
        )  # fmt: skip
        if known.status is not None and not self.query_one("#chain", Line).text.startswith("Verified"):
            status = known.status
            words = "chain whole" if status.audit_ok else f"CHAIN BROKEN: {status.audit_message}"
            newest = max(records, default=status.audit_records)
            self.query_one("#chain", Line).set(f"{newest} records, {words}. v verifies it now")
        record = records.get(int(self.table().key or 0))
        words = ""
        if record is not None:
            words = (
                f"{record.seq}: {record.verb} {record.object} {record.outcome}, {record.actor} through {record.through}"
            )
            words += f": {record.reason}" if record.reason else f", hash {record.hash[:12]}"
        self.query_one("#detail", Line).set(f"-- {words}")

    def records(self) -> dict[int, AuditRecord]:
        """All that are known here, by seq."""
        return {r.seq: r for r in (*self._older, *self.corral.state.audit)}

    def hindered(self, action: str) -> str:
        if action == "explain" and not self.table().key:
            return "No record is selected"
        return super().hindered(action)

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("explain")

    def action_explain(self) -> None:
        from tui.screens.whole import Whole

        record = self.records().get(int(self.table().key or 0))
        if record is not None:
            self.app.push_screen(Whole(told(record)))

    def _take(self, records: list[AuditRecord]) -> None:
        self._older = list(records)
        self.draw({"audit"})

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"audit"})

    def action_verify(self) -> None:
        def shown(report: ChainReport) -> None:
            words = "the chain is whole" if report.ok else f"WRONG at {report.wrong} ({report.how}): {report.message}"
            self.query_one("#chain", Line).set(f"Verified {report.records} records in {report.seconds:.1f} s: {words}")

        self.query_one("#chain", Line).set("Verifying")
        self.corral.act(lambda client: client.verify_audit(), shown)
