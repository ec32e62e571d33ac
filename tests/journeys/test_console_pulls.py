"""The Models screen over the real daemon and the stand-in for a hub: a pull with its rate, a move between tiers with
the room and the load time of each, and a verification that this console did not begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from command import ask, corral
from hub_double import HubDouble
from pullworld import model
from watched import Console

from core.client import Client
from tui.app import Corral
from tui.screens.models_jobs import Jobs
from tui.screens.models_move import MoveForm
from tui.screens.models_pull import PullForm

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HubDouble]:
    made = HubDouble()
    await made.begin()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield made
    finally:
        await made.end()


async def test_a_model_is_pulled_and_moved_and_each_step_is_seen(
    home: Path, hub: HubDouble, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hub.repos["acme/tiny-GGUF"] = {"tiny-Q8_0.gguf": model(3_000_000)}
    place = tmp_path_factory.mktemp("tier")
    place.chmod(0o700)
    await asyncio.to_thread(corral, "tiers", "add", "slow", str(place), "--capacity", "1GiB")
    app = Corral(lambda: Client.connect(through="console"), refresh_s=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        it = Console(app)
        await it.until(lambda: app.client is not None)
        await pilot.press("3")
        await it.until("catalogue")
        await pilot.press("p")
        await it.opened(PullForm)
        await pilot.press(*"hf:acme/tiny-GGUF")
        await it.until("> Q8_0")
        app.screen.query_one("#field-name").value = "tiny"  # type: ignore[attr-defined]
        app.screen.query_one("#field-limit").value = "1M"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await it.until("Pulling tiny, 2.9 MiB")
        await pilot.press("t")
        await it.opened(Jobs)
        await it.until("iB/s")
        await it.until(lambda: "tiny" in app.state.models)
        await it.until(lambda: all(each.over for each in it.jobs()))
        await it.until("100 %")
        await pilot.press("escape")
        assert app.screen.seek("tiny")  # type: ignore[attr-defined]
        await pilot.press("o")
        await it.opened(MoveForm)
        await it.until("slow 1.0 GiB left")
        await pilot.press("tab", *"slow")
        await it.until("of tiny@1 go from home to slow, where 1.0 GiB are left")
        await pilot.press("ctrl+s")
        await it.until(lambda: app.state.models["tiny"].tier == "slow")
        await asyncio.to_thread(corral, "models", "verify")  # by somebody else
        await it.until("verify stored files: ✓ done: 1 of 1 files")
        await pilot.press("enter")
        await it.until("loads from")
        assert "slow (here)" in " ".join(app.screen.text.split())  # type: ignore[attr-defined]
    (found,) = await asyncio.to_thread(ask, "models", "ls")
    assert (found["name"], found["tier"]) == ("tiny", "slow")
