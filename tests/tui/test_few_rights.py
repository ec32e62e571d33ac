"""What the console says to who has few rights: what he may not see, and no key that he may not press."""

import pytest

from core.access.permissions import BUILTIN
from tui.widgets.meter import Meter

HOSTS, TRAIL = "You may not see hosts (nodes.read)", "You may not see the trail (audit.read)"


@pytest.fixture
def user(fake, doubles):
    """The built-in role `user`, to which the daemon shows no host and no trail; nothing is stored or deployed yet."""
    fake.me = doubles.somebody(*((each, "*") for each in BUILTIN["user"].allows))
    fake.records, fake.deployed, fake.running, fake.stored = [], [], [], []
    fake.asked_samples = 0
    plain = fake.samples

    async def samples(seconds):
        fake.asked_samples += 1
        return await plain(seconds)

    fake.samples = samples
    return fake


async def test_overview_asks_and_proposes_nothing_that_a_user_may_not(console, user, doubles):
    async with console("1") as it:
        await it.until(TRAIL)
        assert HOSTS in it.text and not any(meter.display for meter in it.app.screen.query(Meter))
        assert "Nothing is deployed" in it.text and "sample" not in it.text and "No record" not in it.text
        await it.press("e")
        await it.until("! Nothing is deployed")
        assert "sample" not in it.text and user.asked_samples == 0
        user.me = doubles.somebody(*((each, "*") for each in BUILTIN["admin"].allows))
        user.push("access", "access:all")
        await it.until("press 3, then m for the sample model")
        await it.until(lambda: user.asked_samples == 1)
        assert HOSTS not in it.text and TRAIL not in it.text and "No record yet" in it.text and "memory" in it.text


async def test_the_trail_is_not_asked_for_by_who_may_not_read_it(console, user, doubles):
    async with console("9") as it:
        await it.until(TRAIL)
        assert "You may not verify it (audit.verify)" in it.text and "v verifies it" not in it.text
        assert user.proof.asked == [] and "No record" not in it.text
        keys = dict(it.app.screen.keys())
        assert not any(may for words, may in keys.items() if words[0] in "/efvwra")
        await it.press("e")
        await it.until(f"! {TRAIL}")
        user.me = doubles.somebody(*((each, "*") for each in BUILTIN["admin"].allows))
        user.records = [doubles.record(1)]
        user.push("access", "access:all")
        await it.until("v verifies it now")
        await it.until("deployments.create")


@pytest.mark.parametrize(
    ("screen", "words", "offer", "why"),
    [
        ("2", "Nothing is deployed", "d deploys", "is selected"), ("3", "No model yet", "i imports", "is not stored"),
    ],
)  # fmt: skip
async def test_an_empty_screen_proposes_only_what_one_may(console, user, doubles, screen, words, offer, why):
    async with console(screen) as it:
        await it.until(words)
        assert offer not in it.text
        if screen == "3":
            await it.until("Coder: not stored")  # the row that x is about
        await it.press("x")
        await it.until(why)
        assert offer not in it.text and "p pulls" not in it.text
        user.me = doubles.somebody(*((each, "*") for each in BUILTIN["admin"].allows))
        user.push("access", "access:all")
        await it.until(offer)
        user.me = doubles.somebody(("daemon.read", "*"))
        user.push("access", "access:all")
        await it.until("You may not see ")


async def test_what_would_be_refused_is_not_asked_for_by_opening_screens_and_palette(console, fake, doubles):
    asked = []
    for noun, service in (("keys", fake.keys), ("accounts", fake.accounts), ("grants", fake.access)):
        name = "grants" if noun == "grants" else "ls"
        asks = getattr(service, name)

        def heard(noun=noun, plain=asks):
            asked.append(noun)
            return plain()

        setattr(service, name, heard)
    plain = fake.chats

    async def chats():
        asked.append("chats")
        return await plain()

    fake.chats = chats
    manages = (("keys.manage", "*"), ("accounts.manage", "*"), ("access.grant", "*"), ("access.read", "access:user:*"))
    fake.me = doubles.somebody(("daemon.read", "*"), *manages)
    async with console("8") as it:
        await it.until("You are ann")
        for key in "123456789":
            await it.press(key)
        await it.press("5")
        await it.until("You may not see chats (chats.own)")
        await it.press("colon")
        await it.until("part of a name")
        await it.press("escape")
        assert asked == []
        fake.me = doubles.somebody(*((each, "*") for each in BUILTIN["auditor"].allows), ("chats.own", "*"))
        fake.push("access", "access:all")
        await it.until("First  ")
        await it.press("8")
        await it.until(lambda: {"keys", "accounts", "grants", "chats"} <= set(asked))


async def test_an_operator_of_a_few_names_is_told_which_right_shows_models(console, user, doubles):
    user.me = doubles.somebody(*((each, "deployment:ml-*") for each in BUILTIN["operator"].allows))
    async with console("3") as it:
        await it.until("You may not see models (models.read)")
