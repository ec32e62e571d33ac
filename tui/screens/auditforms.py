"""The forms of Audit: write the trail to a signed file, or a report on it; both are files of who runs the console."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from core.nouns import AuditReport
from tui import exports
from tui.amounts import moment_of
from tui.plain import line, plain
from tui.widgets.form import Field
from tui.widgets.working import Working
from tui.words import moment, size

SHOWN_S = 0.5
"""How often a file that is being written says how large it is."""
UNSIGNED = "the audit trail is not signed"
"""What the daemon warns of then."""
UNCHANGED = "a file that is there is left alone"


class _ToFile(Working):
    """Writes one file; while it does so esc ends it, and nothing of it is kept."""

    NAME = ""
    WORKS = "esc Ends it; nothing is kept"

    def fields(self) -> list[Field]:
        return [
            Field("since", "since", "", "default: the first record; 90d, 2h, 2026-01-31T18:00"),
            Field("path", "file", f"~/{self.NAME}-{time.strftime('%Y-%m-%d')}"),
        ]

    def since(self) -> float | None:
        """Epoch seconds; None for the first record. Raises ValueError."""
        text = self.value("since")
        return moment_of(text, time.time()) if text else None

    def path(self) -> Path:
        """What is typed; `~` is the home folder. Raises ValueError."""
        if not self.value("path"):
            raise ValueError("Name a file")
        return Path(os.path.expanduser(self.value("path"))).absolute()  # noqa: PTH111 - Path.expanduser raises

    def weigh(self) -> None:
        if self.working:
            return
        try:
            since, path = self.since(), self.path()
            words = self.meant(f"of records since {moment(since)}" if since is not None else "of all records", path)
            words += "\nThat file is there already: name another" if path.exists() else f"\nA new file; {UNCHANGED}"
        except (ValueError, OSError) as error:
            words = str(error)
        self.show(plain(words))

    def meant(self, span: str, path: Path) -> str:
        """What sending would do."""
        raise NotImplementedError

    async def write(self, client: Any, since: float | None, path: Path) -> str:
        """Do it; what was done. Raises `CorralError`."""
        raise NotImplementedError

    def work(self) -> Callable[[Any], Awaitable[str]]:
        since, path = self.since(), self.path()
        return lambda client: self.write(client, since, path)

    def action_back(self) -> None:
        if self.working:
            self.workers.cancel_group(self, "work")
            self.say("Ended: nothing was kept")
        else:
            super().action_back()


class ExportForm(_ToFile):
    """The trail as a signed file."""

    HEADLINE = "Write the trail to a signed file, to be verified elsewhere: that is recorded"
    SENDS = "Write"
    NAME = "corral-trail"

    def meant(self, span: str, path: Path) -> str:
        status = self.corral.state.status
        if status is not None and any(UNSIGNED in each for each in status.daemon.warnings):
            return f"NOTHING IS SIGNED NOW (! says why): a copy {span} goes to {line(path)}, and proves little"
        return f"A checkpoint is signed; then a signed copy {span} goes to {line(path)}"

    async def write(self, client: Any, since: float | None, path: Path) -> str:
        drawn = 0.0

        def watch(lines: int, written: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= SHOWN_S and self.stands:
                drawn = now
                self.show(f"Writing: {lines} lines, {size(written)}. esc ends it, and nothing is kept")

        end = exports.ended(await exports.write(client.proof.export(since), path, watch=watch))
        signed = f"signed by key {end.key}" if end.key else "NOT SIGNED: see `corral audit key show`"
        return f"{end.records} records up to {end.last} are in {path}, {signed}"


class ReportForm(_ToFile):
    """The page that an auditor files."""

    HEADLINE = "Write one page to file: rights, use, changes, refusals, gaps, and the verification"
    SENDS = "Write"
    NAME = "corral-report"

    def fields(self) -> list[Field]:
        since, path = super().fields()
        return [since._replace(value="90d"), path._replace(value=path.value + ".html", hint=".html or .md")]

    def path(self) -> Path:
        path = super().path()
        if path.suffix not in (".html", ".md"):
            raise ValueError("The file ends in .html for a page of HTML, or in .md for Markdown")
        return path

    def meant(self, span: str, path: Path) -> str:
        page = "HTML" if path.suffix == ".html" else "Markdown"
        return f"The chain is verified; then a page of {page} {span} goes to {line(path)}"

    async def write(self, client: Any, since: float | None, path: Path) -> str:
        from tui import page, report

        self.show("The daemon verifies the chain and counts. esc ends it")
        found: AuditReport = await client.proof.report(since)
        draw = page.as_html if path.suffix == ".html" else page.as_markdown
        text = draw(report.title(found), report.sections(found))
        await asyncio.to_thread(exports.make, path, text.encode())
        whole = "" if found.chain.ok else "; THE CHAIN DOES NOT VERIFY"
        return f"The report is in {path}{whole}"
