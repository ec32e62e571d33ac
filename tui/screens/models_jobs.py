"""What is under way with models: pulls, imports, moves, measurements, the verification; each with rate and time left,
paused, gone on with, cancelled."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from core.nouns import Verified
from tui import underway
from tui.plain import line
from tui.rights import lacks
from tui.screens.confirm import Choice
from tui.screens.room import Note, Room
from tui.underway import Job
from tui.widgets.table import Column, Row, Table
from tui.words import lasting, size, state

STOPS = {"pull": "models.import", "import": "models.import", "move": "models.move", "bench": "models.bench",
         "verify": "models.verify"}  # fmt: skip
"""What cancelling a job needs."""
STANDS = ("paused", "needs token", "failed")
"""States of a pull that goes on when it is told to."""


class Jobs(Room):
    """Opened over the Models screen; esc goes back."""

    ROOM = "jobs"
    ASKS = frozenset({"pause", "cancel", "keep"})

    def fill(self) -> ComposeResult:
        yield Table(
            [
                Column("what", 7), Column("model", 14, fit=True), Column("state", 13, state=True),
                Column("done", 5, 1, True), Column("of", 9, 2, True), Column("rate", 11, 2, True),
                Column("left", 8, 1, True), Column("about", 20, 3, flex=True),
            ],
            empty="Nothing is under way", id="jobs",
        )  # fmt: skip
        yield Note(id="about")

    def draw(self, kinds: set[str]) -> None:
        found = underway.jobs(self.corral.state)
        self.table().set_rows([self._row(each) for each in found])
        job = self.job()
        self.query_one("#about", Note).set(
            f"-- {', '.join(filter(None, (job.to_go, job.why)))}" if job is not None else ""
        )

    def _row(self, job: Job) -> Row:
        rate = f"{size(job.rate)}/s" if job.rate and not job.over else ""
        left = lasting(job.left_s) if job.left_s is not None and not job.over else ""
        cells = (
            job.kind, job.model, state(job.state, self.corral.ascii), job.share,
            job.amount if job.total else "-", rate, left, job.why,
        )  # fmt: skip
        return Row(job.key, cells, dim=job.over)

    def job(self) -> Job | None:
        """The one under the cursor."""
        key = self.table().key
        return next((each for each in underway.jobs(self.corral.state) if each.key == key), None)

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"job"})
        self.mind_keys()

    async def on_table_opened(self, event: Table.Opened) -> None:
        self.corral.action_whole()

    # ------------------------------------------------------------------ keys

    def hindered(self, action: str) -> str:
        job = self.job()
        if action in ("pause", "cancel"):
            if job is None:
                return "Nothing is under way"
            if action == "pause" and job.kind != "pull":
                return f"A {job.kind} cannot be paused: x cancels it" if not job.over else f"It is {job.state}"
            if job.over and not (action == "pause" and job.state == "failed"):
                return f"It is {job.state}"
            name = job.model.partition("@")[0]
            if self.corral.client is not None and job.kind != "verify":
                return lacks(self.corral.state.me, STOPS[job.kind], f"model:{name}")
        if action == "keep":
            pull = self.corral.state.pulls.get(job.id) if job is not None and job.kind == "pull" else None
            if pull is None or pull.deploy is None or pull.deploy.state != "waits":
                return "Nothing is deployed when this is here" if job is not None else "Nothing is under way"
            if self.corral.client is not None:
                return lacks(self.corral.state.me, STOPS["pull"], f"model:{pull.name}")
        return super().hindered(action)

    def needs(self, action: str) -> str:
        job = self.job()
        if action == "cancel" and job is not None:
            return STOPS[job.kind]
        return super().needs(action)

    def action_pause(self) -> None:
        job = self.job()
        if job is None:
            return
        id = job.id
        if job.state in STANDS:
            self.corral.act(lambda client: client.pulls.resume(id), self._keep)
        else:
            self.corral.act(lambda client: client.pulls.pause(id), self._keep)

    def _keep(self, pull: Any) -> None:
        if pull is not None:
            self.corral.state.pulls[pull.id] = pull
        if self.stands:
            self.draw({"pull"})
            self.mind_keys()

    def action_keep(self) -> None:
        """The pull goes on."""
        job = self.job()
        if job is None:
            return

        def left(pull: Any) -> None:
            self._keep(pull)
            name = pull.deploy.spec.name if pull.deploy is not None else pull.name
            if self.stands:
                self.say(line(f"{name} is not deployed; the pull goes on"), news=True)

        self.corral.act(lambda client: client.pulls.undeploy(job.id), left)

    def action_cancel(self) -> None:
        job = self.job()
        if job is None:
            return
        gone = {
            "pull": "what is here of it is removed", "import": "what is here of it is removed",
            "move": "it stays where it was", "bench": "nothing of it is kept",
            "verify": "what is verified stays verified",
        }[job.kind]  # fmt: skip
        self.confirmed(f"Cancel: {job.kind} {job.model}, {job.share} done? {gone.capitalize()}", _cancel(job))


def _cancel(job: Job) -> Any:
    """What cancels it, when it is given a client."""

    def work(client: Any) -> Any:
        match job.kind:
            case "pull":
                return client.pulls.cancel(job.id)
            case "import":
                return client.cancel_import(job.id)
            case "move":
                return client.tiers.cancel_move(job.id)
            case "bench":
                return client.choosing.cancel(job.id)
        return client.catalog.cancel_verify()

    return work


def verify(room: Room, name: str) -> None:
    """Begin a verification of all that is stored or of `name` alone, after asking which; or end the one on its way."""
    known = room.corral.state
    running = known.verified

    def keep(found: Verified) -> None:
        known.verified = found
        room.picture({"verify"})

    if running is not None and running.state == "hashing":
        room.confirmed(
            "End the verification? What is verified stays verified",
            lambda client: client.catalog.cancel_verify(), then=keep,
        )  # fmt: skip
        return

    def answer(key: str | None) -> None:
        if key:
            names = [name] if key == "m" else []
            room.corral.act(lambda client: client.catalog.verify(names), keep)

    ways = {"a": "all that is stored"} | ({"m": f"{name} alone"} if name else {})
    room.app.push_screen(
        Choice("Read stored files again and compare their hashes; at the lowest priority", ways, "nothing"), answer
    )
