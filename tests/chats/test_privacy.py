"""Who keeps what was said, how long, and who may look: rules, legal hold, forgetting, others' chats, private ones."""

import asyncio
import json
import os
import pwd
import sqlite3
import time
from contextlib import closing

import pytest

from core.access import Rights
from core.errors import Conflict, Failed, Invalid, Locked, NotAllowed, NotFound
from core.nouns import Actor, ChatOptions, Grant, Mark, Subject
from core.store import copies

ME = pwd.getpwuid(os.getuid()).pw_name
ALICE = Actor(uid=1000, name="alice")
BOB = Actor(uid=1001, name="bob", groups=(50,))
DAY_S = 86400.0
SECRET = "Weidenkätzchen"


async def said(chats, actor: Actor, text: str = SECRET, **how: bool) -> str:
    chat = await chats.create(actor, "r", "chat", ChatOptions(), text, **how)
    await end(chats, await chats.turns.ask(actor, "r", chat.id, text), actor)
    return chat.id


async def end(chats, turn, actor: Actor) -> None:
    async with asyncio.timeout(10):
        async for _ in chats.turns.stream(actor, turn.chat, turn.id):
            pass


def grants(house, *given: tuple[str, str, Actor]) -> None:
    """In the shared mode: these grants and no other, beside a `user`'s for everybody named."""
    people = {actor.name: actor for _, _, actor in given} | {"bob": BOB, "alice": ALICE}
    rows = [(what, scope, actor) for what, scope, actor in given] + [("user", "*", each) for each in people.values()]
    house.gate.rights = Rights(mode="system", owner_uid=0, grants=[_grant(n, *row) for n, row in enumerate(rows)])


@pytest.fixture(autouse=True)
def shared(house) -> None:
    """Alice is the daemon's owner, bob a user."""
    house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, grants=[_grant(0, "user", "*", BOB)])


def _grant(n: int, what: str, scope: str, actor: Actor) -> Grant:
    subject = Subject(kind="user", name=actor.name, id=actor.uid)
    return Grant(id=f"g{n}", what=what, subject=subject, scope=scope, by="x", at=0)


# ---------------------------------------------------------------------------------------- private


async def test_a_private_chat_is_in_no_file_and_ends_with_the_daemon(house, chats) -> None:
    id = await said(chats, ALICE, private=True)
    (chat,) = await chats.ls(ALICE)
    assert (chat.id, chat.private, chat.turns) == (id, True, 1)
    assert [chat.id for chat in await chats.search(ALICE, SECRET)] == [id]
    assert (await chats.get(ALICE, id)).messages[0].answer == "Hello"
    assert await chats.ls(BOB) == []
    with pytest.raises(NotFound):
        await chats.get(BOB, id)
    assert house.holding(SECRET) == []
    assert await house.store.read(lambda db: db.execute("SELECT count(*) FROM chats").fetchone()) == (0,)
    records = await house.audit.ls(verb="chats.create")
    assert records[0].after == {"deployment": "chat", "private": True}
    await chats.close()
    after = house.chats()
    await after.start()
    assert await after.ls(ALICE) == []
    await after.close()


async def test_a_private_chat_goes_an_hour_after_its_last_use_or_when_it_is_removed(house, chats) -> None:
    first, second = await said(chats, ALICE, private=True), await said(chats, ALICE, "two", private=True)
    house.now += 3000
    await end(chats, await chats.turns.ask(ALICE, "r", second, "again"), ALICE)
    house.now += 700
    await house.retention(chats).sweep()
    assert [chat.id for chat in await chats.ls(ALICE)] == [second] and first
    await chats.rm(ALICE, "r", second)
    assert await chats.ls(ALICE) == []


async def test_private_chats_work_while_the_others_are_locked(house, chats) -> None:
    house.ring.lock("no key", "put it back")
    id = await said(chats, ALICE, private=True)
    assert (await chats.get(ALICE, id)).messages[0].question == SECRET
    with pytest.raises(Locked):
        await said(chats, ALICE)


async def test_with_a_sensitive_deployment_a_private_chat_is_the_only_one(house, chats) -> None:
    mark = Mark(deployment="chat", labels=("zone=secure",), reason="r", by="x", at=0)
    house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, marks=[mark])
    with pytest.raises(Conflict, match="private"):
        await said(chats, ALICE)
    id = await said(chats, ALICE, private=True)
    assert (await chats.get(ALICE, id)).messages[0].answer == "Hello" and house.holding(SECRET) == []


# ---------------------------------------------------------------------------------------- retention


