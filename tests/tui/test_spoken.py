"""Errors and forms speak of fields and screens, not of a command line's options and verbs."""

import pytest
from textual.widgets import Input

from core.errors import Conflict, Invalid, NotFound
from tui.spoken import spoken


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Invalid("'A b' is no name", "it has a-z", "give another one with --name"), "give another name"),
        (Conflict("a model 'x' exists", todo="give the new one another --name"), "give the new one another name"),
        (NotFound("no model 'x'", "", "see `corral models ls`, or import one"), "see screen 3, or import one"),
        (NotFound("no deployment 'x'", "", "see `corral deployments`"), "see screen 2"),
        (Invalid("parallel is 999", "it may be 1 to 256", "change --parallel"), "slots is 999; it may be 1 to 256"),
        (
            Conflict("x", "", "what would fit: --ctx 512 --parallel 2 --cache-type q8_0"),
            "what would fit: ctx 512 slots 2 cache type q8_0",
        ),
        (Conflict("x is stopped", "", "corral start x"), "s on screen 2"),
        (
            Invalid("corral.toml:4", "", "mend the line, then `corral reload`"),
            'mend the line, then "reload" in the palette',
        ),
        (
            Conflict("/a/--name.gguf is bad", "see `corral models ls`.gguf"),
            "/a/--name.gguf is bad; see `corral models ls`",
        ),
        (OSError(5, "broken"), "broken"),
    ],
)
def test_an_error_names_what_the_console_has(error, said):
    assert said in spoken(error)


async def typed(it, n, text):
    field = list(it.app.screen.query(Input))[n]
    field.value = text
    await it.pilot.pause()


async def test_the_deploy_form_calls_its_fields_by_their_labels(console):
    async with console("2") as it:
        await it.until("replica")
        await it.press("d")
        await it.until("Deploy a model")
        await typed(it, 3, "many")
        await it.until("slots must be a whole number, not 'many'")
        await typed(it, 3, "1")
        await typed(it, 6, "f17")
        await it.until("cache type: Invalid enum value 'f17'")


async def test_the_scale_form_says_at_once_what_is_too_many(console, fake, doubles):
    fake.deployed = [doubles.deployment("chat")]
    async with console("2") as it:
        await it.until("replica")
        await it.press("c")
        await it.until("1 x 300 MiB = 300 MiB")
        await typed(it, 0, "16")
        await it.until("DOES NOT FIT: 15 more take 4.4 GiB, 4.4 GiB may be had")
        await typed(it, 0, "2")
        await it.until("Fits: 1 more take 300 MiB")
        await typed(it, 0, "1999")
        await it.until("replicas is a whole number from 0 to 64, not '1999'")
        await it.press("ctrl+s")
        await it.until("! replicas is a whole number")
        assert not [call for call in fake.calls if call[0] == "scale"]
