"""What is stored: models with size, licence and use; import, deploy, remove."""

from __future__ import annotations

from textual.app import ComposeResult

from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table
from tui.words import age, size, state


class Models(Room):
    """Screen 3."""

    ROOM = "models"

    def fill(self) -> ComposeResult:
        yield Table(
            [
                Column("model", 16, flex=True), Column("size", 9, 1, True), Column("quant", 8, 2),
                Column("params", 8, 4, True), Column("arch", 10, 5), Column("trained ctx", 11, 6, True),
                Column("licence", 12, 3), Column("used by", 14, 2), Column("imported", 8, 7, True),
            ],
            empty="No model yet: i imports a file, m the sample", id="models",
        )  # fmt: skip
        yield Line(id="job")
        yield Line(id="detail")

    def draw(self, kinds: set[str]) -> None:
        known = self.corral.state
        used: dict[str, list[str]] = {}
        for name, deployment in sorted(known.deployments.items()):
            used.setdefault(deployment.spec.model, []).append(name)
        self.table().set_rows(
            [
                Row(n, (n, size(m.bytes), m.shape.quantization, f"{m.shape.n_params / 1e6:.0f} M", m.shape.arch,
                        str(m.shape.ctx_train), m.licence, ", ".join(used.get(n, ())) or "-",
                        age(m.imported_at, known.clock())))
                for n, m in sorted(known.models.items())
            ]
        )  # fmt: skip
        jobs = [job for job in known.imports.values() if job.state != "done"][-1:]
        words = ""
        for job in jobs:
            share = 100 * job.bytes_done // max(1, job.bytes_total)
            words = f"import {job.name}: {state(job.state, self.corral.ascii)} {share} % of {size(job.bytes_total)}"
            if job.error is not None:
                words = f"import {job.name}: {job.error.what}. {job.error.why}. {job.error.todo}"
        self.query_one("#job", Line).set(words)
        model = known.models.get(self.table().key)
        self.query_one("#detail", Line).set(
            f"-- {model.name} sha256 {model.sha256[:16]} from {model.origin} by {model.imported_by}" if model else "--"
        )

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"model"})

    def on_table_opened(self, event: Table.Opened) -> None:
        self.action_deploy()

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
        if not name:
            self.say("No model is selected")
            return
        self.confirmed(
            f"Remove the model {name} and its files for good?", lambda client: client.remove_model(name), typed=name
        )