@pytest.mark.parametrize(("rules", "kept"), [
    ({}, 30), ({"user": 5}, 5), ({"user": None}, None), ({"user": None, "deployment": 9}, 9),
    ({"group": 7, "user": 90}, 7), ({"group": None}, None), ({"group": None, "deployment": 0}, 0),
])  # fmt: skip
async def test_the_strictest_rule_wins_and_the_setting_counts_where_none_speaks(house, rules, kept) -> None:
    house.days = 30
    names = {"user": f"user:{ME}", "group": "group:root", "deployment": "deployment:chat"}
    for kind, days in rules.items():
        await house.rules.put(ALICE, "r", names[kind], days, "policy")
    assert house.rules.days(os.getuid(), ME, (0, 5), "chat") == kept
    assert house.rules.days(1, "stranger", (), "other") == 30


async def test_each_user_group_and_deployment_has_its_own_days(house, chats) -> None:
    await house.rules.put(ALICE, "r", "deployment:chat", 10, "policy")
    await house.rules.put(ALICE, "r", "group:root", 3, "policy")
    mine, theirs = await said(chats, ALICE), await said(chats, BOB)
    gids = {"alice": frozenset({0}), "bob": frozenset({50})}

    async def groups(owner) -> frozenset[int]:
        return gids[owner.name]

    retention = house.retention(chats, groups)
    house.now += 4 * DAY_S
    assert await retention.sweep() == 1
    assert await chats.ls(ALICE) == [] and [chat.id for chat in await chats.ls(BOB)] == [theirs] and mine
    (record,) = await house.audit.ls(verb="chats.expire")
    assert (record.actor, record.after) == ("corral", {"by_days": {"3": 1}})
    house.now += 7 * DAY_S
    assert await retention.sweep() == 1


async def test_chats_stay_while_the_groups_of_their_owner_cannot_be_told(house, chats) -> None:
    await house.rules.put(ALICE, "r", "group:root", 3, "policy")
    await said(chats, ALICE)
    house.now += 4 * DAY_S

    async def away(owner) -> None:
        return None

    assert await house.retention(chats, away).sweep() == 0


async def test_where_nothing_is_kept_chats_are_private_and_what_there_was_goes(house, chats) -> None:
    await said(chats, ALICE)
    await house.rules.put(ALICE, "r", "deployment:chat", 0, "policy")
    await said(chats, ALICE, "two")
    assert [chat.private for chat in await chats.ls(ALICE)] == [True, False]
    assert await house.retention(chats).sweep() == 1
    assert [chat.private for chat in await chats.ls(ALICE)] == [True]


async def test_rules_are_recorded_and_taken_back(house) -> None:
    await house.rules.put(ALICE, "r", "deployment:chat", 10, "policy 4")
    await house.rules.put(ALICE, "r", "deployment:chat", 5, "policy 5")
    with pytest.raises(Invalid):
        await house.rules.put(ALICE, "r", "chat", 5, "")
    with pytest.raises(NotFound):
        await house.rules.rm(ALICE, "r", "deployment:other", "")
    await house.rules.rm(ALICE, "r", "deployment:chat", "no more")
    assert house.rules.ls() == []
    records = [r for r in await house.audit.ls(verb="chats.retention") if r.outcome == "done"]
    assert [(r.before and r.before["days"], r.after and r.after["days"], r.reason) for r in records] == [
        (None, 10, "policy 4"), (10, 5, "policy 5"), (5, None, "no more"),
    ]  # fmt: skip
    with pytest.raises(NotAllowed):
        await house.rules.put(BOB, "r", "deployment:chat", 1, "")


async def test_what_is_left_of_a_corrupt_database_goes_when_the_longest_rule_is_over(house, chats) -> None:
    name = time.strftime("corral.db.corrupt-%Y%m%dT%H%M%S", time.gmtime(house.now))
    file = house.paths.state / name
    file.write_text(SECRET)
    house.days = 10
    await house.rules.put(ALICE, "r", "deployment:chat", 20, "")
    house.now += 15 * DAY_S
    await house.retention(chats).sweep()
    assert file.exists()
    house.now += 6 * DAY_S
    held = await said(chats, ALICE)
    hold = await house.holds.add(ALICE, "r", held, "case 3")
    await house.retention(chats).sweep()
    assert file.exists()
    await house.holds.release(ALICE, "r", hold.id, "closed")
    await house.retention(chats).sweep()
    assert not file.exists()
    assert [r.outcome for r in await house.audit.ls(object="database:set-aside")] == ["intent", "done"]


# ---------------------------------------------------------------------------------------- legal hold


