"""What goes on while one is on another screen: a pull that is deployed when it is here, a verification; and where their
outcome is told."""

import msgspec
import pytest

from core.errors import NoRoom, NotAllowed
from core.nouns import DeploymentSpec, PulledDeploy, Rotten
from tui.screens.confirm import Confirm
from tui.screens.models_jobs import Jobs

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


@pytest.fixture
def stored(fake, doubles):
    fake.stored = [doubles.model("gemma"), doubles.model("smollm2")]
    fake.me = msgspec.structs.replace(doubles.somebody(), because="ann may everything")
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
    await shows(it, "Pulling coder: the daemon deploys it when it is here")
    ((source, fields),) = called(stored, "pull")
    spec = fields["deploy"]["spec"]
    assert (source, fields["name"]) == ("hf:lab/coder-GGUF:Q4_K_M", "coder")
    assert (spec.name, spec.model, spec.ctx, spec.parallel) == ("coder", "coder", 65536, 8)
    goes_on(stored)


def goes_on(stored, **fields):
    """The daemon tells of it again."""
    made = stored.pulls.there["p1"]
    stored.pulls.there["p1"] = msgspec.structs.replace(made, **fields)
    stored.push("pull", "pull:p1", stored.pulls.there["p1"])


def over(stored, doubles, state="done", deploy="done", error=None, **fields):
    """It ends so, and so does what it was to be deployed as."""
    model = doubles.model("coder", aliases=("live",)) if state == "done" else None
    made = stored.pulls.there["p1"]
    became = msgspec.structs.replace(made.deploy, state=deploy, error=error)
    goes_on(stored, state=state, model=model, deploy=became, **fields)


@SIZES
async def test_what_the_daemon_deploys_when_it_is_here_is_told_on_whichever_screen_one_is(
    console, stored, doubles, size
):
    async with console("3", size=size) as it:
        await begun(it, stored)
        goes_on(stored, bytes_done=900 * doubles.MIB)
        await it.until("90 %")
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await shows(it, "then deployed as coder")
        await it.press("2")
        await it.until(lambda: it.app.current_mode == "deployments")
        over(stored, doubles, deploy="waits")
        over(stored, doubles)
        await shows(it, "! coder is here and coder is being started: see screen 2")
        assert it.app.current_mode == "deployments"
        await it.press("3", "t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await shows(it, "deployed as coder")
        assert not called(stored, "deploy"), "that is the daemon's"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_pull_that_comes_to_nothing_deploys_nothing_and_says_why(console, stored, doubles, state):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("9")
        error = NoRoom("no disk is left", "10 GiB are missing").body()
        made = stored.pulls.there["p1"]
        goes_on(stored, state=state, error=error, deploy=msgspec.structs.replace(made.deploy, state="dropped"))
        await shows(it, f"Not deployed: the pull of coder was {state}: no disk is left; 10 GiB are missing")


async def test_what_is_not_deployed_says_so_and_stays_in_the_list(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        over(stored, doubles, deploy="failed", error=NotAllowed("ann may not", "the right was taken away").body())
        await shows(it, "coder is not deployed, though its model is here: ann may not; the right was taken away")
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await shows(it, "NOT DEPLOYED as coder, though it is here: ann may not")


async def test_the_pull_may_go_on_without_being_deployed(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await it.press("d")
        await it.until("coder is not deployed; the pull goes on")
        assert called(stored, "undeploy") == [("p1",)]
        await it.press("d")
        await it.until("! Nothing is deployed when this is here")


async def test_what_became_of_it_while_the_daemon_was_away_is_told_when_it_is_back(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        stored.drop()
        await it.until(lambda: it.app.client is None)
        over(stored, doubles)
        stored.pulling = tuple(stored.pulls.there.values())
        stored.up = True
        await shows(it, "coder is here and coder is being started")


async def test_what_somebody_else_or_an_earlier_day_had_deployed_is_no_news(console, stored, doubles):
    made = doubles.of_models.pull
    deploy = PulledDeploy(spec=DeploymentSpec(name="x", model="x"), state="failed", error=NoRoom("old").body())
    stored.pulling = (made("p7", name="x", state="done", deploy=deploy),)
    async with console("3") as it:
        await it.until("coder")
        waits = PulledDeploy(spec=DeploymentSpec(name="theirs", model="x"))
        stored.push("pull", "pull:p8", made("p8", name="y", owner="bob", deploy=waits))
        done = msgspec.structs.replace(waits, state="done")
        stored.push("pull", "pull:p8", made("p8", name="y", owner="bob", state="done", deploy=done))
        await it.until(lambda: "p8" in it.app.state.pulls and it.app.state.pulls["p8"].state == "done")
        assert "is being started" not in it.text and "is not deployed" not in it.text


async def test_a_question_in_front_keeps_its_place_and_the_outcome_stands_below(console, stored, doubles):
    async with console("3") as it:
        await begun(it, stored)
        await it.press("2", "x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        over(stored, doubles)
        await it.until(lambda: it.app.state.pulls["p1"].state == "done")
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
