"""The Models screen: one list of what is stored and what the catalogue has, its filter, its pane, and what its keys ask
of the daemon."""

import msgspec
import pytest

from core.access.permissions import BUILTIN
from core.errors import Changed
from core.nouns import Gone, Rotten, Unread, Verified
from tui import modelstory, underway
from tui.modelplan import bar
from tui.screens.confirm import Choice, Confirm
from tui.screens.deploy import DeployForm
from tui.screens.models_forms import AliasForm, DiffForm, GcForm, NoteForm
from tui.screens.models_info import History, Info
from tui.screens.models_jobs import Jobs
from tui.screens.models_move import MoveForm
from tui.screens.models_pull import PullForm
from tui.screens.models_recommend import Recommend
from tui.screens.whole import Whole
from tui.stock import LISTED, Filter, offers, row
from tui.widgets.keyline import KeyLine
from tui.widgets.table import Table

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])
EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\u202ed"


@pytest.fixture
def stored(fake, doubles):
    """gemma has five versions, the third is live, and is flagged; the catalogue's coder is not stored."""
    gemma = doubles.model(
        "gemma", version=3, versions=5, aliases=("live", "canary"), label="q5", template_sha256="cd" * 32,
        flags=("it reaches for modules",),
    )  # fmt: skip
    fake.stored = [gemma, doubles.model("smollm2")]
    return fake


def called(fake, verb):
    return [each[1:] for each in fake.calls if each[0] == verb]


def shown(it):
    return [each.key for each in it.app.screen.query_one("#models", Table).rows]


async def on(it, key):
    await it.until("coder")
    assert it.app.screen.seek(key)
    await it.pilot.pause()


# ---------------------------------------------------------------------------------------- the list


@SIZES
async def test_stored_and_catalogue_are_one_list(console, stored, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        assert shown(it) == ["gemma", "smollm2", "+coder", "+seer"]
        lines = it.text.split("\n")
        gemma = next(each for each in lines if "gemma" in each and "91.0" in each)
        assert "stored" in gemma and " ! " in gemma and "@3/5" in gemma and " no " in gemma
        coder = next(each for each in lines if "coder" in each)
        assert "catalogue" in coder and "3.9 GiB" in coder and "yes" in coder
        if size[0] == 120:
            assert "code general" in coder and "mit" in coder


async def test_an_entry_that_is_stored_has_no_row_of_its_own(console, fake, doubles):
    fake.stored = [doubles.model("coder")]
    async with console("3") as it:
        await it.until("seer")
        assert shown(it) == ["coder", "+seer"]
        assert "code general" in next(each for each in it.text.split("\n") if "coder" in each)


async def test_a_stored_model_that_is_only_called_as_an_entry_leaves_its_row_there(console, fake, doubles):
    fake.stored = [doubles.model("coder")]
    fake.catalog.mistaken = {"coder"}
    async with console("3") as it:
        await it.until("seer")
        assert shown(it) == ["coder", "+coder", "+seer"]
        assert "code general" not in next(each for each in it.text.split("\n") if "coder" in each)


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("use:code", ["+coder"]), ("fit:yes", ["smollm2", "+coder"]), ("fit:no catal", ["+seer"]),
        ("tier:home", ["gemma", "smollm2"]), ("stored", ["gemma", "smollm2"]), ("-stored", ["+coder", "+seer"]),
        ("-use:code", ["gemma", "smollm2", "+seer"]), ("licence:mit", ["+coder", "+seer"]), ("by:ch", ["smollm2"]),
        ("flag:yes", ["gemma"]), ("use:", ["gemma", "smollm2", "+coder", "+seer"]), ("use:c", ["+coder"]),
    ],
)  # fmt: skip
async def test_the_filter_knows_use_fit_and_tier(console, stored, typed, left):
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("slash")
        await it.until("use:code fit:yes")
        it.app.focused.value = typed
        await it.until(lambda: shown(it) == left)
        await it.press("escape")
        await it.until(lambda: len(shown(it)) == 4)


