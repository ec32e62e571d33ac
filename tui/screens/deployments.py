"""What should run, what runs, where, since when, with how much; and every verb on it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from core.nouns import Deployment
from tui.rights import none, unseen
from tui.screens import FOLDER
from tui.screens.room import Note, Room
from tui.widgets.table import Column, Row, Table
from tui.widgets.trace import LOW, Trace
from tui.words import age, moment, served, size, slots, state


def about(chosen: Deployment) -> str:
    """A deployment's state in a sentence, with the whole reason."""
    wanted = "" if chosen.wanted == "running" else ", wanted stopped"
    reason = f": {chosen.reason}" if chosen.reason else ""
    mark = ""
    if chosen.mark is not None:
        keys = ", ".join(map(str, chosen.mark.groups)) or "nobody"
        mark = f"SENSITIVE, on nodes with {', '.join(chosen.mark.labels)}, keys of {keys}, no chats kept. "
    return f"{mark}{chosen.spec.name} is {chosen.state} since {moment(chosen.since)}{wanted}{reason}"


def _named(deployment: Deployment) -> str:
    name = deployment.spec.name
    return f"{name} (sensitive)" if deployment.mark is not None else name


class Deployments(Room):
    """Screen 2: deployments, and the replicas of the one under the cursor."""

    ROOM = "deployments"
    ASKS = frozenset({"deploy", "stop", "restart", "scale", "remove", "logs", "explain"})
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "deployments.tcss"]

    def fill(self) -> ComposeResult:
        yield Table(
            [
                Column("deployment", 14, fit=True), Column("state", 12, state=True), Column("ready", 6, 2, True),
                Column("since", 6, 1, True), Column("model", 14, 3, fit=True), Column("ctx", 7, 5, True),
                Column("a slot", 7, 5, True), Column("set aside", 9, 4, True), Column("reason", 18, flex=True),
            ],
            id="deployments",
        )  # fmt: skip
        yield Note(id="detail")
        yield Table(
            [
                Column("replica", 12, fit=True), Column("state", 12, state=True), Column("tok/s", 7, 3, True),
                Column("cpu %", 6, 3, True), Column("memory", 9, 3, True), Column("pss", 9, 4, True),
                Column("slots", 8, 5, True), Column("pid", 8, 6, True), Column("engine", 12, 7),
                Column("restarts", 8, 1, True), Column("reason", 18, flex=True),
            ],
            empty="No replica", id="replicas",
        )  # fmt: skip
        yield Trace(id="trace")

    def table(self) -> Table:
        return self.query_one("#deployments", Table)

    def draw(self, kinds: set[str]) -> None:
        known, plain_ascii = self.corral.state, self.corral.ascii
        nothing = none(known.me, "Nothing is deployed", "d deploys a model", "deployments.create")
        self.table().none(unseen(known.me, "deployments.read", "deployments") or nothing)
        self.table().set_rows(
            [
                Row(n, (_named(d), state(d.state, plain_ascii), f"{d.ready}/{d.spec.replicas}",
                        age(d.since, known.clock()), served(d, plain_ascii), str(d.spec.ctx or "-"),
                        str(d.spec.ctx // max(1, d.spec.parallel) or "-"), size(d.plan_bytes), d.reason))
                for n, d in sorted(known.deployments.items())
            ]
        )  # fmt: skip
        chosen = known.deployments.get(self.table().key)
        self.query_one("#detail", Note).set(f"-- {about(chosen)}" if chosen else "--")
        self.query_one("#replicas", Table).set_rows(
            [
                Row(r.id, (r.id, state(r.state, plain_ascii), f"{r.tokens_per_second:.1f}", f"{r.cpu_percent:.0f}",
                           size(r.rss_bytes), size(r.pss_bytes) if r.pss_bytes else "-",
                           slots(r.slots_busy, r.parallel, r.queued), str(r.pid or "-"), r.engine, str(r.restarts),
                           r.reason))
                for r in sorted(known.replicas.values(), key=lambda r: r.place)
                if chosen is not None and r.deployment == chosen.spec.name
            ]
        )  # fmt: skip

        self._trace()

    def fold(self) -> None:
        self.query_one(Trace).display = self.app.size.height >= LOW

    def _trace(self) -> None:
        """Draw the last minutes of the replica under the lower table's cursor."""
        replica = self.query_one("#replicas", Table).key
        self.query_one(Trace).show(replica, self.corral.state.past.get(replica))

    def on_table_moved(self, event: Table.Moved) -> None:
        if event.table.id == "deployments":
            self.draw({"deployment"})
        else:
            self._trace()

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("explain")

    def chosen(self) -> Deployment | None:
        """The deployment under the cursor."""
        return self.corral.state.deployments.get(self.table().key)

    def hindered(self, action: str) -> str:
        chosen = self.chosen()
        if chosen is None and action not in ("deploy", "filter"):
            me = self.corral.state.me
            return none(me, "No deployment is selected", "d deploys a model", "deployments.create")
        if chosen is not None and chosen.wanted == "stopped" and action == "restart":
            return f"{chosen.spec.name} is stopped: s starts it"
        return super().hindered(action)

    def needs(self, action: str) -> str:
        chosen = self.chosen()
        if action == "stop" and chosen is not None:
            return "deployments.start" if chosen.wanted == "stopped" else "deployments.stop"
        return super().needs(action)

    def about(self, action: str) -> str:
        return "" if action == "deploy" else f"deployment:{self.table().key}"

    # ------------------------------------------------------------------ verbs

    def action_deploy(self) -> None:
        from tui.screens.deploy import DeployForm

        self.app.push_screen(DeployForm())

    def action_stop(self) -> None:
        chosen = self.chosen()
        if chosen is None:
            return
        name = chosen.spec.name
        if chosen.wanted == "stopped":
            self.corral.act(lambda client: client.start_deployment(name))
            return
        self.confirmed(
            f"Stop {name}? Its {chosen.ready} ready replicas end; s starts them again",
            lambda client: client.stop_deployment(name),
        )

    def action_restart(self) -> None:
        chosen = self.chosen()
        if chosen is not None:
            name = chosen.spec.name
            self.confirmed(
                f"Restart {name}? Answers in flight end first, new requests wait",
                lambda client: client.restart_deployment(name),
            )

    def action_remove(self) -> None:
        chosen = self.chosen()
        if chosen is not None:
            name = chosen.spec.name
            self.confirmed(
                f"Remove the deployment {name}? Its replicas end",
                lambda client: client.remove_deployment(name),
                typed=name,
            )

    def action_scale(self) -> None:
        from tui.screens.deploy import ScaleForm

        chosen = self.chosen()
        if chosen is not None:
            self.app.push_screen(ScaleForm(chosen))

    def action_logs(self) -> None:
        from tui.screens.log import Log

        chosen = self.chosen()
        if chosen is not None:
            self.app.push_screen(Log(chosen.spec.name))

    def action_explain(self) -> None:
        from tui.screens.explain import Explain

        chosen = self.chosen()
        if chosen is not None:
            self.app.push_screen(Explain(chosen.spec.name))
