"""A replica's log: read by range, drawn by the line, followed while the end is in view."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult

from core.errors import CorralError, NoDaemon, TimedOut
from core.nouns import Event, LogText
from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table

LINES_KEPT = 5000
BEGIN = -65536
"""How much of a log is shown at first, from its end."""
AGAIN_S, LONGEST_S = 0.5, 4.0
"""The first and the longest pause before a log is asked for again."""


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
        self._at = 0
        """The byte of it that comes next; negative: so many from the end."""
        self._cut = False
        """The connection was lost, and the log goes on when there is one again."""

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
        self._over = self._cut = False
        self._launch, self._at = "", BEGIN
        which = "the launch before" if self.previous else "this launch"
        self.query_one("#what", Line).set(f"Log of {self.deployment}/{self.replica}, {which}")
        self._go_on()

    def _go_on(self) -> None:
        self.run_worker(self._follow, group="log", exclusive=True)  # type: ignore[arg-type]

    def draw(self, kinds: set[str]) -> None:
        if self._cut and kinds & {"all", "reload"} and self.corral.client is not None:
            self._cut = False
            self.say("")
            self._go_on()

    async def _follow(self) -> None:
        pause = AGAIN_S
        while (client := self.corral.client) is not None:
            try:
                got: LogText = await client.logs(
                    self.deployment, replica=self.replica, start=self._at, previous=self.previous,
                    wait=0 if self._at < 0 else 10,
                )  # fmt: skip
            except (NoDaemon, TimedOut, OSError, EOFError) as error:
                self.say(str(error))
                await asyncio.sleep(pause)  # only this connection may be gone, or the console does not know yet
                pause = min(2 * pause, LONGEST_S)
                continue
            except CorralError as error:
                self._cut = True
                self.say(str(error))
                return
            if pause != AGAIN_S:
                pause = AGAIN_S
                self.say("")
            if self._launch and got.launch != self._launch:  # another one began while nobody could say so
                self._read()
                return
            self._launch = got.launch
            if got.text:
                self._add(got.text)
            if (got.ended or self.previous) and not got.text:
                self._over = True
                return
            self._at = got.end
        self._cut = True

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
