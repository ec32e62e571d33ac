"""What goes on while one is on another screen: a pull that is deployed when it is here, a verification; and where their
outcome is told."""

import msgspec
import pytest

from core.errors import NoRoom
from core.nouns import Rotten
from tui.screens.confirm import Confirm
from tui.screens.models_jobs import Jobs

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


@pytest.fixture
def stored(fake, doubles):
    fake.stored = [doubles.model("gemma"), doubles.model("smollm2")]
    return fake


def called(fake, verb):
    return [each[1:] for each in fake.calls if each[0] == verb]


async def shows(it, words):
    """They stand on the screen, however they are wrapped."""
    await it.until(lambda: words in " ".join(it.text.split()))


async def begun(it, stored):
    """Pull and deploy what is recommended first."""
    await it.until("coder")
    await it.press("r")
    await it.until("9 weighed")
    await it.press("escape", "p")
    await it.until(lambda: isinstance(it.app.screen, Confirm))
    assert "Pull hf:lab/coder-GGUF:Q4_K_M (3.9 GiB) as coder" in it.app.screen.question
    assert not called(stored, "pull")
    await it.press("y")
    await shows(it, "Pulling coder: it is deployed when it is here")
    assert called(stored, "pull") == [("hf:lab/coder-GGUF:Q4_K_M", {"name": "coder"})]


def over(stored, doubles, state="done", **fields):
    model = doubles.model("coder", aliases=("live",)) if state == "done" else None
    stored.push("pull", "pull:p1", doubles.of_models.pull(state=state, model=model, **fields))


@SIZES
async def test_a_pull_is_deployed_when_it_is_here_and_that_is_told_on_whichever_screen_one_is(
    console, stored, doubles, size
):
    async with console("3", size=size) as it:
        await begun(it, stored)
        stored.push("pull", "pull:p1", doubles.of_models.pull(bytes_done=900 * doubles.MIB))
        await it.until("90 %")
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await shows(it, "then deployed as coder")
        await it.press("2")
        await it.until(lambda: it.app.current_mode == "deployments")
        assert not called(stored, "deploy")
        over(stored, doubles)
        await shows(it, "! coder is here and coder is being started: see screen 2")
        assert it.app.current_mode == "deployments"
        (spec, _) = called(stored, "deploy")[0]
        assert (spec.name, spec.model, spec.ctx, spec.parallel) == ("coder", "coder", 65536, 8)
        over(stored, doubles)
        stored.push("resync", "", None)
        await it.press("3", "t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        assert len(called(stored, "deploy")) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_pull_that_comes_to_nothing_deploys_nothing_and_says_why(console, stored, doubles, state):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("9")
        over(stored, doubles, state, error=NoRoom("no disk is left", "10 GiB are missing").body())
        await shows(it, f"Not deployed: the pull of coder was {state}: no disk is left; 10 GiB are missing")
        assert not called(stored, "deploy")


async def test_what_has_no_room_when_it_is_here_says_so_and_stays_in_the_list(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        stored.room = False
        over(stored, doubles)
        await shows(it, "coder is not deployed, though its model is here: Not deployed; no room in the double")
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await shows(it, "coder is not deployed, though its model is here")


async def test_the_pull_may_go_on_without_being_deployed(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await it.press("d")
        await it.until("coder is not deployed; the pull goes on")
        await it.press("d")
        await it.until("! Nothing is deployed when this is here")
        over(stored, doubles)
        await it.until("done")
        await it.pilot.pause(0.2)
        assert not called(stored, "deploy")


async def test_a_pull_that_ends_while_the_daemon_is_away_is_deployed_when_it_is_back(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        stored.drop()
        await it.until(lambda: it.app.client is None)
        stored.pulling = (doubles.of_models.pull(state="done", model=doubles.model("coder", aliases=("live",))),)
        stored.up = True
        await shows(it, "coder is here and coder is being started")
        assert len(called(stored, "deploy")) == 1


async def test_a_question_in_front_keeps_its_place_and_the_outcome_stands_below(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("2", "x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        over(stored, doubles)
        await it.until(lambda: called(stored, "deploy"))
        assert isinstance(it.app.screen, Confirm)
        await it.press("n")
        await shows(it, "coder is here and coder is being started")


# ---------------------------------------------------------------------------------------- a verification


@SIZES
async def test_what_a_verification_finds_is_told_on_whichever_screen_one_is(console, stored, doubles, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("2")
        await it.until(lambda: it.app.current_mode == "deployments")
        run = await stored.catalog.verify([])  # by somebody else
        stored.push("verify", "model:*")
        await it.until(lambda: it.app.state.verified is not None)
        assert "verify" not in it.text
        rotten = Rotten(sha256="ab" * 32, bytes=1, versions=("gemma@1",), deployments=("chat",))
        stored.catalog.run = msgspec.structs.replace(run, rotten=(rotten,))
        stored.push("verify", "model:*")
        await shows(it, "NOT WHOLE: gemma@1, used by chat: import it again")
        await it.press("1")
        await it.until(lambda: it.app.current_mode == "overview" and "NOT WHOLE" not in it.text)
        stored.catalog.run = msgspec.structs.replace(run, state="done", objects_done=4, bytes_done=100)
        stored.push("verify", "model:*")
        await shows(it, "! verify stored files: ✓ done: 4 of 4 files")


async def test_many_events_of_a_verification_ask_once_at_a_time(console, stored, doubles):
    import asyncio

    asked, go = [], asyncio.Event()
    read = stored.catalog.verified

    async def slow():
        asked.append(1)
        await go.wait()
        return await read()

    async with console("2") as it:
        await stored.catalog.verify([])
        stored.catalog.verified = slow
        for _ in range(20):
            stored.push("verify", "model:*")
        await it.until(lambda: asked)
        for _ in range(20):
            stored.push("verify", "model:*")
        stored.push("sample", "node:local", doubles.sample(doubles.NOW + 77))
        await it.until(lambda: it.app.state.samples[-1].time == doubles.NOW + 77)
        assert len(asked) == 1
        go.set()
        await it.until(lambda: it.app.state.verified is not None and not it.app.errands._asking)
        assert len(asked) == 2
