"""The form that pulls a model: what the source has, what of it fits here, and which file would be taken."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

from core.amounts import size_of
from core.nouns import NO_OPTIONS, DeploymentSpec, ImportOptions, Pull, PullPlan
from tui.columns import SAID, cut
from tui.plain import line
from tui.screens.models_forms import OfModels, agreed
from tui.widgets.form import Field
from tui.words import params, size

ASK_S = 0.8
"""Seconds without a key before the hub is asked: it is somebody else's server."""
SHOWN = 8
"""Quantisations that are listed."""
WHOLE = re.compile(r"hf:[^/\s]+/[^/\s:]+(:\S+)?|https://[^/\s]+/\S+")
"""What may be asked for: half an address is not."""
HERE = re.compile(r"[/~.]|file://")
"""How a file or folder here begins."""


class PullForm(OfModels):
    """The pull is a job of the daemon, which goes on without this console, and in the next daemon."""

    HEADLINE = "Pull a model: hf:ORG/REPO[:QUANT], an https address, or a file or folder here"
    SENDS = "Pull"
    REPLACED = True
    PAUSE = ASK_S

    def __init__(self, source: str = "", name: str = "") -> None:
        super().__init__()
        self.source, self.model = source, name
        self._plans: dict[str, PullPlan] = {}

    def fields(self) -> list[Field]:
        return [
            Field("source", "source", self.source, "hf:ORG/REPO:Q4_K_M, https://host/file.gguf, /path/to/folder"),
            Field("name", "name", self.model, "default: its own; of one that is there, a new version"),
            Field("label", "label", "", "what people call this version: 2026-11"),
            Field("live", "live", "no", "yes: the name means this version from now on (a first one always is)"),
            Field("projector", "projector", "", "auto, or its file's name: for pictures or sound, from a repository"),
            Field("deploy", "deploy as", "", "a name: the daemon deploys it when it is here; default: not"),
            Field("limit", "at most", "", "bytes a second, as 20M; default: no cap"),
        ]

    def typed(self) -> tuple[str, dict[str, Any]]:
        """The source, and what else is meant. Raises ValueError."""
        source = self.value("source")
        if not source:
            raise ValueError("Name a source: hf:ORG/REPO, an https address, or a folder")
        fields: dict[str, Any] = {key: self.value(key) for key in ("name", "projector") if self.value(key)}
        options = ImportOptions(label=self.value("label"), live=agreed(self.value("live"), "live"))
        if options != NO_OPTIONS:
            fields["options"] = options
        if self.value("deploy"):
            spec = DeploymentSpec(name=self.value("deploy"), model=self.value("name") or "pulled")
            fields["deploy"] = {"spec": spec, "replace": False}
        if self.value("limit"):
            fields["limit"] = size_of(self.value("limit"))
        return source, fields

    def question(self) -> Callable[[Any], Awaitable[str]]:
        source, _ = self.typed()
        if HERE.match(source):
            told_here = f"Reads {_path(source)}, hashes it and copies it into the store: as i does"

            async def here(client: Any) -> str:
                return told_here

            return here
        if not WHOLE.fullmatch(source):
            raise ValueError("A source is hf:ORG/REPO, with :QUANT if you like, an https address, or a folder")
        if source in self._plans:
            known = told(self._plans[source])

            async def remembered(client: Any) -> str:
                return known

            return remembered
        self.show(line(f"Asking what {source} has"))

        async def ask(client: Any) -> str:
            self._plans[source] = await client.pulls.plan(source)
            return told(self._plans[source])

        return ask

    def action_send(self) -> None:
        try:
            source, fields = self.typed()
        except ValueError as error:
            self.say(str(error))
            return

        if HERE.match(source):
            self._import(source, fields)
            return

        def taken(pull: Pull) -> None:
            self.corral.state.pulls[pull.id] = pull
            after = f", then deployed as {line(pull.deploy.spec.name)}" if pull.deploy is not None else ""
            self.leave(f"Pulling {pull.name}, {size(pull.bytes_total)}{after}; t shows how far, pauses, cancels it")

        self.say(f"Asking for {source}")
        self.corral.act(lambda client: client.pulls.begin(source, **fields), taken)

    def _import(self, source: str, fields: dict[str, Any]) -> None:
        """What lies here is imported, as the command line does it."""
        if fields.keys() & {"projector", "limit", "deploy"}:
            self.say("Of files here a projector goes along with i, there is no cap, and d deploys what is imported")
            return

        def taken(job: Any) -> None:
            self.corral.state.imports[job.id] = job
            self.leave(f"Importing {job.name}; t shows how far")

        options = fields.get("options", NO_OPTIONS)
        self.corral.act(
            lambda client: client.import_model(_path(source), fields.get("name"), options=options, projector=""), taken
        )


def _path(source: str) -> str:
    return os.path.abspath(os.path.expanduser(source.removeprefix("file://")))  # noqa: PTH100, PTH111 - these never raise


def told(plan: PullPlan) -> str:
    """What a source has, what would be taken, and why."""
    count = f"{params(plan.params)} parameters" if plan.params else "parameters not counted"
    what = f"{cut(plan.architecture, SAID)}, {count}" if plan.architecture else "its header could not be read"
    gated = "; GATED: whoever pulls it must have been let in, and give a token" if plan.gated else ""
    out = [f"{what}, licence {cut(plan.licence or 'not stated', SAID)}{gated}", plan.why]
    for each in plan.choices[:SHOWN]:
        mark = ">" if each.chosen else " "
        need = f"needs {size(each.need_bytes):>9}" if each.need_bytes else "needs ?"
        out.append(f"{mark} {each.quantization:8} {size(each.bytes):>9}  {need}  {'fits' if each.fits else 'NO'}")
    if len(plan.choices) > SHOWN:
        out.append(f"  and {len(plan.choices) - SHOWN} more")
    if plan.projectors:
        names = ", ".join(f"{each.name} {size(each.bytes)}" for each in plan.projectors)
        out.append(f"projector (if you say auto): {names}")
    out.append(f"{size(plan.left_bytes)} of memory and {size(plan.disk_bytes)} of disk are left")
    return "\n".join(line(each) for each in [*out, *plan.notes])
