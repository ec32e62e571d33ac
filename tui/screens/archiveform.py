"""The form that archives: which records would go into which file is shown while one types."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from core.nouns import AuditArchive, AuditPlan
from tui.amounts import moment_of
from tui.widgets.asking import Asking
from tui.widgets.form import Field
from tui.widgets.working import Working
from tui.words import dated, size

SHOWN_S = 0.5
"""How often it is asked how far an archive is."""


class ArchiveForm(Working, Asking):
    """What `corral audit archive` does. It is the daemon's work: who closes the form, or the console, stops nothing."""

    HEADLINE = "Move old records out of the database, into a signed file under a seal: that is recorded"
    SENDS = "Archive"
    WORKS = "esc Close; the daemon goes on"

    def fields(self) -> list[Field]:
        return [
            Field("before", "from before", "90d", "90d, 2026-01-31; records of the last day stay"),
            Field("folder", "to folder", "", "default: where corral.toml says, else beside the database"),
            Field("reason", "reason", "", "why; it goes into the record"),
        ]

    def before(self) -> float:
        """Epoch seconds. Raises ValueError."""
        return moment_of(self.value("before"), time.time())

    def folder(self) -> str:
        """The full path that is typed; "" for the daemon's own."""
        text = self.value("folder")
        return str(Path(os.path.expanduser(text)).absolute()) if text else ""  # noqa: PTH111 - the other one raises

    def question(self) -> Callable[[Any], Awaitable[str]]:
        before, folder = self.before(), self.folder()

        async def ask(client: Any) -> str:
            return told(await client.proof.archive_plan(before, folder))

        return ask

    def work(self) -> Callable[[Any], Awaitable[str]]:
        before, folder, reason = self.before(), self.folder(), self.value("reason")

        async def archive(client: Any) -> str:
            doing: asyncio.Task[AuditArchive] = asyncio.create_task(client.proof.archive(before, folder, reason))
            try:
                while not (await asyncio.wait([doing], timeout=SHOWN_S))[0]:
                    words = (await client.proof.archives()).working
                    if self.stands:
                        self.show(f"Archiving: {words or 'it begins'}. esc closes this, the daemon goes on")
                made = await doing
            finally:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
            return f"Records {made.first} to {made.last} lie in {made.file}, {size(made.bytes)}, sealed"

        return archive


def told(plan: AuditPlan) -> str:
    """What sending would do."""
    count = plan.last - plan.first + 1
    return (
        f"{count} records would go: {plan.first} to {plan.last}, {dated(plan.began)} to {dated(plan.ended)}, up to"
        f" checkpoint {plan.checkpoint}\nto {plan.file}\n{plan.stays} stay here; those that went are still found by the"
        " filter, and verified with their seal"
    )
