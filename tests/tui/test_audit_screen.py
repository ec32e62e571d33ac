"""Screen 9: the whole trail is filtered and paged by the daemon; verify, export and report say how far they are."""

import asyncio
import json
import re

import pytest

from core.errors import NoDaemon
from core.nouns import AuditPlan, ChainReport
from tui.trail import KEPT, PAGE

SIZES = [(80, 24), (120, 36)]


@pytest.fixture
def trail(fake, doubles):
    """2,500 records, every fiftieth by eve."""

    def made(count: int = 2500) -> None:
        fake.records = [
            doubles.record(n, actor="eve" if n % 50 == 0 else "ann", object=f"thing:d{n}") for n in range(1, count + 1)
        ]

    return made


@pytest.mark.parametrize("size", SIZES)
async def test_a_filter_is_asked_of_the_daemon_for_the_whole_trail(console, fake, trail, size):
    trail()
    async with console("9", size=size) as it:
        await it.until("thing:d2500")
        await it.press("slash")
        await it.type("actor:eve d50")
        await it.until("2 records that fit 'actor:eve d50'")
        assert "thing:d50" in it.text and "thing:d500" in it.text and "d2500" not in it.text
        await it.press("escape")
        await it.until("thing:d2500")
        assert "that fit" not in it.text