@pytest.mark.parametrize("whole", [True, False], ids=["user", "chat"])
async def test_nothing_under_hold_is_deleted_by_anybody(house, chats, whole) -> None:
    house.days = 1
    id = await said(chats, BOB)
    hold = await house.holds.add(ALICE, "r", "user:bob" if whole else id[:6], "case 3")
    (chat,) = await chats.ls(BOB)
    assert chat.held and chat.goes_at is None  # whoever is held sees so
    for call in (
        chats.rm(BOB, "r", id), chats.turns.ask(BOB, "r", id, "", replace_turn=1),
        chats.update(BOB, "r", id, title="x"),
        house.forgetting(chats).forget(ALICE, "r", "bob", "asked for"),
    ):  # fmt: skip
        with pytest.raises(Conflict, match="legal hold"):
            await call
    house.now += 9 * DAY_S
    assert await house.retention(chats).sweep() == 0
    if whole:
        with pytest.raises(Conflict, match="legal hold"):
            await chats.create(BOB, "r", "chat", ChatOptions(), private=True)
        await house.rules.put(ALICE, "r", "deployment:chat", 0, "")
        assert not (await chats.create(BOB, "r", "chat", ChatOptions())).private  # the hold wins over `none`
    await house.holds.release(ALICE, "r", hold.id, "closed")
    await house.retention(chats).sweep()
    assert [c for c in await chats.ls(BOB) if not c.private] == []
    told = [(r.verb, r.outcome, r.reason) for r in await house.audit.ls() if "hold" in r.verb or "release" in r.verb]
    assert told == [("chats.hold", "done", "case 3"), ("chats.release", "done", "closed")]


async def test_a_hold_needs_a_reason_and_the_right_over_that_user(house, chats) -> None:
    id, other = await said(chats, BOB), await said(chats, ALICE)
    grants(house, ("chats.hold", "user:bob", ALICE))
    with pytest.raises(Invalid, match="reason"):
        await house.holds.add(ALICE, "r", id, " ")
    hold = await house.holds.add(ALICE, "r", id, "case")
    with pytest.raises(Conflict, match="already"):
        await house.holds.add(ALICE, "r", id, "case")
    with pytest.raises(NotAllowed):
        await house.holds.add(ALICE, "r", other, "case")
    with pytest.raises(NotAllowed):
        await house.holds.release(BOB, "r", hold.id, "mine")
    assert [each.id for each in await house.holds.ls(ALICE)] == [hold.id] and await house.holds.ls(BOB) == []
    grants(house, ("auditor", "*", BOB))
    assert [each.id for each in await house.holds.ls(BOB)] == [hold.id]


# ---------------------------------------------------------------------------------------- forgetting


async def test_forgetting_deletes_all_and_destroys_the_key_in_every_file(house, chats) -> None:
    his, hers = await said(chats, BOB), await said(chats, ALICE, "hers")
    await said(chats, BOB, "hush", private=True)
    wrapped = await house.store.read(
        lambda db: db.execute("SELECT wrapped FROM chat_keys WHERE owner = 'bob'").fetchone()[0]
    )
    with closing(sqlite3.connect(house.paths.database)) as db:
        copies.make(db, house.paths.backups, house.now)
    aside = house.paths.state / "corral.db.corrupt-20200101T000000"
    aside.write_bytes(b"x" * 5000 + wrapped + b"y" * 5000 + wrapped)
    forgetting = house.forgetting(chats)
    with pytest.raises(Invalid, match="reason"):
        await forgetting.forget(ALICE, "r", "bob", "")
    assert (await forgetting.ahead(ALICE, "bob")).chats == 1
    gone = await forgetting.forget(ALICE, "r", "bob", "asked for")
    assert (gone.chats, gone.turns, gone.keys) == (1, 1, 1)
    assert await chats.ls(BOB) == [] and [chat.id for chat in await chats.ls(ALICE)] == [hers]
    files = [path for path in house.paths.root.rglob("*") if path.is_file()]
    assert [path for path in files if wrapped in path.read_bytes()] == [] and len(aside.read_bytes()) > 10_000
    (record,) = await house.audit.ls(verb="chats.forget", outcome="done")
    assert (record.object, record.reason, record.before) == (
        "user:bob", "asked for", {"chats": 1, "turns": 1, "keys": 1},
    )  # fmt: skip
    with pytest.raises(NotFound):
        await forgetting.forget(ALICE, "r", "bob", "again")
    assert await said(chats, BOB, "anew") and his  # with another key


