"""The form that moves a version: which tiers there are and what they take, what goes along, and what is said of it."""

import msgspec
import pytest

from core.nouns import MoveJob, Tier
from tui import underway
from tui.moving import HERE, SHUT, rooms
from tui.screens.confirm import Confirm
from tui.screens.models_move import MoveForm
from tui.state import State

MIB = 1 << 20
JOB = MoveJob(
    id="m1", model="chat@3", from_tier="home", to_tier="fast", asked="fast", state="copying", bytes_done=25 * MIB,
    bytes_total=100 * MIB,
)  # fmt: skip


@pytest.fixture
def stored(fake, doubles):
    fake.stored = [doubles.model("gemma", version=3, versions=5)]
    return fake


def called(fake, verb):
    return [each[1:] for each in fake.calls if each[0] == verb]


def words(it):
    return " ".join(it.text.split())


async def opened(it):
    await it.until("coder")
    await it.press("o")
    await it.until("gemma@3, 91.0 MiB, lies in home")


# ---------------------------------------------------------------------------------------- the tiers


def tier(name: str, free: int, **fields: object) -> Tier:
    return Tier(**{"name": name, "path": f"/{name}", "state": "there", "free_bytes": free * MIB, **fields})  # type: ignore[arg-type]


def test_each_tier_says_its_room_and_why_it_cannot_be_taken(doubles) -> None:
    model = doubles.model("gemma", bytes=91 * MIB)
    tiers = [
        tier("home", 500), tier("fast", 200, cold=1), tier("full", 40), tier("back", 40, spill="home"),
        tier("on", 40, spill="full-too"), tier("full-too", 3, spill="fast"), tier("round", 1, spill="round"),
        tier("nas", 0, state="away", reason="/nas is not there"), tier("cd", 0, state="read-only", reason="no changes"),
    ]  # fmt: skip
    told = rooms(model, tiers, [])
    assert [each.split()[0 if each.startswith(" ") else 1] for each in told] == [each.name for each in tiers]
    assert [each[:2] for each in told] == [HERE, "  ", SHUT, SHUT, "  ", "  ", SHUT, SHUT, SHUT]
    for words, line in zip(
        ("lies here", "200 MiB left", "too little: it takes 91.0 MiB", "it spills to home, where that lies",
         "it goes to fast", "it goes to fast", "too little", "away: /nas is not there", "read-only: no changes"),
        told, strict=True,
    ):  # fmt: skip
        assert words in line


async def test_a_move_shows_the_room_of_each_tier_and_asks_for_it(console, stored):
    stored.tiers.there.append(tier("big", 500))
    async with console("3", size=(80, 24)) as it:
        await opened(it)
        await it.until("- nas")
        assert "* home" in it.text and "lies here" in it.text
        await it.press("tab")
        await it.type("fast")
        await it.until(lambda: "WHERE ONLY 40.0 MiB ARE LEFT" in words(it))
        it.app.focused.value = "big"
        await it.until("gemma@3 go from home to big, where 500 MiB are left")
        await it.press("ctrl+s")
        await it.until("goes from home to big; t shows how far")
        assert called(stored, "move") == [("gemma@3", "big")]
        await it.until("move gemma@3: ◑ copying 25 % of 4 B")


async def test_what_goes_along_is_said_before_and_asked_about(console, stored):
    stored.tiers.there.append(tier("big", 500))
    stored.tiers.touches, stored.tiers.beside = ("other@1",), ("projector eye.gguf",)
    async with console("3", size=(80, 24)) as it:
        await opened(it)
        await it.press("tab")
        await it.type("big")
        await it.until("with its projector eye.gguf")
        await it.until("with other@1, being made of the same bytes")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "gemma@3 with its projector eye.gguf, with other@1" in it.app.screen.question
        assert called(stored, "move") == []
        await it.press("y")
        await it.until(lambda: called(stored, "move") == [("gemma@3", "big")])


async def test_a_version_that_is_not_there_is_said_before_the_tier_that_is_not_named(console, stored):
    async with console("3", size=(80, 24)) as it:
        await opened(it)
        await it.press("ctrl+s")
        await it.until("Name the tier")
        it.app.focused.value = "9"
        await it.until("no version gemma@9")
        await it.press("ctrl+s")
        await it.until(lambda: "! no version" in words(it).lower())
        assert "Name the tier" not in it.text and isinstance(it.app.screen, MoveForm)


# ---------------------------------------------------------------------------------------- on its way


async def test_how_much_is_left_to_do_and_what_goes_along_is_seen_under_way(console, stored):
    stored.moving = (msgspec.structs.replace(JOB, rate=5.0 * MIB, beside=("projector eye.gguf",), touches=("two@1",)),)
    async with console("3", size=(120, 36)) as it:
        await it.until("move chat@3: ◑ copying 25 % of 100 MiB, 5.0 MiB/s, 15 s left")
        await it.press("t")
        await it.until("75.0 MiB to go, from home to fast, with its projector eye.gguf, with two@1")


def test_what_stays_behind_is_said_when_a_move_is_done() -> None:
    known = State()
    known.moves["m1"] = msgspec.structs.replace(JOB, state="done", left_bytes=100 * MIB)
    (job,) = underway.jobs(known)
    assert job.why == "from home to fast, 100 MiB stay on home as well, until it takes changes" and job.to_go == ""