async def test_a_filter_that_there_is_not_is_named(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("slash")
        await it.type("bogus:x")
        await it.until("No filter is called bogus: there are use:, fit:")


async def test_what_is_away_says_so_where_others_say_whether_they_fit(console, fake, doubles):
    fake.stored = [doubles.model("gemma", state="away", tier="nas"), doubles.model("smollm2", state="missing")]
    async with console("3") as it:
        await it.until("gemma")
        await it.until(lambda: it.app.screen._fits is not None)
        shelf = it.app.screen.query_one("#models", Table)
        assert [shelf.offers[name].fits for name in ("gemma", "smollm2")] == ["away", "-"]
        await it.until("! it is away: the tier nas is not there")


def test_half_a_word_never_raises_and_never_widens(doubles):
    known = offers({"gemma": doubles.model("gemma")}, (), None, ())
    cells = row(known[0]).cells
    for text in ("use", "use:", ":", "-", "fit:maybe", "tier:", "-tier:home", "x:y"):
        assert Filter(text).takes(known[0], cells) in (True, False)
    assert known[0].fits == "?" and not Filter("fit:yes").takes(known[0], cells)


async def test_a_thousand_models_are_made_into_rows_once(console, fake, doubles, monkeypatch):
    made = []
    monkeypatch.setattr("tui.screens.models.row", lambda *a: made.append(a) or row(*a))
    fake.stored = [doubles.model(f"m{n}") for n in range(1000)]
    async with console("3") as it:
        await it.until(lambda: called(fake, "fits") and it.app.screen._fits is not None)
        await it.until("m10")
        await it.pilot.pause(0.3)
        made.clear()
        asked = len(called(fake, "versions"))
        await it.press("1")
        await it.until(lambda: it.app.current_mode == "overview")
        await it.press("3")
        await it.until("m10")
        for n in range(3):
            fake.push("sample", "node:local", doubles.sample(doubles.NOW + n))
            await it.pilot.pause(0.25)
        assert len(made) <= 1002 and asked == 0  # anew at most once: for what fits now


# ---------------------------------------------------------------------------------------- what is known of one


async def test_the_pane_tells_of_the_row_under_the_cursor_and_asks_only_for_that(console, stored):
    async with console("3") as it:
        await it.until("gemma@3 q5 (live, canary), 5 versions")
        await it.until("! it reaches for modules")
        await it.until("fits here: a replica reserves 300 MiB")
        await it.until("W weights 91.0 MiB")
        await it.until("loads from home (here) 1.2 s cold")
        assert called(stored, "versions") == [("gemma",)]
        await on(it, "+coder")
        await it.until("Coder: not stored, for code, general")
        await it.until("HumanEval 62.2 of 100")
        assert called(stored, "versions") == [("gemma",)]


async def test_what_the_catalogue_says_of_a_stored_model_does_not_call_it_not_stored(doubles):
    (listed,) = offers({}, [doubles.of_models.entry("coder")], None, ())
    told = next(modelstory._entry(listed, 80, whole=True))
    here = next(modelstory._entry(listed._replace(model=doubles.model("coder")), 80, whole=True))
    assert "not stored" in told and "not stored" not in here


async def test_the_pane_folds_on_a_small_terminal_and_asks_nothing(console, stored):
    async with console("3", size=(80, 24)) as it:
        await it.until("-- gemma@3")
        await it.press("j", "k")
        await it.pilot.pause(0.5)
        assert not called(stored, "versions") and not called(stored, "fit") and "W weights" not in it.text
        await it.pilot.resize_terminal(120, 36)
        await it.until("W weights")


@pytest.mark.parametrize(
    ("label", "uses", "ends"),
    [("q5", ("code",), ", for code"), ("q5" * 8, ("code", "mathematics"), ", for code"),
     ("q5" * 13, ("code",), "apache-2.0")],
)  # fmt: skip
async def test_the_one_line_of_a_model_leaves_out_whole_what_it_has_no_room_for(
    console, fake, doubles, label, uses, ends
):
    fake.stored = [doubles.model("coder", label=label, aliases=("live", "canary"))]
    fake.curated.entries = (msgspec.structs.replace(fake.curated.entries[0], uses=uses),)
    async with console("3", size=(80, 24)) as it:
        await it.until("-- coder@1")
        await it.until(ends)  # what it is for comes with what fits
        line = next(each for each in it.text.split("\n") if each.startswith("-- coder@1")).rstrip()
        assert line.endswith(ends) and "…" not in line, line


@SIZES
async def test_enter_opens_all_that_is_known(console, stored, size):
    stored.catalog.text = "{% if x %}\n{{ cycler.__init__ }}" + EVIL
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Info))
        await it.until("Chat template of its file")
        text = it.app.screen.text
        shown = r"{{ cycler.__init__ }}a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\u202ed"
        for words in ("@5", "@1", "live canary", "! it reaches for modules", shown, "K KV cache"):
            assert words in text
        assert "\x1b" not in text and "\u202e" not in text
        await it.press("escape")
        await on(it, "+coder")
        await it.press("e")
        await it.until(lambda: isinstance(it.app.screen, Info) and "[1] github:lab/coder" in it.app.screen.text)
        assert "not known: active_params" in it.app.screen.text


