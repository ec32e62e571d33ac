"""A replica's log: read by range, drawn by the line, followed while the end is in view."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding

from core.errors import CorralError
from core.nouns import LogText
from tui.plain import plain
from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table

LINES_KEPT = 5000


class Log(Room):
    """`p` shows the launch before, tab the next replica, G the end."""

    ROOM = "log"
    BINDINGS: ClassVar = [
        Binding("p", "previous", "Previous launch", show=False),
        Binding("tab", "replica", "Next replica", show=False, priority=True),
        Binding("slash", "filter", "Filter", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("escape", "back", "Back", show=False),
    ]

    def __init__(self, deployment: str) -> None:
        super().__init__()
        self.deployment = deployment
        self.replica = 0
        self.previous = False
        self.lines: list[str] = []
        self._partial = ""

    def fill(self) -> ComposeResult:
        yield Line(id="what")
        yield Table([Column("line", 20, flex=True)], empty="Nothing yet", id="lines")

    def keys(self) -> str:
        return " j/k Move  G End  / Filter  p Launch before  tab Next replica  y Copy  esc Back"

    def on_mount(self) -> None:
        super().on_mount()
        self._read()

    def _read(self) -> None:
        self.lines, self._partial = [], ""
        which = "the launch before" if self.previous else "this launch"
        self.query_one("#what", Line).set(f"Log of {self.deployment}/{self.replica}, {which}")
        self.run_worker(self._follow(), group="log", exclusive=True)

    async def _follow(self) -> None:
        start = -65536
        while self.corral.client is not None:
            try:
                got: LogText = await self.corral.client.logs(
                    self.deployment, replica=self.replica, start=start, previous=self.previous,
                    wait=0 if start < 0 else 10,
                )  # fmt: skip
            except (CorralError, OSError, EOFError, TimeoutError) as error:
                self.say(str(error))
                return
            if got.text:
                self._add(got.text)
            if (got.ended or self.previous) and not got.text:
                return
            start = got.end

    def _add(self, text: str) -> None:
        *whole, self._partial = (self._partial + text).split("\n")
        table = self.table()
        at_end = table.cursor >= len(table.rows) - 1
        self.lines = (self.lines + [plain(each) for each in whole])[-LINES_KEPT:]
        table.set_rows([Row(str(n), (each,)) for n, each in enumerate(self.lines)])
        if at_end:
            table.move(len(table.rows) - 1)

    def action_previous(self) -> None:
        self.previous = not self.previous
        self._read()

    def action_replica(self) -> None:
        known = self.corral.state.deployments.get(self.deployment)
        self.replica = (self.replica + 1) % max(1, known.spec.replicas if known else 1)
        self._read()

    def copied(self) -> str:
        table = self.table()
        return table.rows[table.cursor].cells[0] if table.rows else ""

    def check_action(self, action: str, parameters: tuple[Any, ...]) -> bool | None:
        return True
