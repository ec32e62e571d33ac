"""What the report says of a span of time."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from signed_place import ALICE, MALLORY, Place

from core.audit.report import MOST, gather
from core.nouns import CORRAL


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = await Place(tmp_path).open()
    await made.signer.start()
    yield made
    await made.store.close()


async def test_it_tells_who_did_what_and_who_was_refused_how_often(place: Place) -> None:
    await place.gate.record(ALICE, "deployments.create", "deployment:a", "r", "done")
    await place.gate.record(ALICE, "deployments.create", "deployment:b", "r", "failed", reason="no")
    for _ in range(3):
        await place.gate.refuse(MALLORY, "deployments.rm", "deployment:a", "r", "no grant")
    found = gather(place.paths, "")
    people = {each.actor: (each.done, each.refused, each.failed) for each in found.people}
    assert people["alice"] == (1, 0, 1) and people["mallory"] == (0, 3, 0)
    (refusal,) = found.refusals
    assert (refusal.actor, refusal.verb, refusal.count, refusal.reason) == ("mallory", "deployments.rm", 3, "no grant")


async def test_refusals_that_were_folded_count_as_many(place: Place) -> None:
    for after in ({"times": 970}, None, {"ctx": 1}):
        await place.gate.record(MALLORY, "get.refused", "route:any", "r", "refused", after=after, reason="x")
    (refusal,) = gather(place.paths, "").refusals
    assert refusal.count == 972


async def test_it_has_changes_of_rights_and_keys_and_nothing_of_before(place: Place) -> None:
    await place.gate.record(ALICE, "access.grant", "access:user:bob", "r", "done", after={"what": "admin"})
    place.now += 100
    since = "2026-09-21T14:14:00.000000Z"
    await place.gate.record(ALICE, "access.revoke", "access:user:bob", "r", "done")
    await place.gate.record(ALICE, "access.grant", "access:user:eve", "r", "refused")
    await place.rotate()
    assert [each.verb for each in gather(place.paths, "").changes] == [
        "audit.key-made", "access.grant", "access.revoke", "audit.key-rotate",
    ]  # fmt: skip
    found = gather(place.paths, since)
    assert [each.verb for each in found.changes] == ["access.revoke", "audit.key-rotate"]
    assert found.records == found.last - found.first + 1 == 3


async def test_a_gap_is_from_the_last_sign_of_life_to_the_next_start(place: Place) -> None:
    async def at(seconds: float, verb: str, outcome: str = "done", reason: str = "") -> None:
        place.now = 1_790_000_000.0 + seconds
        await place.gate.record(CORRAL, verb, "daemon:local", "r", outcome, reason=reason)  # type: ignore[arg-type]

    await at(10, "daemon.start")
    await at(20, "daemon.reload")
    await at(80, "deployments.create", "interrupted")
    await at(80, "daemon.died", reason="no stop")
    await at(80, "daemon.start")
    await at(90, "daemon.stop")
    await at(120, "daemon.start")
    await at(130, "daemon.stop")
    gaps = [(each.what, each.began[14:19], each.ended[14:19]) for each in gather(place.paths, "").gaps]
    assert gaps == [
        ("daemon.died", "13:40", "14:40"), ("daemon.stop", "14:50", "15:20"), ("daemon.stop", "15:30", ""),
    ]  # fmt: skip


async def test_what_died_is_there_again_when_the_same_thing_is_and_not_another(place: Place) -> None:
    for n, (verb, object) in enumerate(
        [("replica.died", "replica:a/0"), ("replica.start", "replica:b/0"), ("replica.start", "replica:a/0"),
         ("audit.sink-full", "sink:file"), ("audit.sink-back", "sink:file"), ("gateway.died", "gateway:local")]
    ):  # fmt: skip
        place.now = 1_790_000_000.0 + n * 10
        await place.gate.record(CORRAL, verb, object, "r", "done")
    gaps = [(each.what, each.ended[17:19]) for each in gather(place.paths, "").gaps]
    assert gaps == [("replica.died", "40"), ("audit.sink-full", "00"), ("gateway.died", "")]


async def test_whoever_broke_the_glass_is_named_with_his_reason(place: Place) -> None:
    await place.gate.record(ALICE, "access.break-glass", "chat:x", "r", "done", reason="<b>fire</b>")
    found = gather(place.paths, "")
    assert [(each.actor, each.reason) for each in found.break_glass] == [("alice", "<b>fire</b>")]
    assert found.break_glass_all == 1 and "access.break-glass" in [each.verb for each in found.changes]


async def test_long_lists_are_cut_and_say_so(place: Place) -> None:
    def many(db: sqlite3.Connection) -> None:
        for n in range(MOST + 7):
            place.audit.append(
                db, actor=MALLORY, verb="models.rm", object=f"model:{n}", request="r", outcome="refused", reason="x"
            )

    await place.store.transact(many)
    found = gather(place.paths, "")
    assert (len(found.refusals), found.refusals_all) == (MOST, MOST + 7)


async def test_bytes_that_are_no_text_are_shown_and_no_error(place: Place) -> None:
    from signed_place import tamper

    await place.fill(1)
    tamper(place.paths, "UPDATE audit SET actor = CAST(x'ff41' AS TEXT) WHERE seq = 2")
    assert "\ufffdA" in {each.actor for each in gather(place.paths, "").people}
