"""A replica's log: read by range, drawn by the line, followed while the end is in view."""

from __future__ import annotations

from textual.app import ComposeResult

from core.errors import CorralError
from core.nouns import Event, LogText
from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table

LINES_KEPT = 5000


class Log(Room):
    """`p` shows the launch before, tab the next replica, G the end, enter a line that is cut off."""

    ROOM = "log"
    ASKS = frozenset({"previous", "replica"})

    def __init__(self, deployment: str) -> None:
        super().__init__()
        self.deployment = deployment
        self.replica = 0
        self.previous = False
        self._lines = 0
        self._partial = ""
        self._launch, self._over = "", False
        """Whose log this is, and whether nothing more will come."""

    def fill(self) -> ComposeResult:
        yield Line(id="what")
        yield Table([Column("line", 20, flex=True)], empty="Nothing yet", id="lines")

    def hindered(self, action: str) -> str:
        known = self.corral.state.deployments.get(self.deployment)
        if action == "replica" and (known is None or known.spec.replicas < 2):
            return f"{self.deployment} has no other replica"
        return super().hindered(action)

    def on_mount(self) -> None:
        super().on_mount()
        self._read()

    def _read(self) -> None:
        self._partial = ""
        self.table().set_rows([])
        self._over = False
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
            self._launch = got.launch
            if got.text:
                self._add(got.text)
            if (got.ended or self.previous) and not got.text:
                self._over = True
                return
            start = got.end

    def _add(self, text: str) -> None:
        *whole, self._partial = (self._partial + text).split("\n")
        self._lines += len(whole)
        first = self._lines - len(whole)
        self.table().append([Row(str(n), (each,)) for n, each in enumerate(whole, first)], LINES_KEPT)
        self.mind_keys()

    def happened(self, event: Event) -> None:
        """A new launch has a new log."""
        if event.type == "replica" and event.object == f"replica:{self.deployment}/{self.replica}" and self._over:
            launch = (event.data or {}).get("launch", "")
            if launch and launch != self._launch and not self.previous:
                self._read()

    def on_table_opened(self, event: Table.Opened) -> None:
        self.corral.action_whole()

    def whole(self) -> str:
        return self.copied()

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
