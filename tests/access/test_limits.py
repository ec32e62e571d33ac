"""Limits of subjects: who may set and see them, what the gateway is told of them, and what it says is left."""

from __future__ import annotations

from typing import Any

import pytest
from house import NOW, ROOT, House

from core.access import Limiter
from core.access.people import actor_named
from core.errors import CorralError, Invalid, NotAllowed, NotFound
from core.gateway import wire
from core.nouns import Actor

THERE = ("deployment:chat", "model:tiny")


class Limited:
    """Limits in a house. The gateway is a double: it says what `spent` has, and keeps what it was `asked`."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.store, self.gate, self.audit = house.store, house.gate, house.audit
        self.access, self.keys = house.access, house.keys
        self.limiter = Limiter(house.store, house.gate, house.keys, clock=house.clock)
        self.limiter.ask = self.ask
        self.spent: tuple[wire.Spent, ...] | None = ()
        self.asked: list[tuple[Any, ...]] = []
        self.told = 0
        self.limiter.on_change.append(self._told)

    def _told(self) -> None:
        self.told += 1

    async def ask(
        self, subjects: tuple[str, ...], uid: int | None, groups: tuple[int, ...]
    ) -> tuple[wire.Spent, ...] | None:
        self.asked.append((subjects, uid, groups))
        return self.spent

    async def grant(self, what: str, subject: str, scope: str = "*") -> None:
        await self.house.grant(ROOT, what, subject, scope)

    async def set(self, subject: str, actor: Actor | None = None, **changes: Any) -> Any:
        return await self.limiter.set(actor or ROOT, "r", subject, changes, there=THERE)


@pytest.fixture
async def limited(house: House) -> Limited:
    limited = Limited(house)
    await limited.limiter.start()
    return limited


async def test_the_gateway_is_told_by_numbers_and_what_was_set_lasts(limited: Limited, ada: Actor) -> None:
    await limited.access.put_team(ROOT, "r", "ml", ["user:bin", "group:daemon"])
    await limited.grant("user", "user:bin")
    key = await limited.keys.create(ada, "r", "ci")
    for subject in ("user:bin", "group:bin", "team:ml", "key:bin/ci", "model:tiny", "deployment:chat", "each:user",
                    "each:key", "each:group:bin", "each:team:ml"):  # fmt: skip
        await limited.set(subject, rpm=5)
    again = Limiter(limited.store, limited.gate, limited.keys, clock=lambda: NOW)
    await again.start()
    told = {each.subject: each for each in again.told()}
    gid, daemons = ada.groups[0], (await actor_named("daemon")).groups[0]
    assert set(told) == {
        f"user:{ada.uid}", f"group:{gid}", "team:ml", f"key:{key.id}", "model:tiny", "deployment:chat", "each:user",
        "each:key", f"each:group:{gid}", "each:team:ml",
    }  # fmt: skip
    assert (told[f"user:{ada.uid}"].uids, told[f"user:{ada.uid}"].name) == ((ada.uid,), "bin")
    assert told[f"each:group:{gid}"].gids == (gid,)
    assert (told["team:ml"].uids, told["team:ml"].gids) == ((ada.uid,), (daemons,))
    assert all(each.limits == wire.Limits(rpm=5) for each in told.values()) and limited.told == 10


async def test_what_is_not_named_stays_and_the_trail_has_before_and_after(limited: Limited) -> None:
    await limited.set("group:bin", rpm=5, hours="mon-fri 08:00-18:00")
    limit = await limited.set("group:bin", monthly_out=9, rpm=0)
    assert (limit.limits.rpm, limit.limits.monthly_out, limit.limits.hours) == (0, 9, "mon-fri 08:00-18:00")
    with pytest.raises(Invalid, match="no limit would be left"):
        await limited.set("group:bin", monthly_out=0, hours="")
    await limited.limiter.rm(ROOT, "r", "group:bin", reason="over")
    with pytest.raises(NotFound, match="no limit is set"):
        await limited.limiter.rm(ROOT, "r", "group:bin")
    records = await limited.audit.ls(verb="limits.*")
    assert [(r.verb, r.object, r.outcome) for r in records] == [
        ("limits.set", "limit:group/bin", "done"), ("limits.set", "limit:group/bin", "done"),
        ("limits.set", "limit:group/bin", "refused"), ("limits.rm", "limit:group/bin", "done"),
        ("limits.rm", "limit:group/bin", "refused"),
    ]  # fmt: skip
    changed, removed = records[1], records[3]
    assert changed.before["limits"]["rpm"] == 5 and changed.after["limits"]["monthly_out"] == 9
    assert removed.before["limits"]["monthly_out"] == 9 and removed.after is None and removed.reason == "over"


async def test_only_who_may_sets_limits_also_of_himself(limited: Limited, ada: Actor) -> None:
    await limited.grant("user", "user:bin")
    for subject in ("user:bin", "each:user", "group:bin"):
        with pytest.raises(NotAllowed, match=r"limits\.set"):
            await limited.set(subject, ada, rpm=1000)
    assert limited.limiter.told() == ()
    assert {r.outcome for r in await limited.audit.ls(verb="limits.*")} == {"refused"}
    await limited.grant("limits.set", "user:bin", "limit:deployment/*")
    await limited.set("deployment:chat", ada, rpm=7)
    with pytest.raises(NotAllowed):
        await limited.set("model:tiny", ada, rpm=7)


async def test_everybody_sees_the_limits_that_concern_him_and_no_others(limited: Limited, ada: Actor) -> None:
    await limited.grant("user", "user:bin", "deployment:chat")
    for subject in ("user:bin", "user:daemon", "group:bin", "group:daemon", "each:user", "deployment:chat"):
        await limited.set(subject, rpm=5)
    seen = [each.limit.subject for each in await limited.limiter.ls(ada) if each.limit]
    assert seen == ["deployment:chat", "each:user", "group:bin", "user:bin"]
    for subject in ("user:daemon", "group:daemon"):
        with pytest.raises(CorralError) as refused:
            await limited.limiter.get(ada, subject)
        assert refused.value.exit in (3, 4)
    assert (await limited.limiter.get(ada, "user:bin")).limit is not None
    await limited.grant("auditor", "user:bin")
    assert len(await limited.limiter.ls(ada)) == 6


async def test_what_is_left_is_asked_of_the_gateway_and_told_by_names(limited: Limited, ada: Actor) -> None:
    await limited.grant("user", "user:bin")
    key = await limited.keys.create(ada, "r", "ci")
    await limited.set("group:bin", rpm=5)
    limited.spent = (
        wire.Spent(subject=f"user:{ada.uid}", whose="", kind="rpm", most=5, used=2, seconds=30.0),
        wire.Spent(subject=f"group:{ada.groups[0]}", whose="", kind="tpm", most=9, used=12),
        wire.Spent(subject=f"key:{key.id}", whose="", kind="hours", most=0, used=0, words="08:00-09:00"),
    )
    left = await limited.limiter.left_of(ada)
    assert left is not None
    assert [(each.subject, each.kind, each.left) for each in left] == [
        ("user:bin", "rpm", 3), ("group:bin", "tpm", 0), ("key:bin/ci", "hours", 0)
    ]  # fmt: skip
    assert left[0].free_at == NOW + 30 and left[1].free_at is None
    assert limited.asked == [((f"key:{key.id}",), ada.uid, ada.groups)]
    limited.spent = None
    assert await limited.limiter.left_of(ada) is None
    assert [each.left for each in await limited.limiter.ls(ada)] == [None]


async def test_a_limit_is_not_that_of_whoever_got_the_name_or_the_number(
    limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limited.set("user:bin", rpm=5)
    assert len(limited.limiter.told()) == 1

    async def renamed(uids: Any) -> dict[int, str]:
        return dict.fromkeys(uids, "mallory")

    monkeypatch.setattr("core.access.knownnames.names_of", renamed)
    await limited.limiter._known.look()
    assert limited.limiter.told() == ()


@pytest.mark.parametrize(
    ("subject", "changes", "error", "words"),
    [
        ("bin", {"rpm": 1}, Invalid, "nobody and nothing"),
        ("each:model", {"rpm": 1}, Invalid, "nobody and nothing"),
        ("each:user:bin", {"rpm": 1}, Invalid, "nobody and nothing"),
        ("user:no-such-user", {"rpm": 1}, NotFound, "knows no"),
        ("team:none", {"rpm": 1}, NotFound, "no team"),
        ("key:none", {"rpm": 1}, NotFound, "no key"),
        ("model:none", {"rpm": 1}, NotFound, "no model none"),
        ("each:user", {"rpm": -1}, Invalid, "cannot be unlimited"),
        ("each:user", {"hours": "always"}, Invalid, "hours cannot be always"),
        ("group:bin", {"hours": "always"}, Invalid, "hours cannot be always"),
        ("user:bin", {"hours": "mon 25:00-26:00"}, Invalid, "time of day"),
        ("user:bin", {"hours": "mon 08:00-09:00 Mars/Base"}, Invalid, "no time zone"),
        ("user:bin", {"rpm": 10**13}, Invalid, "it may be 0"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_set(
    limited: Limited, subject: str, changes: dict[str, Any], error: type[CorralError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await limited.set(subject, **changes)
    assert await limited.limiter.ls(ROOT) == []


async def test_a_default_for_each_is_lifted_for_one(limited: Limited) -> None:
    await limited.set("user:bin", rpm=-1, hours="always")
    (told,) = limited.limiter.told()
    assert (told.limits.rpm, told.limits.hours) == (-1, "always")


async def test_a_service_account_has_no_limits_of_its_own_and_is_told_whose_count(limited: Limited) -> None:
    with pytest.raises(Invalid, match=r"counts as its owner.*key:ci/NAME"):
        await limited.set("account:ci", rpm=5)