async def test_who_may_not_plan_or_read_versions_still_sees_the_rest(console, stored):
    async def refuse(*args, **kwargs):
        raise stored.refusal

    from core.errors import NotAllowed

    stored.refusal = NotAllowed("ann may not", "no grant", "ask")
    stored.fit = stored.catalog.versions = stored.tiers.loads = refuse
    async with console("3") as it:
        await it.until("memory: ann may not")
        assert "gemma@3" in it.text


def test_a_bar_has_a_cell_for_each_part_and_never_more_than_its_width():
    parts = {"weights": 900 << 20, "kv_cache": 90 << 20, "compute": 2 << 20, "output": 1, "base": 50 << 20}
    drawn = bar(parts, 2000 << 20, 42)
    assert len(drawn) == 42 and drawn.count("W") > drawn.count("K") >= 1 and "C" in drawn and "." in drawn
    full = bar(parts, 1, 42)
    assert len(full) == 42 and "." not in full


# ---------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("key", "screen"),
    [("a", AliasForm), ("n", NoteForm), ("c", DiffForm), ("h", History), ("o", MoveForm), ("f", GcForm), ("t", Jobs),
     ("p", PullForm), ("r", Recommend), ("d", DeployForm), ("e", Info)],
)  # fmt: skip
@SIZES
async def test_each_key_opens_its_form_and_escape_comes_back(console, stored, key, screen, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press(key)
        await it.until(lambda: isinstance(it.app.screen, screen))
        await it.press("escape", "escape")
        await it.until(lambda: it.app.screen.ROOM == "models")


async def test_what_is_only_in_the_catalogue_is_pulled_and_nothing_else(console, stored):
    async with console("3") as it:
        await on(it, "+coder")
        for key in "adchnox":
            await it.press(key)
            await it.until("! coder is not stored: p pulls it")
        await it.press("p")
        await it.until(lambda: isinstance(it.app.screen, PullForm))
        assert it.app.screen.value("source") == "hf:lab/coder-GGUF:Q4_K_M" and it.app.screen.value("name") == "coder"


async def test_who_may_only_see_has_the_rest_dimmed_with_its_reason(console, stored, doubles):
    stored.me = doubles.somebody(*((each, "*") for each in BUILTIN["viewer"].allows))
    async with console("3") as it:
        await it.until("coder")
        dimmed = {text.split()[0] for text, free in it.app.screen.query_one(KeyLine).keys if not free}
        assert {"i", "p", "a", "n", "v", "f", "x", "o", "d"} <= dimmed and not {"e", "h", "c", "r", "t", "/"} & dimmed
        for key, needs in (("a", "models.alias"), ("f", "models.gc"), ("v", "models.verify"), ("p", "models.import")):
            await it.press(key)
            await it.until(f"ann may not {needs}")
            assert it.app.screen.ROOM == "models"


async def test_all_of_it_is_in_the_palette(console, stored):
    from tui.screens.palette import Palette

    for screen in ("1", "3"):
        async with console(screen) as it:
            await it.press("ctrl+p")
            await it.until(lambda: isinstance(it.app.screen, Palette))
            words = "\n".join(each.words for each in it.app.screen.deeds)
            for wanted in ("Pull from a hub", "Recommend one", "Verify stored files", "Free what nothing", "under way",
                           "gemma: alias", "gemma: compare", "gemma: history", "gemma: label", "gemma: move",
                           "Import"):  # fmt: skip
                assert wanted.casefold() in words.casefold(), wanted


# ---------------------------------------------------------------------------------------- forms about versions


async def test_an_alias_shows_what_it_touches_and_asks(console, stored):
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("a")
        await it.until(lambda: isinstance(it.app.screen, AliasForm))
        await it.press("tab")
        await it.type("3")
        told = "gemma:live will mean version 3; it means 2; deployments that get it when they are next restarted: chat"
        await it.until(lambda: told in " ".join(it.text.split()))
        assert "@5" in it.text
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "chat" in it.app.screen.question and ("gemma", "live", "3", True, 2) not in called(stored, "alias")
        await it.press("y")
        await it.until("gemma:live means version 3; restart to go over: chat")
        assert ("gemma", "live", "3", True, 2) in called(stored, "alias") and not called(stored, "restart_deployment")


async def test_an_alias_restarts_what_it_touches_where_one_says_so(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("a")
        await it.until(lambda: isinstance(it.app.screen, AliasForm))
        await it.press("tab", *"3", "tab")
        await it.type("yes")
        await it.until("ARE RESTARTED WITH IT NOW: chat")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: called(stored, "restart_deployment") == [("chat",)])


async def test_an_alias_is_taken_away_and_live_is_not(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("a")
        await it.until(lambda: isinstance(it.app.screen, AliasForm))
        it.app.screen.query_one("#field-to").value = ""
        await it.until("Say which version it shall mean")
        await it.type("canary")
        await it.until("Takes gemma:canary away")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: called(stored, "drop_alias") == [("gemma", "canary")])


async def test_two_versions_are_compared_while_one_types(console, stored):
    async with console("3") as it:
        await it.until("coder")
        stored.catalog.previous = True
        await it.press("c")
        await it.until("size bytes: 1 -> 2")
        assert called(stored, "diff")[-1] == ("gemma:previous", "gemma:live")
        await it.type("5")
        await it.until(lambda: called(stored, "diff")[-1] == ("gemma@5", "gemma:live"))
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Whole))
        assert "  - b" in it.app.screen.text and "  + c" in it.app.screen.text


