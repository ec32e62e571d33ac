"""Breaking the glass: root takes what he does not hold, for a while, with a reason, and everybody is told."""

from __future__ import annotations

import asyncio
import logging

import pytest
from house import NOW, ROOT, House

from core.access import Access, Gate, Glass, Rights
from core.audit.sinks.lines import ALERT, INFO, Cursor, next_batch
from core.deployments.told import _rule
from core.errors import Conflict, CorralError, Invalid, NotAllowed
from core.gateway import wire
from core.gateway.keys import Holder
from core.gateway.users import Users
from core.nouns import Actor

SUPERUSER = Actor(uid=0, name="root", through="cli", groups=(0,))


async def test_root_reads_and_changes_nothing_until_he_breaks_the_glass(house: House) -> None:
    assert house.may(SUPERUSER, "deployments.read") and house.may(SUPERUSER, "audit.read", "audit:chain")
    with pytest.raises(NotAllowed, match="break-glass"):
        await house.grant(SUPERUSER, "admin", "user:bin")
    made = await house.glass.take(SUPERUSER, "r", reason="the admins are on a plane")
    assert (made.glass, made.what, made.until) == (True, "admin", NOW + 3600)
    await house.grant(SUPERUSER, "admin", "user:bin")  # to mend the rights is what it is for: this one lasts
    assert house.may(SUPERUSER, "deployments.rm")
    house.now += 3600
    assert not house.may(SUPERUSER, "deployments.rm")


async def test_it_rings(house: House, caplog: pytest.LogCaptureFixture) -> None:
    rung: list[str] = []
    house.glass.on_ring.append(rung.append)
    with caplog.at_level(logging.CRITICAL):
        made = await house.glass.take(
            SUPERUSER, "r", reason="disk is full", what="deployments.stop", scope="deployment:a*"
        )
    words = "the glass is broken: user:root took deployments.stop on deployment:a* until"
    assert rung[0].startswith(words) and rung[0].endswith(": disk is full") and words in caplog.text
    assert house.glass.troubles() == rung
    record = (await house.records())[-1]
    assert (record.verb, record.object, record.outcome, record.reason, record.uid) == (
        "access.break-glass", "access:user:root", "done", "disk is full", 0,
    )  # fmt: skip
    await house.grant(ROOT, "viewer", "user:bin")
    cursor = Cursor(house.store.database_id)
    batch = await house.store.read(lambda db: next_batch(db, cursor, ""))
    levels = {item.fields["verb"]: item.severity for item in batch.items if item.kind == "record"}
    assert levels == {"access.grant": INFO, "access.break-glass": ALERT}
    assert made in house.glass.broken()


async def test_a_reason_makes_no_lines_of_its_own_in_a_log(house: House) -> None:
    await house.glass.take(SUPERUSER, "r", reason="x\n2026-01-01 nothing happened\x1b[2J")
    (said,) = house.glass.troubles()
    assert "\n" not in said and "\x1b" not in said and said.endswith(": x 2026-01-01 nothing happened")


async def test_two_broken_ones_are_one_sentence(house: House) -> None:
    await house.glass.take(SUPERUSER, "r", reason="first")
    house.now += 120
    await house.glass.take(SUPERUSER, "r", reason="second")
    (said,) = house.glass.troubles()
    assert "broken 2 times, the last one until" in said and "`corral access ls` has all" in said and "\n" not in said


async def test_it_ends_by_itself_and_that_is_recorded(house: House) -> None:
    await house.glass.take(SUPERUSER, "r", reason="for a moment", seconds=90)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        house.now += seconds
        if len(pauses) == 3:
            raise asyncio.CancelledError

    told = house.told
    with pytest.raises(asyncio.CancelledError):
        await house.glass.run(pause)
    assert pauses == [60, 30, 60]
    assert house.glass.troubles() == [] and house.told == told + 1
    assert not [grant for grant in house.access.rights.grants if grant.glass]
    last = (await house.records())[-1]
    assert (last.actor, last.verb, last.before["reason"]) == ("corral", "access.glass-whole", "for a moment")


async def test_what_ended_while_the_daemon_was_away_is_recorded_at_its_start(house: House) -> None:
    await house.glass.take(SUPERUSER, "r", reason="x", seconds=60)
    house.now += 3600
    gate = Gate(house.store, house.audit, Rights(mode="system", owner_uid=0), clock=house.clock)
    access = Access(house.store, gate, clock=house.clock)
    await access.start()
    await Glass(gate, access, clock=house.clock).mend()
    assert (await house.records())[-1].verb == "access.glass-whole"


async def test_root_and_admins_may_end_it_before(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "admin", "user:bin")
    for actor in (SUPERUSER, ada):
        made = await house.glass.take(SUPERUSER, "r", reason="x", what="audit.accept")
        await house.access.revoke(actor, "r", made.id, reason="enough")
        assert not house.may(SUPERUSER, "audit.accept", "audit:chain") and house.glass.troubles() == []
        assert (await house.records())[-1].verb == "access.glass-whole"


