"""The form that imports a model from a file or folder of the daemon's host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.nouns import ImportOptions
from tui.plain import line
from tui.screens.models_forms import agreed
from tui.widgets.form import Field, Form


class ImportForm(Form):
    """The import itself is a job of the daemon and goes on when the form or the terminal is closed."""

    HEADLINE = "Import a model: one GGUF file, or a folder with one complete set"
    SENDS = "Import"

    def fields(self) -> list[Field]:
        return [
            Field("path", "file or folder", "", "/path/to/model.gguf"),
            Field("name", "name", "", "default: its own; of one that is there, a new version"),
            Field("label", "label", "", "what people call this version: 2026-11"),
            Field("live", "live", "no", "yes: the name means this version from now on (a first one always is)"),
            Field("projector", "projector", "", "a GGUF file for pictures or sound, beside the model"),
            Field("licence", "licence", "", "where the file says none, or another"),
            Field("notes", "notes", "", "what people should know of this version"),
        ]

    def path(self, key: str) -> str:
        """A full path, "" where nothing is typed."""
        typed = self.value(key)
        try:
            return str(Path(typed).expanduser().absolute()) if typed else ""
        except RuntimeError:  # a home that is not known
            return typed

    def weigh(self) -> None:
        path = self.path("path")
        if not path:
            self.show("Name a file or folder")
            return
        words = [f"Reads {path}, hashes it and copies it into the store"]
        name = self.value("name")
        there = self.corral.state.models.get(name)
        try:
            live = agreed(self.value("live"), "live")
        except ValueError as error:
            self.show(line(error))
            return
        if there is not None:
            after = "which it means then" if live else f"{name} goes on to mean version {there.version}"
            words.append(f"It becomes a new version of {name}: {after}")
        if self.value("projector"):
            words.append(f"With the projector {self.path('projector')}")
        self.show("\n".join(map(line, words)))

    def action_send(self) -> None:
        if not self.value("path"):
            self.say("Name a file or folder")
            return
        try:
            live = agreed(self.value("live"), "live")
        except ValueError as error:
            self.say(str(error))
            return
        path, name = self.path("path"), self.value("name") or None
        options = ImportOptions(
            label=self.value("label"), notes=self.value("notes"), licence=self.value("licence"), live=live
        )
        projector = self.path("projector")

        def taken(job: Any) -> None:
            self.corral.state.imports[job.id] = job
            self.app.pop_screen()

        self.corral.act(lambda client: client.import_model(path, name, options=options, projector=projector), taken)