async def test_paging_holds_a_bounded_window_and_reaches_both_ends(console, fake, trail):
    there = KEPT + 3 * PAGE  # as many as make a window that moves, from either end
    trail(there)
    async with console("9") as it:
        await it.until(f"thing:d{there}")
        room = it.app.screen
        for _ in range(there // 30):
            await it.press("pagedown")
            assert len(room.table().rows) <= KEPT + PAGE
        await it.until(lambda: room.table().key == "1", tries=500)
        seen = [int(row.key) for row in room.table().rows]
        assert seen == list(range(seen[0], 0, -1)) and len(seen) <= KEPT, "no gap, none twice"
        await it.press("g")
        await it.until(lambda: room.table().key == str(there))
        await it.press("G")
        await it.until(lambda: room.table().key == "1")
        for _ in range(there // 30 + 5):
            await it.press("pageup")
        await it.until(lambda: room.table().key == str(there), tries=500)
        seen = [int(row.key) for row in room.table().rows]
        assert seen == list(range(there, seen[-1] - 1, -1)) and len(seen) <= KEPT


async def test_what_is_new_comes_at_the_top_and_following_stays_on_it(console, fake, doubles, trail):
    trail(50)

    def happens(n: int, **fields) -> None:
        fake.records.append(doubles.record(n, object=f"thing:d{n}", **fields))
        fake.push("audit", f"thing:d{n}", fake.records[-1])

    async with console("9") as it:
        await it.until("thing:d50")
        await it.press("j")
        happens(51)
        await it.until("thing:d51")
        assert it.app.screen.table().key == "49", "the cursor stays on its record"
        await it.press("f")
        happens(52)
        await it.until(lambda: it.app.screen.table().key == "52")
        assert "following" in it.text
        happens(55)  # events were missed: they are asked for
        fake.records[-1:-1] = [doubles.record(n) for n in (53, 54)]
        await it.until(lambda: [r.key for r in it.app.screen.table().rows[:4]] == ["55", "54", "53", "52"])
        await it.press("slash")
        await it.type("eve")
        await it.until("1 record that fit")
        happens(56)
        happens(57, actor="eve")
        await it.until("2 records that fit")
        assert "thing:d57" in it.text and "thing:d56" not in it.text


async def test_it_goes_on_after_a_lost_connection_and_another_screen(console, fake, doubles, trail):
    trail(50)
    async with console("9") as it:
        await it.until("thing:d50")
        fake.drop()
        await it.until("reconnecting")
        fake.records += [doubles.record(n, object=f"thing:d{n}") for n in range(51, 54)]
        fake.up = True
        await it.until("thing:d53", tries=500)
        await it.press("2")
        fake.records.append(doubles.record(54, object="thing:d54"))
        fake.push("audit", "x:y", fake.records[-1])
        await it.pilot.pause(0.1)
        await it.press("9")
        await it.until("thing:d54")
        assert [int(row.key) for row in it.app.screen.table().rows] == list(range(54, 0, -1))


@pytest.mark.parametrize("size", SIZES)
async def test_a_record_shows_before_and_after_side_by_side(console, fake, doubles, size):
    before = {"spec": {"ctx": 4096, "name": "chat"}, "members": ["a"]}
    after = {"spec": {"ctx": 8192, "name": "chat"}, "members": ["a", "b"]}
    fake.records = [doubles.record(1, before=before, after=after, reason="a reason")]
    async with console("9", size=size) as it:
        await it.until("deployment:chat")
        await it.press("enter")
        await it.until("spec.ctx")
        rows = {line.split()[1] if line.split()[0] == "*" else line.split()[0]: line for line in it.text.splitlines()
                if re.search(r"spec\.|members\.", line)}  # fmt: skip
        assert rows["spec.ctx"].split() == ["*", "spec.ctx", "4096", "8192"]
        assert rows["spec.name"].split() == ["spec.name", "chat", "chat"]
        assert rows["members.1"].split() == ["*", "members.1", "-", "b"]
        assert "a reason" in it.text and "f" * 60 in it.text


async def test_hostile_changes_stay_text(console, fake, doubles):
    evil = "\x1b[2J\x9b31m\u202eabc\x00" + "x" * 5000
    fake.records = [doubles.record(1, before={evil: evil}, after={evil: [evil, {"k": None}]}, actor=evil)]
    async with console("9", size=(80, 24)) as it:
        await it.press("enter")
        await it.until("record    1")
        assert "before" in it.app.screen.text
        assert not set("\x1b\x9b\u202e\x00") & set(it.app.screen.text)
        assert max(map(len, it.app.screen.text.splitlines())) <= 80


@pytest.mark.parametrize("size", SIZES)
async def test_a_verification_says_how_far_it_is_and_can_be_ended(console, fake, size):
    fake.proof.verified = [(340_000, 1_000_000)]
    fake.proof.gate.clear()
    async with console("9", size=size) as it:
        await it.press("v")
        await it.until("Verifying: 340000 of 1000000 records (34 %). v ends it")
        await it.press("v")
        await it.until("The verification was ended")
        assert ("verify ended",) in fake.calls
        fake.proof.gate.set()
        await it.press("v")
        await it.until("WRONG at 2 (changed): record 2 was changed")
        fake.proof.report_made = ChainReport(ok=True, records=3, head="x", seconds=1.0)
        await it.press("v")
        await it.until("Verified 3 records in 1.0 s: the chain is whole")


async def test_a_filter_that_is_wrong_is_told_beside_the_rows(console, fake):
    async with console("9") as it:
        await it.until("deployment:chat")
        await it.press("slash")
        await it.type("since:noon")
        await it.until("is no time")
        assert not any("noon" in each for each in fake.proof.asked)
        assert "deployment:chat" in it.text


async def test_what_may_not_be_done_is_dim_with_its_reason(console, fake, doubles):
    fake.me = doubles.somebody(("daemon.read", "*"), ("audit.read", "*"))
    async with console("9") as it:
        for key, permission in (("v", "audit.verify"), ("w", "audit.export"), ("r", "audit.export"),
                                ("a", "audit.archive")):  # fmt: skip
            await it.press(key)
            await it.until(f"ann may not {permission}")
        assert it.app.screen.ROOM == "audit"


@pytest.mark.parametrize("size", SIZES)
async def test_the_trail_is_written_to_a_new_file_of_who_sits_here(console, fake, size, tmp_path):
    from core.proof.encoding import GENESIS
    from core.proof.statements import End

    end = End("i", 3, GENESIS, 3, 1, "d", "t", "keyid", "sig").line() + b"\n"
    fake.proof.pieces = [b'["corral-export-1"]\n', end]
    out = tmp_path / "trail"
    async with console("9", size=size) as it:
        await it.press("w")
        await it.until("A checkpoint is signed")
        field = it.app.screen.query_one("#field-path")
        field.value = str(out)
        await it.until(lambda: str(tmp_path)[:40] in it.text)
        await it.press("ctrl+s")
        await it.until("3 records up to 3 are in")
        assert out.read_bytes() == b"".join(fake.proof.pieces) and out.stat().st_mode & 0o777 == 0o600
        await it.press("w")
        await it.until("A checkpoint is signed")
        it.app.screen.query_one("#field-path").value = str(out)
        await it.until("That file is there already")
        await it.press("ctrl+s")
        await it.until("nothing was")
        assert [each.name for each in tmp_path.iterdir()] == ["trail"]


async def test_the_form_of_an_export_says_beforehand_that_nobody_signs(console, fake):
    fake.warnings = ("the audit trail is not signed, and 3 records wait for a checkpoint: a test",)
    async with console("9") as it:
        await it.press("w")
        await it.until("NOTHING IS SIGNED NOW")


async def test_an_export_that_is_ended_or_cut_keeps_nothing(console, fake, tmp_path):
    fake.proof.pieces = [b'["corral-export-1"]\n', b"more\n"]
    fake.proof.gate.clear()
    async with console("9") as it:
        await it.press("w")
        await it.until("A checkpoint is signed")
        it.app.screen.query_one("#field-path").value = str(tmp_path / "trail")
        await it.pilot.pause()
        await it.press("ctrl+s")
        await it.until("Writing: 1 lines")
        await it.press("escape")
        await it.until("nothing was kept")
        await it.until(lambda: not list(tmp_path.iterdir()))
        fake.proof.gate.set()
        await it.press("ctrl+s")
        await it.until("The export was cut off".lower()[4:])
        assert not list(tmp_path.iterdir())


async def test_a_report_is_written_as_what_its_name_says(console, fake, tmp_path, report):
    fake.proof.page_report = report
    async with console("9") as it:
        for name, words in (("r.html", "<!doctype html>"), ("r.md", "# Audit report")):
            await it.press("r")
            await it.until("The chain is verified")
            it.app.screen.query_one("#field-path").value = str(tmp_path / name)
            await it.pilot.pause()
            await it.press("ctrl+s")
            await it.until("The report is in")
            assert (tmp_path / name).read_text().startswith(words)
        await it.press("r")
        await it.until("The chain is verified")
        it.app.screen.query_one("#field-path").value = str(tmp_path / "r.txt")
        await it.until("ends in .html")


@pytest.mark.parametrize("size", SIZES)
async def test_old_records_are_archived_by_a_form_that_shows_which_and_where(console, fake, size):
    fake.me = None
    async with console("9", size=size) as it:
        await it.press("a")
        await it.until("no record is so old")
        time = "2026-11-24T03:07:12.000153Z"
        fake.proof.planned = AuditPlan(first=1, last=9, began=time, ended=time, checkpoint=2, file="", stays=3)
        it.app.screen.query_one("#field-before").value = "30d"
        it.app.screen.query_one("#field-folder").value = "/srv/out"
        it.app.screen.query_one("#field-reason").value = "a reason"
        await it.until("9 records would go: 1 to 9")
        assert "to /srv/out/trail.corral" in it.text and "3 stay here" in it.text
        fake.proof.gate.clear()
        await it.press("ctrl+s")
        await it.until("Archiving: 7 of 9 records are written")
        fake.proof.gate.set()
        await it.until("Records 1 to 9 lie in /srv/out/trail.corral")
        assert it.app.screen.ROOM == "audit"
        (done,) = [each for each in fake.calls if each[0] == "archive"]
        assert done[2:] == ("/srv/out", "a reason")
        await it.press("a")
        await it.until("9 records would go")
        it.app.screen.query_one("#field-before").value = "soon"
        await it.until("is no time")


async def test_records_out_of_archives_say_so_and_what_cannot_be_read_is_told(console, fake, doubles):
    fake.records = [doubles.record(n, object=f"thing:d{n}", archive=int(n < 3)) for n in range(1, 5)]
    fake.proof.told = {"unread": ("records 5 to 9 are not read: a test",)}
    async with console("9") as it:
        await it.until("thing:d4")
        await it.until("records 5 to 9 are not read: a test")
        assert "(archive" not in it.text
        await it.press("G")
        await it.until("-- 1 (archive 1): ")
        await it.press("enter")
        await it.until("archive   1")


async def test_a_database_that_was_exchanged_leaves_no_row_of_the_one_before(console, fake, doubles, trail):
    trail(50)
    async with console("9") as it:
        await it.until("thing:d50")
        await it.press("v")
        await it.until("WRONG at 2")
        fake.drop()
        await it.until("reconnecting")
        fake.records = [doubles.record(n, object=f"thing:new{n}", hash="b" * 64) for n in range(1, 4)]
        fake.database_id = "another"
        fake.up = True
        await it.until("thing:new3", tries=500)
        assert "thing:d" not in it.text and "WRONG" not in it.text
        assert [int(row.key) for row in it.app.screen.table().rows] == [3, 2, 1]


async def test_an_older_copy_of_the_same_database_leaves_no_stale_row(console, fake, doubles, trail):
    trail(50)
    async with console("9") as it:
        await it.until("thing:d50")
        fake.drop()
        await it.until("reconnecting")
        fake.records = fake.records[:30]
        fake.up = True
        await it.until(
            lambda: [int(row.key) for row in it.app.screen.table().rows] == list(range(30, 0, -1)), tries=500
        )


async def test_a_stranger_and_the_times_of_what_was_folded_are_in_words(console, fake, doubles):
    after = {"times": 7, "first": 1_790_000_000.5, "last": 1_790_000_009.0}
    fake.records = [
        doubles.record(1, actor="uid:-1", uid=-1, through="gateway", verb="gateway.refused", outcome="refused",
                       after=after, reason="this key is none, from 10.0.0.9"),
    ]  # fmt: skip
    async with console("9") as it:
        await it.until("stranger")
        assert "uid:-1" not in it.text
        await it.press("enter")
        await it.until("nobody who is known")
        assert "1790000000" not in it.text and "uid -1" not in it.text
        from tui.words import moment

        assert moment(after["first"]) in it.text and moment(after["last"]) in it.text


async def test_an_error_of_the_daemon_is_said_and_the_rows_stay(console, fake, trail):
    trail(10)
    async with console("9") as it:
        await it.until("thing:d10")
        fake.proof.failing = NoDaemon("the daemon does not answer", "a test")
        await it.press("slash")
        await it.type("x")
        await it.until("the daemon does not answer")
        assert "thing:d10" in it.text


async def test_a_key_that_is_typed_while_a_search_runs_gives_that_one_up(console, fake, trail):
    trail(10)
    asked = []
    ask = fake.proof.find

    async def slow(text="", **fields):
        asked.append(text)
        if text and text != "abc":
            await asyncio.Event().wait()
        return await ask(text, **fields)

    fake.proof.find = slow
    async with console("9") as it:
        await it.press("slash")
        await it.type("abc")
        await it.until("0 records that fit 'abc'")
        assert asked[-3:] == ["a", "ab", "abc"]


@pytest.fixture
def report():
    from core.nouns import AuditKeys, AuditReport

    return AuditReport(
        host="h", version="1", mode="user", made_by="ann", made_at="2026-11-24T03:07:12.000153Z", since="", first=1,
        last=3, records=3, chain=ChainReport(ok=True, records=3, head="x"),
        keys=AuditKeys(installation="i", usable=True, reason="", place="p", keys=(), checkpoints=0, last_seq=0,
                       last_time="", unvouched=0),
        sinks=(), almighty=("root",), grants=(), matrix=(), roles=(), teams=(), people=(), people_all=0, use=(),
        use_all=0, changes=(), changes_all=0, refusals=(), refusals_all=0, gaps=(), gaps_all=0,
        break_glass=(), break_glass_all=0, archives=(),
    )  # fmt: skip


def test_changes_are_named_by_their_path():
    from tui.changes import Change, changes

    found = changes({"a": {"b": 1}, "c": []}, json.loads('{"a": {"b": 2}, "d": "x"}'))
    assert found == [Change("a.b", "1", "2"), Change("c", "[]", None), Change("d", None, "x")]
    assert changes(None, None) == [] and changes("x", None) == [Change("", "x", None)]
