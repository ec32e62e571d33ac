"""What a model would take and where, how fast it was measured to be, and the tier that a deployment needs."""

import msgspec
import pytest

from core.access.permissions import BUILTIN
from core.nouns import DeploymentSpec, Speed
from tui.curves import along, brief, chart
from tui.modelplan import over
from tui.screens.confirm import Confirm
from tui.screens.deploy import DeployForm
from tui.screens.models_curve import Curve, MeasureForm
from tui.screens.models_fit import FitForm
from tui.screens.models_jobs import Jobs
from tui.speed import told

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


@pytest.fixture
def stored(fake, doubles):
    fake.stored = [doubles.model("gemma", version=3, versions=5, aliases=("live",)), doubles.model("smollm2")]
    return fake


def test_a_model_that_only_reads_is_told_by_its_texts():
    known = Speed(known=True, threads=2, users=4, ctx=1, prompt=512, prefill=1024.0, each=256.0, writes=False)
    (first, _) = told(known)
    assert "reads 1024 tokens/s, 256 for each of 4 at once, which is 2.0 texts of 512 tokens a second" in first


def called(fake, verb):
    return [each[1:] for each in fake.calls if each[0] == verb]


async def shows(it, words):
    """They stand on the screen, however they are wrapped."""
    await it.until(lambda: words in " ".join(it.text.split()))


def curve(doubles, **fields):
    made = doubles.of_models
    points = [made.point(t, p, c, 10.0 * t * p**0.5 - c / 512) for t in (1, 2) for p in (1, 2, 4) for c in (512, 2048)]
    return made.bench(*points, **fields)


# ---------------------------------------------------------------------------------------- memory by device


@SIZES
async def test_a_plan_over_gpus_is_drawn_device_by_device(console, stored, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("w")
        await it.until(lambda: isinstance(it.app.screen, FitForm))
        await it.until("fits here: a replica reserves 300 MiB")
        await it.until("20.0 tokens/s for one user")
        assert "gpu0" not in it.text
        it.app.screen.query_one("#field-gpus").focus()
        await it.type("24G 1G")
        await shows(it, "40 layers on GPUs, the experts of 3 layers in the host: DOES NOT FIT")
        assert called(stored, "fit")[-1] == (
            DeploymentSpec(name="fit", model="gemma"), (24 << 30, 1 << 30), None, None,
        )  # fmt: skip
        lines = it.text.split("\n")
        (one,), (two,) = ([each for each in lines if each.startswith(name)] for name in ("gpu0", "gpu1"))
        assert "W" in one and "." in one and "3.1 GiB of 24.0 GiB, 20 layers" in one and "TOO LITTLE" not in one
        assert "TOO LITTLE" in two and "." not in two.partition("]")[0]


async def test_layers_are_asked_for_beside_gpus_alone(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("w")
        await it.until(lambda: isinstance(it.app.screen, FitForm))
        it.app.screen.query_one("#field-cpu_moe").value = "4"
        await it.until("Layers on GPUs and experts in host go with GPUs")
        it.app.screen.query_one("#field-gpus").value = "lots"
        await it.until("lots")
        it.app.screen.query_one("#field-gpus").value = "24G"
        it.app.screen.query_one("#field-which").value = "2"
        await it.until(lambda: called(stored, "fit") and called(stored, "fit")[-1][1:] == ((24 << 30,), None, 4))
        assert called(stored, "fit")[-1][0].model == "gemma@2"


async def test_what_was_weighed_is_deployed_so(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("w")
        await it.until(lambda: isinstance(it.app.screen, FitForm))
        it.app.screen.query_one("#field-ctx").value = "8192"
        it.app.screen.query_one("#field-parallel").value = "2"
        it.app.screen.query_one("#field-cache_type").value = "q8_0"
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, DeployForm) and it.app.screen.query("#field-ctx"))
        form = it.app.screen
        assert [form.value(key) for key in ("model", "ctx", "parallel", "cache_type")] == ["gemma", "8192", "2", "q8_0"]
        await it.press("escape", "escape")
        await it.until(lambda: it.app.screen.ROOM == "models")


def test_the_bars_of_devices_are_of_one_length_and_within_the_width(doubles):
    for width in (60, 80, 120, 200):
        lines = over(doubles.of_models.split((24 << 30, 1 << 30, 8 << 30)), width)[1:-1]
        assert len({each.index("]") for each in lines}) == 1 and max(map(len, lines)) <= width


# ---------------------------------------------------------------------------------------- the measured curve


def test_a_curve_goes_along_one_axis_from_the_fastest_point(doubles):
    found = curve(doubles)
    from tui.curves import AXES

    slots, threads, ctx = (along(found.points, axis) for axis in AXES)
    assert [each.parallel for each in slots] == [1, 2, 4] and {(each.threads, each.ctx) for each in slots} == {(2, 512)}
    assert [each.threads for each in threads] == [1, 2] and [each.ctx for each in ctx] == [512, 2048]
    assert along(found.points[:1], AXES[0]) == [] and along((), AXES[0]) == []


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("ascii", [False, True])
def test_bars_are_as_long_as_the_figures_say_at_any_width(doubles, width, ascii):
    lines = chart(curve(doubles), width, ascii)
    block = "#" if ascii else "█"
    at = next(n for n, each in enumerate(lines) if "by conversations at once" in each)
    longest = [each.count(block) for each in lines[at + 1 : at + 4]]
    assert longest == sorted(longest) and longest[0] > 0 and longest[2] > longest[0]
    assert all(each.isascii() for each in lines) is ascii


def test_what_is_one_point_is_said_and_not_drawn(doubles):
    made = doubles.of_models
    assert brief(made.bench(made.point(1, 2, 512, 12.5))) == [
        "measured: 12.5 tokens/s (2 at once, 1 thread, 512 cells each)"
    ]
    assert brief(None) == [] and brief(made.bench()) == []
    assert chart(made.bench(left_out=("4 at once: no room",)), 80)[-1] == "left out: 4 at once: no room"


async def test_the_pane_shows_the_curve_and_shows_a_new_one_when_it_is_measured(console, stored, doubles):
    async with console("3") as it:
        await it.until("a replica reserves 300 MiB")
        assert "tokens/s by" not in it.text
        stored.choosing.kept = [curve(doubles)]
        stored.push("bench", "model:gemma", doubles.of_models.measuring(state="done", done=9))
        await it.until("tokens/s by conversations at once: 1 ▄ 19.0, 2 ▆ 27.3, 4 █ 39.0 (2 threads, 512 cells each)")
        await it.until("tokens/s by threads: 1 ▄ 19.0, 2 █ 39.0")
        await it.press("enter")
        await it.until(lambda: "All together, tokens/s by threads" in it.app.screen.text)


@SIZES
async def test_a_curve_is_shown_measured_anew_and_cancelled(console, stored, doubles, size):
    stored.choosing.kept = [curve(doubles, left_out=("8 at once: no room",)), curve(doubles, at=doubles.NOW - 86400)]
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("b")
        await it.until(lambda: isinstance(it.app.screen, Curve))
        await it.until("by conversations at once (2 threads, 512 cells each)")
        for words in ("by threads", "by cells of each", "left out: 8 at once: no room", "before that"):
            assert words in it.app.screen.text
        assert called(stored, "benches")[-1] == ("gemma@3",)
        await it.press("x")
        await it.until("! gemma is not being measured")
        await it.press("m")
        await it.until(lambda: isinstance(it.app.screen, MeasureForm))
        await it.until("gemma@3 at up to 9 points")
        await it.type("1,2")
        await it.until("gemma@3 at 6 points")
        await it.press("ctrl+s")
        await shows(it, "bench gemma: ◑ measuring 33 % of 9 points: 2 threads, 4 at once, 512 cells")
        assert called(stored, "measure") == [
            ("gemma@3", dict(threads=(1, 2), parallel=(1, 2, 4), ctx=(512,), engine="xllamacpp", cache_type="f16"))
        ]
        asked = len(called(stored, "benches"))
        stored.push("bench", "model:gemma", doubles.of_models.measuring(done=5, step="1 threads"))
        await it.until("55 %")
        assert len(called(stored, "benches")) == asked
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: called(stored, "cancel bench") == [("b1",)])
        await it.until("cancelled")


