"""Is everything all right: the host, the deployments, warnings and the last changes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from core.nouns import NodeSample
from tui import rights
from tui.screens import FOLDER
from tui.screens.room import Note, Room
from tui.widgets.chart import Chart
from tui.widgets.meter import Meter
from tui.widgets.table import Column, Row, Table
from tui.words import age, clock, size, state

CHANGES = 60
"""The last changes, as many as a tall terminal has lines for."""


class Overview(Room):
    """Screen 1."""

    ROOM = "overview"
    ASKS = frozenset({"explain"})
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "overview.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0.0
        self._asked = False

    def fill(self) -> ComposeResult:
        yield Note("Waiting for the daemon", id="verdict")
        yield Note(id="hosts")
        yield Meter("cpu", id="cpu")
        yield Meter("memory", id="memory")
        yield Meter("disk", id="disk")
        yield Chart("cpu, 5 s a column", id="chart")
        yield Table(
            [
                Column("deployment", 14, fit=True), Column("state", 12, state=True), Column("replicas", 8, 3, True),
                Column("tok/s", 7, 2, True), Column("since", 6, 4, True), Column("reason", 20, 5, flex=True),
            ],
            id="deployments",
        )  # fmt: skip
        last = Table(
            [Column("time", 19, 1), Column("who", 8, 1), Column("what", 18, fit=True), Column("object", 12, fit=True),
             Column("outcome", 13, state=True), Column("reason", 16, 5, flex=True)],
            id="last",
        )  # fmt: skip
        last.can_focus = False
        yield last

    def fold(self) -> None:
        height = self.app.size.height
        hosts = not self._unseen()
        for meter in self.query(Meter):
            meter.display = hosts
        self.query_one(Chart).display = hosts and height >= 16
        self.query_one("#last").display = height >= 20

    def _unseen(self) -> str:
        """That no host may be seen; "" where it may."""
        return rights.unseen(self.corral.state.me, "nodes.read", "hosts", "node:local")

    def _nothing(self) -> str:
        """What is said where nothing is deployed."""
        todo = "press 3, then m for the sample model and d to deploy it"
        me = self.corral.state.me
        return rights.unseen(me, "deployments.read", "deployments") or rights.none(
            me, "Nothing is deployed", todo, "models.import", "deployments.create"
        )

    def draw(self, kinds: set[str]) -> None:
        hosts = self.query_one("#hosts", Note)
        if hosts.text != (unseen := self._unseen()):
            hosts.set(unseen)
            self.fold()
        self.query_one("#deployments", Table).none(self._nothing())
        trail = rights.unseen(self.corral.state.me, "audit.read", "the trail", "audit:chain")
        self.query_one("#last", Table).none(trail or "No record yet")
        known, plain_ascii = self.corral.state, self.corral.ascii
        status = known.status
        if status is not None:
            bad = sorted(n for n, d in known.deployments.items() if d.state in ("failed", "degraded"))
            ready = sum(d.state == "ready" for d in known.deployments.values())
            stopped = sum(d.wanted == "stopped" for d in known.deployments.values())
            calm = all(d.state in ("ready", "asleep") or d.wanted == "stopped" for d in known.deployments.values())
            told = f"{ready} of {len(known.deployments) - stopped} deployments ready"
            told += f", {stopped} stopped" if stopped else ""
            told += f", models: {len(known.models)}"
            verdict = self.query_one("#verdict", Note)
            well = calm and not known.health()
            verdict.set(f"! Look at {', '.join(bad)}: {told}" if bad else f"All is well: {told}" if well else told)
            verdict.set_class(bool(bad), "bad")
            verdict.set_class(well, "well")
        if known.samples and not unseen:
            now = known.samples[-1]
            used = now.memory_bytes - now.free_bytes
            self.query_one("#cpu", Meter).set(now.cpu_percent / 100, f"{now.cpu_percent:3.0f} %  load {now.load1:.1f}")
            memory = f"{size(used)} of {size(now.memory_bytes)}"
            self.query_one("#memory", Meter).set(used / max(1, now.memory_bytes), memory)
            taken = now.disk_bytes - now.disk_free_bytes
            disk = f"{size(taken)} of {size(now.disk_bytes)}"
            self.query_one("#disk", Meter).set(taken / max(1, now.disk_bytes), disk)
            if not self._asked and self.corral.client is not None:
                self._asked, self._drawn = True, now.time
                self.corral.act(lambda client: client.samples(600), self._past)
            elif now.time != self._drawn:
                self._drawn = now.time
                self.query_one(Chart).add(now.cpu_percent / 100)
        speed: dict[str, float] = {}
        for replica in known.replicas.values():
            speed[replica.deployment] = speed.get(replica.deployment, 0.0) + replica.tokens_per_second
        self.query_one("#deployments", Table).set_rows(
            [
                Row(n, (n, state(d.state, plain_ascii), f"{d.ready}/{d.spec.replicas}", f"{speed.get(n, 0):.1f}",
                        age(d.since, known.clock()), d.reason))
                for n, d in sorted(known.deployments.items())
            ]
        )  # fmt: skip
        self.query_one("#last", Table).set_rows(
            [
                Row(str(r.seq), (clock(r.time), r.actor, r.verb, r.object, state(r.outcome, plain_ascii), r.reason))
                for r in list(known.audit)[: -CHANGES - 1 : -1]
            ]
        )

    def _past(self, samples: list[NodeSample]) -> None:
        """What was looked at before this console opened."""
        self.query_one(Chart).fill([sample.cpu_percent / 100 for sample in samples or ()])

    def hindered(self, action: str) -> str:
        if action == "explain" and not self.table().key:
            return self._nothing()
        return super().hindered(action)

    def table(self) -> Table:
        return self.query_one("#deployments", Table)

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("explain")

    def action_explain(self) -> None:
        from tui.screens.explain import Explain

        self.app.push_screen(Explain(self.table().key))
