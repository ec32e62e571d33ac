"""What is stored: models with size, licence and use; import, deploy, remove."""

from __future__ import annotations

from textual.app import ComposeResult

from core.nouns import ImportJob
from tui.rights import none, unseen
from tui.screens.room import Line, Note, Room
from tui.spoken import spoken
from tui.widgets.table import Column, Row, Table
from tui.words import age, size, state

OVER = ("done", "failed", "cancelled")
"""States of an import that is over."""
TODO = ("i imports a file, m the sample", "models.import")
"""What to do where no model is, and what it needs."""


class Models(Room):
    """Screen 3."""

    ROOM = "models"
    ASKS = frozenset({"import_model", "sample", "deploy", "remove"})

    def __init__(self) -> None:
        super().__init__()
        self._read = ""
        """The import that is over and was taken note of."""

    def fill(self) -> ComposeResult:
        yield Table(
            [
                Column("model", 14, fit=True), Column("size", 9, 1, True), Column("quant", 8, 2),
                Column("params", 8, 4, True), Column("arch", 10, 5), Column("trained ctx", 11, 6, True),
                Column("licence", 11, 3, fit=True), Column("used by", 12, 2, flex=True), Column("imported", 8, 7, True),
            ],
            id="models",
        )  # fmt: skip
        yield Note(id="job")
        yield Line(id="detail")

    def draw(self, kinds: set[str]) -> None:
        known = self.corral.state
        used: dict[str, list[str]] = {}
        for name, deployment in sorted(known.deployments.items()):
            used.setdefault(deployment.spec.model_name, []).append(name)
        self.table().none(unseen(known.me, "models.read", "models") or none(known.me, "No model yet", *TODO))
        self.table().set_rows(
            [
                Row(n, (n, size(m.bytes), m.shape.quantization, f"{m.shape.n_params / 1e6:.0f} M", m.shape.arch,
                        str(m.shape.ctx_train), m.licence, ", ".join(used.get(n, ())) or "-",
                        age(m.imported_at, known.clock())))
                for n, m in sorted(known.models.items())
            ]
        )  # fmt: skip
        self.query_one("#job", Note).set(self._about(self._job()))
        model = known.models.get(self.table().key)
        self.query_one("#detail", Line).set(
            f"-- {model.name} sha256 {model.sha256[:16]} from {model.origin} by {model.imported_by}" if model else "--"
        )

    def _job(self) -> ImportJob | None:
        """The import to tell of: the newest that goes on, else the newest of all."""
        jobs = list(self.corral.state.imports.values())
        going_on = [job for job in jobs if job.state not in OVER]
        return next(reversed(going_on or jobs), None)

    def _about(self, job: ImportJob | None) -> str:
        if job is None or job.state == "done" or job.id == self._read:
            return ""
        if job.error is not None:
            return f"import {job.name}: {spoken(job.error)} (esc takes this away)"
        share = 100 * job.bytes_done // max(1, job.bytes_total)
        return f"import {job.name}: {state(job.state, self.corral.ascii)} {share} % of {size(job.bytes_total)}"

    def action_back(self) -> None:
        job = self._job()
        if job is not None and job.state in OVER:
            self._read = job.id
            self.query_one("#job", Note).set("")
        super().action_back()

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"model"})

    async def on_table_opened(self, event: Table.Opened) -> None:
        await self.action_do("deploy")

    def hindered(self, action: str) -> str:
        known, name = self.corral.state, self.table().key
        if action in ("deploy", "remove") and not name:
            return none(known.me, "No model is selected", *TODO)
        users = sorted(n for n, d in known.deployments.items() if d.spec.model_name == name)
        if action == "remove" and users:
            return f"{name} is used by {', '.join(users)}: remove that first, on screen 2"
        if action == "sample" and any(m.origin == "sample" for m in known.models.values()):
            return "The sample is here already"
        return super().hindered(action)

    def about(self, action: str) -> str:
        return f"model:{self.table().key}" if action == "remove" else ""

    def action_deploy(self) -> None:
        from tui.screens.deploy import DeployForm

        self.app.push_screen(DeployForm(self.table().key))

    def action_import_model(self) -> None:
        from tui.screens.importing import ImportForm

        self.app.push_screen(ImportForm())

    def action_sample(self) -> None:
        self.corral.act(lambda client: client.import_sample(None), lambda job: self.say(""))

    def action_remove(self) -> None:
        name = self.table().key
        self.confirmed(
            f"Remove the model {name} and its files for good?", lambda client: client.remove_model(name), typed=name
        )