async def test_where_nothing_was_live_before_the_newest_of_the_others_is_compared(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("c")
        await it.until(lambda: called(stored, "diff") and called(stored, "diff")[-1] == ("gemma@5", "gemma:live"))


async def test_a_version_is_noted(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("n")
        await it.until("gemma@3 now: label q5, notes none")
        it.app.screen.query_one("#field-notes").value = "for the pilot"
        await it.press("ctrl+s")
        await it.until(lambda: called(stored, "note") == [("gemma@3", "q5", "for the pilot")])
        await it.until(lambda: it.app.screen.ROOM == "models")


async def test_what_nothing_needs_is_shown_with_what_it_frees_and_asked(console, stored):
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("f")
        await it.until("1 would go, which frees 90.0 MiB")
        await it.until("smollm2:previous means it")
        await it.press("ctrl+s")
        await it.until("Remove smollm2@1 for good, which frees 90.0 MiB?")
        assert all(dry for dry, *_ in called(stored, "gc"))
        await it.press("y")
        await it.until("Removed 1, freed 90.0 MiB")
        assert (False, 0.0, ["smollm2@1"]) in called(stored, "gc")


async def test_what_would_go_by_now_is_shown_where_a_yes_came_too_late(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("f")
        await it.until("1 would go")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        stored.catalog.changed = Changed("nothing was removed", "smollm2@3 would go too")
        more = Gone(what="version", name="smollm2@3", bytes=0, why="nothing means it")
        before = stored.catalog.collected
        stored.catalog.collected = msgspec.structs.replace(before, gone=(*before.gone, more))
        await it.press("y")
        await it.until("nothing was removed")
        await it.until("2 would go")
        await it.press("ctrl+s")
        await it.until("Remove smollm2@1 and smollm2@3 for good")


async def test_a_removal_names_its_versions_and_asks_anew_where_there_are_others_by_now(console, fake, doubles):
    fake.stored, fake.deployed = [doubles.model("zoo", versions=2)], []
    refusals = [Changed("nothing was removed", "zoo@3 would go too")]

    async def remove_model(name, seen):
        fake.calls.append(("remove_model", name, seen))
        if refusals:
            fake.stored = [doubles.model("zoo", versions=3)]
            raise refusals.pop()

    fake.remove_model = remove_model
    async with console("3") as it:
        await it.until("zoo")
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "Remove the model zoo (@1 and @2) and its files of" in it.app.screen.question
        await it.type("zoo")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Confirm) and "@3)" in it.app.screen.question)
        assert it.app.screen.question.startswith("Not done: zoo@3 would go too. Remove the model zoo")
        await it.type("zoo")
        await it.press("enter")
        await it.until(lambda: len(called(fake, "remove_model")) == 2)
        assert called(fake, "remove_model")[-1] == ("zoo", ["zoo@1", "zoo@2", "zoo@3"])


async def test_nothing_is_removed_where_nothing_would_go(console, stored):
    stored.catalog.collected = msgspec.structs.replace(stored.catalog.collected, gone=(), bytes=0)
    async with console("3") as it:
        await it.until("coder")
        await it.press("f", "ctrl+s")
        await it.until("! Nothing would go")
        assert all(dry for dry, *_ in called(stored, "gc"))


async def test_history_is_read(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("h")
        await it.until("live: 1 to 2")


# ---------------------------------------------------------------------------------------- verify, pulls, moves


async def test_verify_asks_what_shows_how_far_and_is_ended(console, stored):
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("v")
        await it.until(lambda: isinstance(it.app.screen, Choice))
        await it.press("m")
        await it.until(lambda: called(stored, "verify") == [(("gemma",),)])
        await it.until("verify stored files: ◑ hashing 25 % of 100 B: 1 of 4 files")
        stored.catalog.run = msgspec.structs.replace(stored.catalog.run, bytes_done=75)
        stored.push("verify", "model:*")
        await it.until("75 %")
        await it.press("v")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: called(stored, "cancel_verify"))


async def test_what_has_rotted_is_said_with_who_uses_it_until_it_is_read(console, stored):
    rotten = Rotten(sha256="ab" * 32, bytes=1, versions=("gemma@3",), deployments=("chat",))
    stored.catalog.run = Verified(
        state="done", objects_done=4, objects_total=4, bytes_done=1, bytes_total=1, started_at=0, started_by="a",
        rotten=(rotten,),
    )  # fmt: skip
    async with console("3") as it:
        await it.until("NOT WHOLE: gemma@3, used by chat: import it again")
        await it.press("escape")
        await it.until(lambda: "NOT WHOLE" not in it.text)


def test_what_was_mended_since_and_what_was_not_read_is_said() -> None:
    mended = Rotten(sha256="ab" * 32, bytes=1, versions=("gemma@3",), deployments=("chat",), healed=True)
    job = underway.of_verify(
        Verified(
            state="done", objects_done=1, objects_total=3, bytes_done=1, bytes_total=1, started_at=0, started_by="a",
            missing=(mended,), unread=(Unread(version="phi@1", state="away", tier="nas"),),
        )
    )  # fmt: skip
    assert job.why == "1 of 3 files; whole again: gemma@3; phi@1 not read: the tier nas is not there: mount it"


@SIZES
async def test_pulls_are_seen_paused_gone_on_with_and_cancelled(console, stored, doubles, size):
    pull = doubles.of_models.pull
    stored.pulling = (pull(), pull("p2", name="seer", state="waiting", rate=0.0, left_s=None))
    async with console("3", size=size) as it:
        await it.until("(t shows all 2)")
        await it.press("t")
        await it.until("42 %")
        await it.until("10.0 MiB/s")
        assert "58 s" in it.text and "waiting" in it.text
        assert it.app.screen.seek("pull:p1")
        await it.press("p")
        await it.until("paused")
        assert called(stored, "pause") == [("p1",)]
        await it.press("p")
        await it.until(lambda: called(stored, "resume") == [("p1",)])
        stored.push("pull", "pull:p1", pull(bytes_done=900 * doubles.MIB))
        await it.until("90 %")
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: called(stored, "cancel pull") == [("p1",)])


