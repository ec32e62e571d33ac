"""The Models screen over the real daemon: two versions, the alias moved after its question, noted, verified, and what
nothing needs any more freed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from command import ask, corral
from stores import file
from watched import Console

from core.client import Client
from tui.app import Corral
from tui.screens.confirm import Choice, Confirm
from tui.screens.models_forms import AliasForm, GcForm, NoteForm
from tui.screens.models_info import Info

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


async def test_versions_are_kept_in_order_from_the_screen(home: Path, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        await asyncio.to_thread(corral, "models", "import", str(file(tmp_path, n)), "--name", "tiny")
    app = Corral(lambda: Client.connect(through="console"), refresh_s=0.2)
    async with app.run_test(size=(120, 36)) as pilot:
        it = Console(app)
        await it.until(lambda: app.client is not None)
        await pilot.press("3")
        await it.until("@1/3")
        await it.until("catalogue")
        await it.until("a replica reserves")
        assert app.screen.seek("tiny")  # type: ignore[attr-defined]
        await pilot.press("a")
        await it.opened(AliasForm)
        await pilot.press("tab", "3")
        await it.until("tiny:live will mean version 3; it means 1; it touches no deployment")
        await pilot.press("ctrl+s")
        await it.opened(Confirm)
        await pilot.press("y")
        await it.until("tiny:live means version 3")
        await it.until("@3/3")
        await pilot.press("n")
        await it.opened(NoteForm)
        await pilot.press("tab", *"pilot", "ctrl+s")
        await it.until("tiny@3 is noted")
        await pilot.press("f")
        await it.opened(GcForm)
        await it.until("1 would go")
        await it.until("tiny@2")
        await pilot.press("ctrl+s")
        await it.opened(Confirm)
        await pilot.press("y")
        await it.until("Removed 1")
        await pilot.press("v")
        await it.opened(Choice)
        await pilot.press("a")
        await it.until(lambda: app.state.verified is not None and app.state.verified.state == "done")
        await pilot.press("enter")
        await it.opened(Info)
        await it.until("@3 live")
        await it.until("pilot")
        assert "@2" not in it.text
    versions = await asyncio.to_thread(ask, "models", "versions", "tiny")
    assert sorted((each["version"], each["label"]) for each in versions) == [(1, ""), (3, "pilot")]
    verbs = {each["verb"] for each in await asyncio.to_thread(ask, "audit", "ls")}
    assert {"models.alias", "models.note", "models.gc", "models.verify"} <= verbs
