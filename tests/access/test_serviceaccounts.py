"""Service accounts: never more than they were granted, never more than their owner, gone with a user who left."""

from __future__ import annotations

import pytest
from house import NOW, ROOT, House
from hypothesis import given
from hypothesis import strategies as st

from core.access.rights import Rights, Use, both
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound
from core.nouns import Actor, Mark, Subject
from tests.access.test_rights import ALL, PATTERNS, may_use


async def test_a_new_account_may_nothing_until_something_is_granted_to_it(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    made = await house.accounts.create(ada, "r", "ci", words="nightly runs")
    assert (str(made.owner), made.state) == ("user:bin", "active")
    await house.keys.create(ada, "r", "build", owner="account:ci")
    (told,) = house.keys.told()
    assert told.uses == () and house.accounts.get(ada, "ci").uses == ()
    await house.grant(ada, "deployments.use", "account:ci", "deployment:a*")  # owners manage their own
    (told,) = house.keys.told()
    assert told.uses is not None and [use.scope for use in told.uses] == ["deployment:a*"]
    detail = house.accounts.get(ada, "ci")
    assert detail.uses == ("deployment:a*",) and [key.name for key in detail.keys] == ["build"]
    assert [grant.what for grant in detail.grants] == ["deployments.use"]


async def test_an_account_never_may_more_than_its_owner_at_that_moment(house: House, ada: Actor) -> None:
    id = await house.grant(ROOT, "user", "user:bin", "deployment:a*", until=NOW + 100)
    await house.grant(ROOT, "accounts.own", "user:bin")
    await house.grant(ROOT, "keys.own", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    await house.keys.create(ada, "r", "build", owner="account:ci")
    await house.grant(ROOT, "deployments.use", "account:ci")  # wide: the owner bounds it
    (told,) = house.keys.told()
    assert told.uses is not None and [(u.scope, u.until) for u in told.uses] == [("deployment:a*", NOW + 100)]
    yes = await house.inquiry.explain("account:ci", "deployments.use", "deployment:ab")
    no = await house.inquiry.explain("account:ci", "deployments.use", "deployment:b")
    assert yes.allowed and not no.allowed and no.why.startswith("its owner may not: no grant gives bin")
    await house.access.revoke(ROOT, "r", id)
    (told,) = house.keys.told()
    assert told.uses == ()
    assert not (await house.inquiry.explain("account:ci", "deployments.use", "deployment:ab")).allowed


async def test_with_a_user_who_left_go_his_accounts_keys_and_a_team_s_stay(
    house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.access.put_team(ROOT, "r", "ml", ["user:bin"])
    await house.grant(ROOT, "user", "team:ml")
    for name, owner in (("mine", ""), ("ours", "team:ml")):
        await house.accounts.create(ada, "r", name, owner=owner)
        await house.grant(ada, "deployments.use", f"account:{name}")
        await house.keys.create(ada, "r", "k", owner=f"account:{name}")

    async def gone(name: str) -> Actor:
        raise NotFound(f"this host knows no {name!r}")

    monkeypatch.setattr("core.access.owners.actor_named", gone)
    await house.keys.follow()
    assert [str(told.key.owner) for told in house.keys.told()] == ["account:ours"]
    states = {account.name: account.state for account in house.accounts.ls(ROOT)}
    assert states == {"mine": "owner gone", "ours": "active"}
    assert {str(key.owner): key.state for key in house.keys.ls(ROOT)} == {
        "account:mine": "owner gone", "account:ours": "active",
    }  # fmt: skip


async def test_disabling_ends_its_keys_and_what_an_admin_disabled_no_owner_enables(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    await house.grant(ada, "deployments.use", "account:ci")
    await house.keys.create(ada, "r", "build", owner="account:ci")
    assert len(house.keys.told()) == 1
    told = house.keys_told
    assert (await house.accounts.disable(ada, "r", "ci", "moving")).state == "disabled"
    assert house.keys.told() == [] and house.keys_told > told
    assert house.keys.get(ada, "ci/build").state == "owner disabled"
    why = (await house.inquiry.explain("account:ci", "deployments.use", "deployment:a")).why
    assert why == "ci is disabled: moving"
    assert (await house.accounts.enable(ada, "r", "ci")).state == "active"
    await house.accounts.disable(ROOT, "r", "ci", "it was abused")
    with pytest.raises(NotAllowed, match="root disabled ci"):
        await house.accounts.enable(ada, "r", "ci")
    assert house.keys.told() == []
    disabled, refused = (await house.records())[-2:]
    assert (disabled.verb, disabled.reason) == ("accounts.disable", "it was abused")
    assert (refused.verb, refused.outcome) == ("accounts.enable", "refused")


async def test_removing_revokes_its_keys_and_takes_its_grants_in_one_record(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    grant = await house.grant(ada, "deployments.use", "account:ci")
    key = await house.keys.create(ada, "r", "build", owner="account:ci")
    await house.accounts.rm(ada, "r", "ci", "done with")
    last = (await house.records())[-1]
    assert (last.verb, last.object, last.reason) == ("accounts.rm", "account:ci", "done with")
    assert last.before["keys"] == [key.id] and [each["id"] for each in last.before["grants"]] == [grant]
    assert house.keys.told() == [] and house.accounts.ls(ROOT) == []
    with pytest.raises(Conflict, match="was a service account before"):  # what bears the name is nobody else's
        await house.accounts.create(ROOT, "r", "ci")


async def test_another_s_account_is_not_there(house: House, ada: Actor, bob: Actor) -> None:
    for user in ("user:bin", "user:daemon"):
        await house.grant(ROOT, "user", user)
    await house.accounts.create(ada, "r", "ci")
    with pytest.raises(NotFound):
        house.accounts.get(bob, "ci")
    assert house.accounts.ls(bob) == []
    for attempt in (
        house.accounts.disable(bob, "r", "ci"),
        house.accounts.rm(bob, "r", "ci"),
        house.keys.create(bob, "r", "k", owner="account:ci"),
        house.grant(bob, "deployments.use", "account:ci"),
    ):
        with pytest.raises((NotAllowed, NotFound)):
            await attempt
    assert len(await house.refusals()) == 4
    with pytest.raises(NotAllowed):
        await house.accounts.create(bob, "r", "x", owner="user:bin")
    thief = Actor(uid=ada.uid, name="mallory")  # the uid was given to somebody else
    await house.access.put_team(ROOT, "r", "all", ["group:daemon"])
    assert house.accounts.ls(thief) == []


async def test_an_owner_grants_his_account_no_more_than_he_holds(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin", "deployment:a*")
    await house.grant(ROOT, "accounts.own", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    with pytest.raises(NotAllowed, match="may not decide about"):
        await house.grant(ada, "deployments.use", "account:ci")
    with pytest.raises(NotAllowed):  # and to nobody else
        await house.grant(ada, "deployments.use", "user:daemon", "deployment:a*")
    mine = await house.grant(ada, "deployments.use", "account:ci", "deployment:ab")
    await house.access.revoke(ada, "r", mine)
    denial = await house.grant(ROOT, "deployments.use", "account:ci", "deployment:a*", deny=True)
    with pytest.raises(NotAllowed):  # a denial of somebody else's is not his to take away
        await house.access.revoke(ada, "r", denial)


@pytest.mark.parametrize(
    ("name", "owner", "error", "words"),
    [
        ("Bad Name", "", Invalid, "no name of a service account"),
        ("../up", "", Invalid, "no name"),
        ("daemon", "", Conflict, "has a user daemon"),
        ("ci", "group:daemon", Invalid, "a user or a team"),
        ("ci", "account:ci", Invalid, "a user or a team"),
        ("ci", "team:none", NotFound, "no team"),
        ("ci", "user:no-such-user", NotFound, "knows no"),
        ("ml", "", Conflict, "a team ml"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_made(
    house: House, name: str, owner: str, error: type[CorralError], words: str
) -> None:
    await house.access.put_team(ROOT, "r", "ml", ["user:bin"])
    with pytest.raises(error, match=words):
        await house.accounts.create(ROOT, "r", name, owner=owner)
    assert house.accounts.ls(ROOT) == []


async def test_an_account_is_no_user_of_anything_but_deployments(house: House, ada: Actor) -> None:
    await house.accounts.create(ROOT, "r", "ci")
    for what, scope in (("viewer", "*"), ("models.rm", "*"), ("admin", "model:*")):
        with pytest.raises(Invalid, match="nothing to a service account"):
            await house.grant(ROOT, what, "account:ci", scope)
    with pytest.raises(NotFound, match="no account 'nobody'"):
        await house.grant(ROOT, "user", "account:nobody")
    await house.grant(ROOT, "admin", "account:ci")
    first = next(g for g in house.access.rights.grants if g.by == "corral")
    with pytest.raises(Conflict, match="the last admin stays"):  # an account is none
        await house.access.revoke(ROOT, "r", first.id)
    assert not house.may(Actor(uid=4242, name="ci"), "deployments.use")
    said = await house.inquiry.explain("account:ci", "deployments.rm", "deployment:a")
    assert not said.allowed and "acts through API keys" in said.why


async def test_a_team_with_accounts_stays(house: House, ada: Actor) -> None:
    await house.access.put_team(ROOT, "r", "ml", ["user:bin"])
    await house.grant(ROOT, "accounts.own", "user:bin")
    await house.accounts.create(ada, "r", "ci", owner="team:ml")
    with pytest.raises(Conflict, match="has service accounts"):
        await house.access.rm_team(ROOT, "r", "ml")


USES = st.lists(
    st.builds(
        lambda scope, deny: Use("user", 1, deny, scope if scope == "*" else f"deployment:{scope}", None),
        PATTERNS, st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(USES, st.one_of(st.none(), USES))
def test_what_comes_of_two_lists_is_what_both_of_them_allow(one: list[Use], other: list[Use] | None) -> None:
    found = both(one, other)
    for name in ALL:
        expected = may_use(one, name) and (other is None or may_use(other, name))
        assert may_use(found, name) == expected, name


async def test_explain_knows_what_a_mark_keeps_from_an_account(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    await house.grant(ROOT, "deployments.use", "account:ci")
    rights = house.gate.rights
    for groups, allowed in (((), False), ((Subject(kind="group", name="bin", id=ada.groups[0]),), True)):
        mark = Mark(deployment="chat", labels=("zone=a",), groups=groups, by="x", at=0.0)
        house.gate.rights = Rights(
            mode="system", owner_uid=0, grants=rights.grants, accounts=rights.accounts.values(), marks=[mark]
        )
        await house.keys.follow()
        said = await house.inquiry.explain("account:ci", "deployments.use", "deployment:chat")
        assert said.allowed == allowed and ("sensitive" in said.why) != allowed
        uses, _ = house.keys.owners.uses(Subject(kind="account", name="ci"))
        assert any(use.deny for use in uses or ()) != allowed


async def test_a_key_of_a_disabled_account_gets_no_new_secret(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "user", "user:bin")
    await house.accounts.create(ada, "r", "ci")
    await house.keys.create(ada, "r", "build", owner="account:ci")
    await house.accounts.disable(ada, "r", "ci", "")
    with pytest.raises(Conflict, match=r"account:ci is disabled: a new secret.*corral accounts enable ci"):
        await house.keys.rotate(ada, "r", "build", 0.0)