async def test_a_copy_from_elsewhere_cannot_be_read_after_its_user_was_forgotten(house, chats) -> None:
    id = await said(chats, BOB)
    row = await house.store.read(lambda db: db.execute("SELECT * FROM chats WHERE id = ?", (id,)).fetchone())
    await house.forgetting(chats).forget(ALICE, "r", "bob", "asked for")
    house.ring.lock("restart", "")
    house.ring.unlock(house.master)
    with closing(sqlite3.connect(house.paths.database)) as db, db:
        db.execute(f"INSERT INTO chats VALUES ({','.join('?' * len(row))})", row)
    with pytest.raises(Failed, match="cannot be read"):
        await chats.get(BOB, id)


async def test_who_may_forget_whom_is_a_right(house, chats) -> None:
    await said(chats, BOB)
    grants(house, ("chats.forget", "user:bob", ALICE))
    with pytest.raises(NotAllowed):
        await house.forgetting(chats).forget(BOB, "r", "bob", "me")
    assert (await house.forgetting(chats).forget(ALICE, "r", "bob", "asked")).chats == 1


# ---------------------------------------------------------------------------------------- what others said


async def test_a_look_needs_the_right_and_a_reason_and_is_recorded(house, chats) -> None:
    id = await said(chats, BOB)
    await said(chats, BOB, "hush", private=True)
    grants(house, ("chats.read-others", "user:bob", ALICE))
    for reason in ("", "   ", "x" * 501):
        with pytest.raises(Invalid, match="reason"):
            await house.others.one(ALICE, "r", id, reason)
    for call in (house.others.one(BOB, "r", id, "x"), house.others.all(BOB, "r", "alice", "x"),
                 house.others.one(BOB, "r", "nosuch", "x")):  # fmt: skip
        with pytest.raises(NotAllowed):
            await call
    with pytest.raises((NotAllowed, NotFound)):
        await house.others.all(ALICE, "r", "carol", "x")
    mine = await said(chats, ALICE, "hers")
    with pytest.raises(NotAllowed):
        await house.others.one(ALICE, "r", mine, "x")  # whose chats she may look at is bob alone
    assert await house.audit.ls(verb="chats.read-others", outcome="done") == []
    found = await house.others.one(ALICE, "r", id[:5], "ticket 7")
    assert (found.user, found.chats[0].messages[0].question) == ("bob", SECRET)
    assert [each.chat.id for each in (await house.others.titles(ALICE, "r", "bob", "ticket 8")).chats] == [id]
    assert len((await house.others.all(ALICE, "r", "bob", "ticket 9")).chats) == 1  # no private one
    records = await house.audit.ls(verb="chats.read-others", outcome="done")
    assert [(r.actor, r.reason) for r in records] == [("alice", f"ticket {n}") for n in (7, 8, 9)]
    assert SECRET not in json.dumps([str(r) for r in records])
    assert len([r for r in await house.audit.ls(verb="chats.read-others") if r.outcome == "refused"]) == 5


async def test_what_was_said_to_a_sensitive_deployment_is_shown_to_nobody_else(house, chats) -> None:
    id = await said(chats, BOB)
    grants(house, ("chats.read-others", "user:bob", ALICE))
    house.gate.rights.marks["chat"] = Mark(deployment="chat", labels=("zone=secure",), by="root", at=0.0)
    with pytest.raises(NotAllowed, match="sensitive"):
        await house.others.one(ALICE, "r", id, "ticket 7")
    assert (await house.others.titles(ALICE, "r", "bob", "ticket 8")).chats == ()
    assert (await house.others.all(ALICE, "r", "bob", "ticket 9")).chats == ()
    refused, *looked = await house.audit.ls(verb="chats.read-others")
    assert refused.outcome == "refused" and [each.after for each in looked] == [
        {"read": "titles", "chats": 0, "sensitive": 1}, {"read": "all", "chats": 0, "sensitive": 1}
    ]  # fmt: skip


async def test_a_look_that_cannot_be_recorded_shows_nothing(house, chats, monkeypatch) -> None:
    id = await said(chats, BOB)

    def full(*args: object, **how: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(house.audit, "append", full)
    with pytest.raises(Failed):
        await house.others.one(ALICE, "r", id, "ticket")


async def test_all_of_ones_own_are_exported(house, chats) -> None:
    await said(chats, ALICE)
    await said(chats, ALICE, "two")
    await said(chats, BOB, "his")
    found = json.loads(await chats.export_all(ALICE, "json"))
    assert sorted(each["chat"]["title"] for each in found) == sorted([SECRET, "two"])
    text = await chats.export_all(ALICE, "md")
    assert text.count("## Question") == 2 and "his" not in text
