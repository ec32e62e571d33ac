"""API keys: made for their owners, never stronger than these, told to the gateway by hash alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from house import NOW, ROOT, House
from hypothesis import given
from hypothesis import strategies as st

from core.access import Keys, Rights
from core.access.ended import SINCE_S
from core.access.secrets import hash_of, new_secret, well_formed
from core.deployments import told as to_gateway
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nouns import Actor, Limits


async def test_only_the_hash_of_a_secret_is_kept(house: House, ada: Actor, tmp_path: Path) -> None:
    await house.grant(ROOT, "user", "user:bin")
    made = await house.keys.create(ada, "r", "ci")
    assert well_formed(made.key) and made.key.startswith(made.begins)
    (told,) = house.keys.told()
    assert told.hash == hash_of(made.key) and told.key.owner.name == "bin"
    await house.store.close()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or made.key.encode() not in file.read_bytes(), file


async def test_a_key_may_what_its_owner_may_at_that_moment(house: House, ada: Actor) -> None:
    id = await house.grant(ROOT, "user", "user:bin", "deployment:a*")
    await house.keys.create(ada, "r", "ci")
    (told,) = house.keys.told()
    assert told.uses is not None and [(use.scope, use.deny) for use in told.uses] == [("deployment:a*", False)]
    await house.grant(ROOT, "deployments.use", "user:bin", "deployment:ab", deny=True)
    (told,) = house.keys.told()
    assert told.uses is not None and {(use.scope, use.deny) for use in told.uses} == {
        ("deployment:a*", False), ("deployment:ab", True),
    }  # fmt: skip
    await house.access.revoke(ROOT, "r", id)
    (told,) = house.keys.told()
    assert told.uses is not None and all(use.deny for use in told.uses)
    house.gate.rights = Rights(mode="user", owner_uid=ada.uid)
    assert [each.uses for each in house.keys.told()] == [None]  # the owner of a daemon of his own


@pytest.mark.parametrize(
    ("sources", "networks", "local"),
    [
        ((), (), False),
        (("10.0.0.0/8",), ("10.0.0.0/8",), False),
        (("local", "10.0.0.0/8"), ("10.0.0.0/8",), True),
        (("local",), ("::/128",), True),  # bound to no network is not everywhere
    ],
)
async def test_the_gateway_is_told_whether_a_key_may_come_from_its_socket(
    house: House, ada: Actor, sources: tuple[str, ...], networks: tuple[str, ...], local: bool
) -> None:
    await house.grant(ROOT, "user", "user:bin")
    assert (await house.keys.create(ada, "r", "ci", sources=sources)).sources == sources
    (key,) = to_gateway.keys(house.keys.told())
    assert (key.sources, key.local) == (networks, local)


async def test_a_key_of_a_user_who_left_works_no_more(
    house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.keys.create(ada, "r", "ci")

    async def gone(name: str) -> Actor:
        raise NotFound(f"this host knows no {name!r}")

    monkeypatch.setattr("core.access.owners.actor_named", gone)
    looks = 0

    async def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise asyncio.CancelledError

    told = house.keys_told
    with pytest.raises(asyncio.CancelledError):
        await house.keys.run(pause)
    assert house.keys.told() == [] and house.keys_told == told + 1
    assert house.keys.ls(ROOT)[0].state == "owner gone"


async def test_whoever_took_a_uid_or_a_name_gets_nothing_of_the_keys(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.keys.create(ada, "r", "ci")
    for other in (Actor(uid=ada.uid, name="mallory"), Actor(uid=4242, name="bin")):
        assert house.keys.ls(other) == []
        with pytest.raises(NotFound):
            await house.keys.revoke(other, "r", "ci")


async def test_without_the_right_nobody_makes_a_key(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "viewer", "user:bin")
    with pytest.raises(NotAllowed, match=r"keys\.own"):
        await house.keys.create(ada, "r", "ci")
    assert house.keys.told() == []
    refused = (await house.audit.ls(outcome="refused"))[-1]
    assert (refused.verb, refused.object) == ("keys.create", "key:bin/ci")


async def test_nobody_gets_the_secret_of_a_key_that_may_more_than_he_does(house: House, ada: Actor, bob: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.grant(ROOT, "keys.manage", "user:daemon")
    with pytest.raises(NotAllowed, match="may not hold a key of user:bin"):
        await house.keys.create(bob, "r", "ci", owner="user:bin")
    await house.keys.create(ada, "r", "ci")
    await house.grant(ROOT, "keys.read", "user:daemon")
    with pytest.raises(NotAllowed, match="may not hold"):
        await house.keys.rotate(bob, "r", "bin/ci", 0)
    assert (await house.keys.revoke(bob, "r", "bin/ci")).state == "revoked"
    await house.grant(ROOT, "deployments.use", "user:daemon")
    await house.keys.create(bob, "r", "ci", owner="user:bin")


@pytest.mark.parametrize("owner", ["user:daemon", "team:ml", "account:none"])
async def test_who_may_not_make_keys_for_another_is_told_so(house: House, ada: Actor, owner: str) -> None:
    """Not `no key`, which he would look for: it is not there before it is made."""
    await house.grant(ROOT, "user", "user:bin")
    with pytest.raises(NotAllowed, match=rf"bin may not make keys for {owner}.*keys\.manage on key:\w+/bk"):
        await house.keys.create(ada, "r", "bk", owner=owner)
    assert "keys.manage" in (await house.refusals())[-1]


async def test_a_team_has_keys_that_its_members_manage(house: House, ada: Actor, bob: Actor) -> None:
    await house.access.put_team(ROOT, "r", "ml", ["user:bin"])
    await house.grant(ROOT, "user", "team:ml", "deployment:ml-*")
    made = await house.keys.create(ada, "r", "batch", owner="team:ml")
    (told,) = house.keys.told()
    assert told.uses is not None and [use.scope for use in told.uses] == ["deployment:ml-*"]
    assert [key.id for key in house.keys.ls(ada)] == [made.id] and house.keys.ls(bob) == []


async def test_rotation_with_grace_lets_both_secrets_work_for_a_while(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    old = await house.keys.create(ada, "r", "ci")
    new = await house.keys.rotate(ada, "r", "ci", 60)
    assert {(each.hash, each.until) for each in house.keys.told()} == {
        (hash_of(new.key), None), (hash_of(old.key), NOW + 60),
    }  # fmt: skip
    assert (await house.keys.whose(ada, hash_of(old.key))).id == new.id
    house.now += 60
    assert [each.hash for each in house.keys.told()] == [hash_of(new.key)]
    newest = await house.keys.rotate(ada, "r", "ci", 0)
    assert [each.hash for each in house.keys.told()] == [hash_of(newest.key)]


async def test_secrets_that_work_no_more_are_told_with_why(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")

    def ended() -> dict[str, str]:
        return {each.hash: each.why for each in house.keys.ended()}

    first = hash_of((await house.keys.create(ada, "r", "ci", until=NOW + 1000)).key)
    second = hash_of((await house.keys.rotate(ada, "r", "ci", 60)).key)
    assert ended() == {} and [each.replaced for each in house.keys.told()] == [False, True]
    house.now += 60
    assert ended() == {first: "rotated"}
    third = hash_of((await house.keys.rotate(ada, "r", "ci", 0)).key)
    assert ended() == {first: "rotated", second: "rotated"}
    await house.keys.start()
    assert ended() == {first: "rotated", second: "rotated"}, "after a restart too"
    house.now = NOW + 1000
    assert ended() == dict.fromkeys((first, second, third), "expired")
    await house.keys.revoke(ada, "r", "ci")
    assert ended() == dict.fromkeys((first, second, third), "revoked")
    house.now += SINCE_S
    assert ended() == {}


async def test_only_the_secrets_that_ended_last_are_told(house: House, ada: Actor, monkeypatch) -> None:
    monkeypatch.setattr("core.access.ended.MOST", 2)
    await house.grant(ROOT, "user", "user:bin")
    secrets = [await house.keys.create(ada, "r", "ci")]
    for _ in range(4):
        house.now += 1
        secrets.append(await house.keys.rotate(ada, "r", "ci", 0))
    assert [each.hash for each in house.keys.ended()] == [hash_of(each.key) for each in secrets[2:4]]


async def test_a_grace_that_is_too_long_is_told_in_days(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.keys.create(ada, "r", "ci")
    with pytest.raises(Invalid, match=r"a grace of 400 days; it is 0 to \d+ days"):
        await house.keys.rotate(ada, "r", "ci", 400 * 86400)


async def test_a_revoked_key_is_told_no_more_and_still_found_by_its_secret(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    made = await house.keys.create(ada, "r", "ci")
    assert (await house.keys.revoke(ada, "r", "ci", "leaked")).state == "revoked"
    assert house.keys.told() == [] and (await house.keys.whose(ada, hash_of(made.key))).id == made.id
    with pytest.raises(Conflict, match="was revoked"):
        await house.keys.rotate(ada, "r", made.id, 0)
    again = await house.keys.create(ada, "r", "ci")
    assert house.keys.get(ada, "ci").id == again.id
    with pytest.raises(NotFound, match="no key here"):
        await house.keys.whose(ada, hash_of(new_secret()))
    verbs = [(r.verb, r.reason) for r in await house.audit.ls(verb="keys.*", outcome="done")]
    assert verbs == [("keys.create", ""), ("keys.revoke", "leaked"), ("keys.create", "")]
    assert made.key not in str(await house.audit.ls(limit=1000))


async def test_limits_change_and_what_is_not_named_stays(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.keys.create(ada, "r", "ci", limits=Limits(rpm=5, tpm=100), until=NOW + 100)
    key = await house.keys.limit(ada, "r", "ci", {"rpm": 9, "deployments": ("a*",)})
    assert (key.limits, key.deployments, key.until) == (Limits(rpm=9, tpm=100), ("a*",), NOW + 100)
    house.now += 100
    assert house.keys.told() == [] and house.keys.get(ada, "ci").state == "expired"


async def test_when_a_key_was_used_is_written_down_and_known_after_a_restart(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    made = await house.keys.create(ada, "r", "ci")
    house.keys.used({made.id: NOW + 5, "k-unknown": 1.0}, {made.id: "10.0.0.7"})
    key = house.keys.get(ada, "ci")
    assert (key.used_at, key.used_from) == (NOW + 5, "10.0.0.7")
    await house.keys.write_uses()
    again = Keys(house.store, house.gate, clock=lambda: house.now)
    await again.start()
    assert again.get(ada, "ci").used_at == NOW + 5
    assert (await house.keys.limit(ada, "r", "ci", {"rpm": 1})).used_at == NOW + 5


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"name": "Bad Name"}, Invalid, "no name of a key"),
        ({"owner": "group:daemon"}, Invalid, "a user, a team"),
        ({"owner": "foo"}, Invalid, "say user:NAME, team:NAME or account:NAME"),
        ({"limits": Limits(hours="always")}, Invalid, "leave it out"),
        ({"owner": "user:no-such-user"}, NotFound, "knows no"),
        ({"owner": "team:none"}, NotFound, "no team"),
        ({"deployments": ()}, Invalid, "could use no deployment"),
        ({"deployments": ("a*b",)}, Invalid, "star stands at the end"),
        ({"endpoints": ("admin",)}, Invalid, "no endpoint"),
        ({"sources": ("10.0.0.0/99",)}, Invalid, "is no network"),
        ({"limits": Limits(rpm=-2)}, Invalid, "rpm is -2"),
        ({"limits": Limits(rpm=-1)}, Invalid, "rpm cannot be unlimited"),
        ({"limits": Limits(hours="noon")}, Invalid, "hours are not understood"),
        ({"until": NOW}, Invalid, "lies ahead"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_made(
    house: House, fields: dict[str, Any], error: type[CorralError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await house.keys.create(ROOT, "r", **({"name": "ci"} | fields))
    assert house.keys.ls(ROOT) == []


async def test_two_keys_of_one_owner_have_two_names(house: House, ada: Actor, bob: Actor) -> None:
    for user in ("bin", "daemon"):
        await house.grant(ROOT, "user", f"user:{user}")
    await house.keys.create(ada, "r", "ci")
    with pytest.raises(Conflict, match="has a key ci already"):
        await house.keys.create(ada, "r", "ci")
    await house.keys.create(bob, "r", "ci")
    with pytest.raises(Conflict, match="say OWNER/NAME"):
        house.keys.get(ROOT, "ci")
    assert house.keys.get(ROOT, "daemon/ci").owner.name == "daemon" and house.keys.get(ada, "ci").owner.name == "bin"


@given(st.integers(0, 48), st.sampled_from("0aZ9_-"))
def test_a_secret_with_another_letter_is_told_from_a_right_one(at: int, letter: str) -> None:
    secret = new_secret()
    assert well_formed(secret) and len(secret) == len("corral_") + 49
    at += len("corral_")
    other = secret[:at] + letter + secret[at + 1 :]
    assert other == secret or not well_formed(other)


async def test_a_secret_that_was_rotated_away_is_still_told_whose_it_was(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    first = await house.keys.create(ada, "r", "ci")
    second = await house.keys.rotate(ada, "r", "ci", 3600.0)
    found = await house.keys.whose(ada, hash_of(first.key))
    assert (found.id, found.away_at, found.works_until) == (first.id, NOW, NOW + 3600)
    house.now += 4000
    third = await house.keys.rotate(ada, "r", "ci", 0.0)
    for secret, away in ((first, NOW), (second, NOW + 4000), (third, None)):
        found = await house.keys.whose(ada, hash_of(secret.key))
        assert (found.id, found.away_at, found.works_until) == (first.id, away, None)
    with pytest.raises(NotFound, match="never made"):
        await house.keys.whose(ada, hash_of("corral_other"))


async def test_a_key_that_opens_nothing_gets_no_new_secret(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    made = await house.keys.create(ada, "r", "ci", until=NOW + 60)
    house.now += 61
    with pytest.raises(Conflict, match=r"ci has expired.*ended at 1970.*corral keys limit ci --expires"):
        await house.keys.rotate(ada, "r", "ci", 0.0)
    assert any("has expired" in reason for reason in await house.refusals())
    await house.keys.limit(ada, "r", "ci", {"until": NOW + 1000})
    assert (await house.keys.rotate(ada, "r", "ci", 0.0)).key != made.key
    await house.keys.revoke(ada, "r", "ci")
    with pytest.raises(Conflict, match=r"was revoked.*stays so.*corral keys create ci"):
        await house.keys.rotate(ada, "r", "ci", 0.0)


async def test_keys_are_meant_by_name_id_owner_or_beginning(house: House, ada: Actor, bob: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.grant(ROOT, "user", "user:daemon")
    mine, his = await house.keys.create(ada, "r", "ci"), await house.keys.create(bob, "r", "ci")
    await house.keys.create(ada, "r", "other")
    for text in ("bin/ci", mine.id, mine.begins, mine.begins + "...", "bin/c*"):
        assert [each.id for each in house.keys.matching(None, text)] == [mine.id], text
    assert {each.id for each in house.keys.matching(None, "ci")} == {mine.id, his.id}
    assert [each.id for each in house.keys.matching(bob, "ci")] == [his.id]
    for text in ("corral_", "", "cii", mine.id[:-1]):
        with pytest.raises(NotFound, match="no key"):
            house.keys.matching(None, text)