async def test_a_denial_does_not_lock_root_out_of_an_emergency(house: House) -> None:
    denial = await house.grant(ROOT, "deployments.*", "user:root", deny=True)
    await house.glass.take(SUPERUSER, "r", reason="x")
    assert house.may(SUPERUSER, "deployments.rm")
    await house.access.revoke(SUPERUSER, "r", denial)


async def test_nobody_else_breaks_it(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "admin", "user:bin")
    for actor in (ada, Actor(uid=4242, name="root"), Actor(uid=0, name="uid:0")):
        with pytest.raises(CorralError):
            await house.glass.take(actor, "r", reason="let me in")
    assert [record.verb for record in await house.records() if record.outcome == "refused"] == [
        "access.break-glass"
    ] * 3
    with pytest.raises(NotAllowed):  # nor does an admin hand it on: he does not hold it
        await house.grant(ada, "access.break-glass", "user:bin")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"reason": "  "}, "no reason"),
        ({"reason": "x" * 501}, "over 500"),
        ({"reason": "x", "seconds": 59}, "a minute to 8 hours"),
        ({"reason": "x", "seconds": 8 * 3600 + 1}, "a minute to 8 hours"),
        ({"reason": "x", "seconds": float("nan")}, "a minute to 8 hours"),
        ({"reason": "x", "scope": "chat"}, "no scope"),
        ({"reason": "x", "what": "audit.fly"}, "no permission"),
    ],
)
async def test_what_is_wrong_is_refused(house: House, fields: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await house.glass.take(SUPERUSER, "r", **fields)  # type: ignore[arg-type]
    assert house.glass.broken() == []


async def test_in_a_daemon_of_ones_own_there_is_none(house: House) -> None:
    house.gate.rights = Rights(mode="user", owner_uid=0)
    with pytest.raises(Conflict, match="no glass to break"):
        await house.glass.take(SUPERUSER, "r", reason="x")


async def test_no_denial_holds_against_it_at_the_gateway_and_his_programs_get_nothing_of_it(
    house: House,
) -> None:
    """What the gate, the gateway and `explain` say must agree."""
    await house.grant(ROOT, "user", "user:root", "deployment:a*")
    await house.keys.create(SUPERUSER, "r", "ci")
    await house.accounts.create(SUPERUSER, "r", "job", owner="user:root")
    await house.grant(ROOT, "deployments.use", "account:job")
    await house.grant(ROOT, "deployments.use", "user:root", "deployment:chat", deny=True)
    await house.glass.take(SUPERUSER, "r", reason="fire", what="deployments.use")
    for name in ("chat", "a1", "b"):
        object = f"deployment:{name}"
        allowed = wire.Allowed(rules=tuple(map(_rule, house.access.uses("deployments.use"))))
        at_the_gateway = Users(allowed, house.clock).may(0, frozenset({0}), name)
        said = (await house.inquiry.explain("root", "deployments.use", object)).allowed
        assert at_the_gateway == said == house.may(SUPERUSER, "deployments.use", object) is True
        (told,) = house.keys.told()
        key = wire.Key(
            id="k", name="ci", hash="h", owner="root", uid=0, rules=tuple(map(_rule, told.uses or ()))
        )  # fmt: skip
        assert Holder(key).may_use(name, house.now) == (name == "a1")
        of_the_job = await house.inquiry.explain("account:job", "deployments.use", object)
        assert of_the_job.allowed == (name == "a1"), of_the_job.why
    assert (await house.inquiry.whoami(SUPERUSER)).denied == ()
    house.now += 3601
    allowed = wire.Allowed(rules=tuple(map(_rule, house.access.uses("deployments.use"))))
    assert not Users(allowed, house.clock).may(0, frozenset({0}), "chat")


async def test_what_is_denied_to_root_is_denied_at_the_gate_as_explained(house: House) -> None:
    """Also where it is not about one object: a status, a list."""
    await house.grant(ROOT, "daemon.read", "user:root", deny=True)
    await house.grant(ROOT, "deployments.read", "user:root", "deployment:a*", deny=True)
    assert not (await house.inquiry.explain("root", "daemon.read", "daemon:local")).allowed
    assert not house.may(SUPERUSER, "daemon.read", "daemon:local")
    assert not house.gate.anywhere(SUPERUSER, "daemon.read")
    assert house.gate.anywhere(SUPERUSER, "deployments.read") and house.gate.anywhere(SUPERUSER, "audit.read")
    await house.glass.take(SUPERUSER, "r", reason="fire")
    assert house.gate.anywhere(SUPERUSER, "daemon.read")