async def test_a_measurement_on_its_way_is_seen_by_who_comes_later_and_among_what_is_under_way(
    console, stored, doubles
):
    stored.measuring = (
        doubles.of_models.measuring(),
        doubles.of_models.measuring(id="n", object="node:local", kind="node"),
    )
    async with console("3") as it:
        await it.until("bench gemma: ◑ measuring 33 % of 9 points")
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, Jobs))
        await it.until("9 points")
        assert [each.key for each in it.app.screen.table().rows] == ["bench:b1"]
        await it.press("p")
        await it.until("! A bench cannot be paused: x cancels it")
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "Nothing of it is kept" in it.app.screen.question
        await it.press("y")
        await it.until(lambda: called(stored, "cancel bench") == [("b1",)])


async def test_who_may_not_measure_sees_the_curve(console, stored, doubles):
    stored.choosing.kept = [curve(doubles)]
    stored.me = doubles.somebody(*((each, "*") for each in BUILTIN["viewer"].allows))
    async with console("3") as it:
        await it.until("coder")
        await it.press("b")
        await it.until("by conversations at once (2 threads")
        await it.press("m")
        await it.until("ann may not models.bench")
        assert isinstance(it.app.screen, Curve)


async def test_a_wrong_grid_is_said_and_measures_nothing(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("b", "m")
        await it.until(lambda: isinstance(it.app.screen, MeasureForm))
        await it.type("two")
        await it.until("threads are whole numbers with commas between, not 'two'")
        await it.press("ctrl+s")
        await it.until("! threads are whole numbers")
        assert not called(stored, "measure")


# ---------------------------------------------------------------------------------------- the tier of a deployment


@SIZES
async def test_the_deploy_form_says_what_a_tier_means_and_sends_it(console, stored, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("d")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        it.app.screen.query_one("#field-tier").focus()
        await it.type("fast")
        told = "91.0 MiB of gemma@3 go from home to fast, WHERE ONLY 40.0 MiB ARE LEFT, before it starts"
        await it.until(lambda: told in " ".join(it.app.screen.whole().split()))
        it.app.screen.query_one("#field-tier").value = "home"
        await it.until(lambda: "lies in home already, and stays there while this runs" in it.app.screen.whole())
        it.app.screen.query_one("#field-tier").value = "nosuch"
        await it.until(lambda: "No tier is called nosuch" in it.app.screen.whole())
        it.app.screen.query_one("#field-tier").value = "fast"
        await it.press("ctrl+s")
        await it.until(lambda: called(stored, "deploy"))
        assert called(stored, "deploy")[0][0].tier == "fast"


async def test_who_may_not_move_is_told_so_before_he_deploys(console, stored, doubles):
    allowed = set(BUILTIN["operator"].allows) - {"models.move"}
    stored.me = doubles.somebody(*((each, "*") for each in allowed))
    async with console("3") as it:
        await it.until("coder")
        await it.press("d")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        it.app.screen.query_one("#field-tier").value = "fast"
        await it.until("ann may not models.move")


def test_a_spec_that_somebody_reckoned_keeps_its_tier():
    spec = DeploymentSpec(name="x", model="gemma", tier="fast")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=DeploymentSpec).tier == "fast"
