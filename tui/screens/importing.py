"""The form that imports a model from a file or folder of the daemon's host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui.plain import line
from tui.widgets.form import Field, Form


class ImportForm(Form):
    """The import itself is a job of the daemon and goes on when the form or the terminal is closed."""

    HEADLINE = "Import a model: one GGUF file, or a folder with one complete set"
    SENDS = "Import"

    def fields(self) -> list[Field]:
        return [
            Field("path", "file or folder", "", "/path/to/model.gguf"),
            Field("name", "name", "", "default: its own"),
        ]

    def weigh(self) -> None:
        path = self.value("path")
        if path.startswith("~"):
            path = str(Path(path).expanduser())
        self.show(line(f"Reads {path}, hashes it and copies it into the store") if path else "Name a file or folder")

    def action_send(self) -> None:
        if not self.value("path"):
            self.say("Name a file or folder")
            return
        path, name = str(Path(self.value("path")).expanduser().absolute()), self.value("name") or None

        def taken(job: Any) -> None:
            self.corral.state.imports[job.id] = job
            self.app.pop_screen()

        self.corral.act(lambda client: client.import_model(path, name), taken)