async def test_imports_and_moves_are_there_too_and_cannot_be_paused(console, stored, doubles):
    stored.moving = (await stored.tiers.move("gemma@3", "fast"),)
    async with console("3") as it:
        await it.until("coder")
        await it.press("t")
        await it.until("from home to fast")
        await it.press("p")
        await it.until("! A move cannot be paused: x cancels it")
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "It stays where it was" in it.app.screen.question
        await it.press("y")
        await it.until(lambda: called(stored, "cancel move") == [("m1",)])


async def test_a_pull_asks_the_hub_once_for_a_whole_source_and_begins(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("p")
        await it.until(lambda: isinstance(it.app.screen, PullForm))
        await it.type("hf:lab")
        await it.until("A source is hf:ORG/REPO")
        await it.type("/coder-GGUF")
        await it.until("> Q4_K_M")
        assert called(stored, "pull plan") == [("hf:lab/coder-GGUF",)]
        it.app.screen.query_one("#field-limit").focus()
        await it.type("20M")
        await it.press("enter")
        await it.until("Pulling coder, 1.0 GiB; t shows how far")
        assert called(stored, "pull") == [("hf:lab/coder-GGUF", {"limit": 20 << 20})]
        await it.until("pull coder: ◑ pulling 42 % of 1.0 GiB, 10.0 MiB/s, 58 s left")


async def test_a_folder_here_is_imported_and_no_hub_is_asked(console, stored):
    stored.import_model = recorded(stored)
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("p")
        await it.until(lambda: isinstance(it.app.screen, PullForm))
        await it.type("/tmp/x")
        await it.until("Reads /tmp/x, hashes it")
        it.app.screen.query_one("#field-label").value = "2026-11"
        await it.press("ctrl+s")
        await it.until(lambda: called(stored, "import"))
        ((path, name, options, _),) = called(stored, "import")
        assert (path, name, options.label) == ("/tmp/x", None, "2026-11") and not called(stored, "pull")


async def test_a_pull_that_had_failed_before_is_no_news(console, stored, doubles):
    stored.pulling = (doubles.of_models.pull(state="failed"),)
    async with console("3") as it:
        await it.until("coder")
        assert "failed" not in it.text
        stored.push("pull", "pull:p2", doubles.of_models.pull("p2", name="other", state="failed"))
        await it.until("pull other: ✗ failed")


async def test_an_import_has_a_label_a_projector_and_may_become_live(console, stored):
    async with console("3", size=(80, 24)) as it:
        await it.until("coder")
        await it.press("i")
        await it.type("/tmp/x.gguf")
        await it.press("tab")
        await it.type("gemma")
        await it.until("a new version of gemma: gemma goes on to mean version 3")
        await it.press("tab")
        await it.type("2026-11")
        it.app.screen.query_one("#field-live").value = "yes"
        it.app.screen.query_one("#field-projector").value = "/tmp/p.gguf"
        await it.until("which it means then")
        stored.import_model = recorded(stored)
        await it.press("ctrl+s")
        await it.until(lambda: called(stored, "import"))
        ((path, name, options, projector),) = called(stored, "import")
        assert (path, name, projector) == ("/tmp/x.gguf", "gemma", "/tmp/p.gguf")
        assert options.label == "2026-11" and options.live


def recorded(fake):
    from core.nouns import ImportJob

    async def import_model(path, name, *, options, projector):
        fake.calls.append(("import", path, name, options, projector))
        return ImportJob(id="i1", name=name, origin=path, state="hashing", bytes_done=1, bytes_total=2)

    return import_model


# ---------------------------------------------------------------------------------------- recommend


@SIZES
async def test_the_answer_changes_while_one_types(console, stored, doubles, size):
    async with console("3", size=size) as it:
        await it.until("coder")
        await it.press("r")
        await it.until("9 weighed against 5.9 GiB")
        assert called(stored, "recommend")[-1][0].use == "general"
        await it.type("code")
        await it.until(lambda: called(stored, "recommend")[-1][0].use == "code")
        await it.press("tab")
        await it.type("8")
        await it.press("tab")
        await it.type("8k")
        await it.until(lambda: called(stored, "recommend")[-1][0].ctx == 8192)
        assert called(stored, "recommend")[-1][0].users == 8
        await it.until("quality 0.80 for code")
        stored.choosing.nearest = (doubles.of_models.choice("coder", needs=("2.0 GiB more memory",)),)
        await it.press("shift+tab")
        await it.type("100")
        await it.until("NOTHING MEETS EVERY WISH")
        await it.until("NEEDS 2.0 GiB more memory")


async def test_a_wrong_wish_is_said_and_asks_nothing(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("r")
        await it.until("9 weighed")
        asked = len(called(stored, "recommend"))
        await it.type("zzz")
        await it.until("for is one of general, code")
        assert len(called(stored, "recommend")) == asked
        assert "9 weighed" not in it.text and "coder" not in it.text  # that was the answer to other wishes
        await it.press("escape")
        await it.press("p")
        await it.until("! Nothing is recommended yet")
        await it.press("tab")
        it.app.screen.query_one("#field-use").value = "code"
        await it.until("9 weighed")
        await it.until("quality 0.80 for code")
        it.app.screen.query_one("#field-ctx").value = "0"
        await it.until("context must be a whole number above 0, not '0'")


async def test_what_is_stored_is_deployed_by_its_form_with_what_was_wished(console, stored):
    async with console("3") as it:
        await it.until("coder")
        await it.press("r")
        await it.until("9 weighed")
        await it.press("escape", "j", "p")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        form = it.app.screen
        assert (form.value("model"), form.value("ctx"), form.value("parallel")) == ("smollm2", "65536", "8")


async def test_who_may_not_deploy_is_told_so_beside_the_answer(console, stored, doubles):
    stored.me = doubles.somebody(*((each, "*") for each in BUILTIN["viewer"].allows))
    async with console("3") as it:
        await it.until("coder")
        await it.press("r")
        await it.until("9 weighed")
        await it.press("escape", "p")
        await it.until("ann may not models.import")
        await it.press("j", "p")
        await it.until("ann may not deployments.create")


# ---------------------------------------------------------------------------------------- hostile


async def test_hostile_names_steer_no_terminal(console, stored, doubles):
    stored.curated.entries = (doubles.of_models.entry("x" + EVIL, "code", licence=EVIL, notes=EVIL, title=EVIL),)
    stored.stored = [doubles.model("m" + EVIL, licence=EVIL, label=EVIL, flags=(EVIL,), aliases=(EVIL,), versions=2)]
    stored.pulling = (doubles.of_models.pull(name=EVIL, source=EVIL, notes=(EVIL,)),)
    async with console("3") as it:
        await it.until("catalogue")
        for keys in (("j",), ("enter",), ("escape", "t"), ("escape", "k", "a"), ("escape", "escape", "h"), ("escape",)):
            await it.press(*keys)
            await it.pilot.pause(0.3)
            assert "\x1b" not in it.text and "\u202e" not in it.text


def test_a_listed_key_is_no_name_that_a_model_may_have():
    assert not LISTED.isalnum() and LISTED not in "._-"
