"""Roles, grants and teams are written down, checked against escalation, and in force from their commit on."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from house import FIRST, NOW, ROOT, House

from core.access import Access, Gate, Rights, people
from core.access.grantrules import EXAMPLES
from core.access.knownnames import LOOK_EVERY_S
from core.access.permissions import PERMISSIONS
from core.errors import Conflict, CorralError, Invalid, NotAllowed, NotFound, TimedOut, Unseen
from core.nouns import Actor, Role
from core.userfiles import GLANCE_S, UserChanges


async def test_the_first_admins_are_a_grant_that_is_recorded_and_written_once(house: House) -> None:
    (first,) = house.access.rights.grants
    assert (first.what, str(first.subject), first.scope, first.by) == ("admin", "group:sys", "*", "corral")
    await house.grant(ROOT, "admin", "user:bin")
    await house.access.revoke(ROOT, "r", first.id)
    await house.access.start(FIRST)
    assert [str(g.subject) for g in house.access.rights.grants] == ["user:bin"]
    assert [r.verb for r in await house.records()] == ["access.grant", "access.grant", "access.revoke"]


async def test_a_grant_is_in_force_at_once_and_after_a_restart(house: House, ada: Actor) -> None:
    assert not house.may(ada, "deployments.stop")
    id = await house.grant(ROOT, "operator", "user:bin", "deployment:chat", reason="on call", until=NOW + 60)
    assert house.may(ada, "deployments.stop") and not house.may(ada, "deployments.stop", "deployment:other")
    assert house.told == 1
    again = Gate(house.store, house.audit, Rights(mode="system", owner_uid=0), clock=lambda: house.now)
    await Access(house.store, again, clock=lambda: house.now).start(FIRST)
    assert again.may(ada, "deployments.stop", "deployment:chat")
    house.now += 60
    assert not house.may(ada, "deployments.stop")
    house.now -= 60
    await house.access.revoke(ROOT, "r", id, reason="over")
    assert not house.may(ada, "deployments.stop")
    last = (await house.records())[-1]
    assert (last.verb, last.object, last.before["what"], last.after, last.reason) == (
        "access.revoke", "access:user:bin", "operator", None, "over",
    )  # fmt: skip


async def test_refused_grants_denials_and_revocations_say_which_they_were_and_of_what(house: House, ada: Actor) -> None:
    made = await house.grant(ROOT, "viewer", "user:daemon")
    with pytest.raises(NotAllowed):
        await house.grant(ada, "admin", "user:bin", reason="mine")
    with pytest.raises(NotAllowed):
        await house.grant(ada, "user", "user:daemon", "deployment:chat", deny=True)
    with pytest.raises(NotAllowed):
        await house.access.revoke(ada, "r", made)
    with pytest.raises(NotAllowed):
        await house.access.put_team(ada, "r", "ml", ["user:bin"])
    tried = [(r.verb, r.object, r.after["tried"]) for r in await house.records() if r.outcome == "refused"]
    assert [verb for verb, _, _ in tried] == ["access.grant", "access.deny", "access.revoke", "access.teams"]
    assert [(t["what"], t["scope"], t["effect"]) for _, _, t in tried[:3]] == [
        ("admin", "*", "allow"), ("user", "deployment:chat", "deny"), ("viewer", "*", "allow"),
    ]  # fmt: skip
    assert tried[2][2]["id"] == made and [each["name"] for each in tried[3][2]["members"]] == ["bin"]


async def test_nobody_grants_himself_or_others_what_he_does_not_hold(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "operator", "user:bin", "deployment:a*", until=NOW + 100)
    with pytest.raises(NotAllowed):
        await house.grant(ada, "operator", "user:daemon", "deployment:a1")  # he may not grant at all
    await house.grant(ROOT, "access.grant", "user:bin")
    for what, subject, scope, until in (
        ("admin", "user:bin", "*", None),
        ("operator", "user:bin", "*", NOW + 50),
        ("operator", "user:bin", "deployment:a*", None),
        ("models.rm", "user:daemon", "model:*", NOW + 50),
        ("*", "user:bin", "*", None),
        ("chats.read-others", "user:bin", "*", None),
    ):
        with pytest.raises(NotAllowed, match="may not decide about"):
            await house.grant(ada, what, subject, scope, until=until)
    assert len(await house.refusals()) == 7
    await house.grant(ada, "deployments.stop", "user:daemon", "deployment:ab*", until=NOW + 50)


async def test_a_denial_is_not_taken_away_by_whom_it_concerns(house: House, ada: Actor) -> None:
    await house.grant(ROOT, "admin", "user:bin")
    denial = await house.grant(ROOT, "deployments.rm", "user:bin", "deployment:*", deny=True)
    with pytest.raises(NotAllowed, match=r"denies deployments\.rm"):
        await house.access.revoke(ada, "r", denial)
    assert not house.may(ada, "deployments.rm")


async def test_a_whole_admin_takes_away_what_no_role_has_and_denies_all_of_it(house: House, ada: Actor) -> None:
    """In an emergency: somebody is to be able to do nothing more, whatever root gave him."""
    given = await house.grant(ROOT, "chats.read-others", "user:daemon")
    await house.grant(ROOT, "access.grant", "user:bin")
    with pytest.raises(NotAllowed, match="may not decide about") as told:
        await house.access.revoke(ada, "r", given)
    assert "break-glass --reason … --what chats.read-others" in told.value.todo
    with pytest.raises(NotAllowed):
        await house.grant(ada, "*", "user:daemon", deny=True)  # a clerk who may grant is no admin
    await house.grant(ROOT, "admin", "user:bin")
    await house.access.revoke(ada, "r", given)
    await house.grant(ada, "*", "user:daemon", deny=True)
    with pytest.raises(NotAllowed):
        await house.grant(ada, "chats.read-others", "user:bin")
    await house.grant(ROOT, "deployments.rm", "user:bin", deny=True)
    denial = next(g.id for g in house.access.rights.grants if g.effect == "deny" and g.what == "*")
    with pytest.raises(NotAllowed):
        await house.access.revoke(ada, "r", denial)  # that would give him what she does not hold


async def test_a_role_is_not_widened_by_those_who_have_it(house: House, ada: Actor) -> None:
    await house.access.put_roles(ROOT, "r", [Role(name="starter", allows=("deployments.start",))])
    await house.grant(ROOT, "starter", "user:bin")
    await house.grant(ROOT, "access.roles", "user:bin")
    with pytest.raises(NotAllowed, match=r"does not hold models\.rm"):
        await house.access.put_roles(ada, "r", [Role(name="starter", allows=("deployments.start", "models.rm"))])
    assert not house.may(ada, "models.rm", "model:x") and house.may(ada, "deployments.start")
    await house.access.put_roles(ROOT, "r", [Role(name="starter", allows=("deployments.st*",))])
    assert house.may(ada, "deployments.stop")


async def test_a_role_that_denies_is_not_narrowed_by_those_whom_it_denies(house: House, ada: Actor) -> None:
    await house.access.put_roles(ROOT, "r", [Role(name="frozen", allows=("deployments.rm", "deployments.stop"))])
    await house.grant(ROOT, "admin", "user:bin")
    await house.grant(ROOT, "frozen", "user:bin", deny=True)
    with pytest.raises(NotAllowed, match=r"denies deployments\.stop"):
        await house.access.put_roles(ada, "r", [Role(name="frozen", allows=("deployments.rm",))])


async def test_nobody_joins_a_team_that_holds_more_than_he_does(house: House, ada: Actor) -> None:
    await house.access.put_team(ROOT, "r", "ml", ["user:daemon"])
    await house.grant(ROOT, "operator", "team:ml")
    await house.grant(ROOT, "access.teams", "user:bin")
    with pytest.raises(NotAllowed, match="does not hold"):
        await house.access.put_team(ada, "r", "ml", ["user:daemon", "user:bin"])
    assert not house.may(ada, "deployments.stop")


async def test_the_last_admin_stays(house: House, ada: Actor) -> None:
    (first,) = house.access.rights.grants
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.revoke(ROOT, "r", first.id)
    await house.grant(ROOT, "admin", "user:bin", until=NOW + 5)
    with pytest.raises(Conflict):
        await house.access.revoke(ROOT, "r", first.id)
    assert first in house.access.rights.grants
    await house.access.put_team(ROOT, "r", "ops", ["user:bin"])
    await house.grant(ROOT, "admin", "team:ops")
    await house.access.revoke(ROOT, "r", first.id)
    with pytest.raises(Conflict):
        await house.access.put_team(ROOT, "r", "ops", [])
    assert house.may(ada, "access.grant", "access:user:x")


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The users in this have left the host."""
    gone, known = set[str](), people._user

    def user(name: str) -> Actor:
        if name in gone:
            raise KeyError(name)
        return known(name)

    monkeypatch.setattr(people, "_user", user)
    return gone


async def test_a_grant_to_somebody_who_left_is_no_admin_that_could_stay(house: House, left: set[str]) -> None:
    (first,) = house.access.rights.grants
    await house.grant(ROOT, "admin", "user:bin")
    left.add("bin")
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.revoke(ROOT, "r", first.id)
    left.clear()
    await house.access.revoke(ROOT, "r", first.id)


async def test_a_group_in_which_nobody_is_left_is_no_admin_that_could_stay(house: House, left: set[str]) -> None:
    (first,) = house.access.rights.grants
    id = await house.grant(ROOT, "admin", "user:bin")
    left.add("sys")
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.revoke(ROOT, "r", id)
    left.add("bin")
    await house.access.revoke(ROOT, "r", first.id)  # nobody was one, so nothing is lost


async def test_the_last_admin_may_be_anywhere_in_a_large_group(
    house: House, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which no more are looked up than up to him: a directory takes its time for each."""
    id = await house.grant(ROOT, "admin", "user:bin")
    asked: list[str] = []

    def members(gid: int) -> Iterator[str]:
        for name in [*(f"gone{n}" for n in range(500)), "sys", *(f"here{n}" for n in range(500))]:
            asked.append(name)
            yield name

    monkeypatch.setattr(people, "_members", members)
    await house.access.revoke(ROOT, "r", id)
    assert (len(asked), asked[-1]) == (501, "sys")


async def test_that_the_host_took_the_last_admin_away_is_told_until_there_is_one(house: House, left: set[str]) -> None:
    looks = 0

    async def run(before: Callable[[], object]) -> None:
        """One look of the loop, after the host has changed."""

        async def pause(seconds: float) -> None:
            nonlocal looks
            looks += 1
            if looks % 2 == 0:
                raise asyncio.CancelledError
            before()

        with contextlib.suppress(asyncio.CancelledError):
            await house.access.run(pause)

    await run(lambda: None)
    assert house.access.troubles() == []
    await run(lambda: left.add("sys"))
    (trouble,) = house.access.troubles()
    assert "nobody is an admin any more" in trouble and "corral access grant admin" in trouble
    await house.grant(ROOT, "viewer", "user:bin")
    assert house.access.troubles() == [trouble]
    await house.grant(ROOT, "admin", "user:bin")
    assert house.access.troubles() == []


@pytest.mark.parametrize("what", ["access.grant", "admin", "access.*"])
async def test_a_denial_that_would_leave_no_admin_is_refused_and_changes_nothing(house: House, what: str) -> None:
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.grant(ROOT, what, "group:sys", deny=True)
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.grant(ROOT, what, "user:sys", deny=True, until=NOW + 3600)
    assert len(house.access.rights.grants) == 1 and len(await house.refusals()) == 2
    other = await house.grant(ROOT, "admin", "user:bin")
    await house.grant(ROOT, what, "user:sys", deny=True)
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.revoke(ROOT, "r", other)


async def test_a_role_or_team_that_would_deny_the_last_admin_is_not_changed(house: House) -> None:
    await house.access.put_roles(ROOT, "r", [Role(name="frozen", allows=("models.rm",))])
    await house.access.put_team(ROOT, "r", "held", ["user:bin"])
    await house.grant(ROOT, "frozen", "team:held", deny=True)
    await house.grant(ROOT, "access.grant", "team:held", deny=True)
    await house.grant(ROOT, "frozen", "user:sys", deny=True)
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.put_roles(ROOT, "r", [Role(name="frozen", allows=("models.rm", "access.grant"))])
    with pytest.raises(Conflict, match="the last admin stays"):
        await house.access.put_team(ROOT, "r", "held", ["user:bin", "group:sys"])


async def test_a_silent_directory_keeps_no_right_from_being_taken_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = house.access.rights.grants
    await house.grant(ROOT, "admin", "user:bin")
    other = await house.grant(ROOT, "admin", "user:daemon")

    async def silent(*asked: object) -> dict[object, object]:
        raise TimedOut("users were not looked up")

    monkeypatch.setattr("core.access.service.people_of", silent)
    await house.access.revoke(ROOT, "r", first.id)
    await house.access.revoke(ROOT, "r", other)
    assert [str(grant.subject) for grant in house.access.rights.grants] == ["user:bin"]


async def test_a_right_taken_away_while_an_action_waits_does_not_count_any_more(house: House, ada: Actor) -> None:
    """The action was let in, then the revocation commits, then the action's turn comes."""
    id = await house.grant(ROOT, "operator", "user:bin")
    done: list[int] = []

    def work(db: sqlite3.Connection) -> tuple[None, None, None]:
        done.append(1)
        return None, None, None

    house.gate.require(ada, "deployments.stop", "deployment:chat")
    revoking = asyncio.create_task(house.access.revoke(ROOT, "r", id))
    await asyncio.sleep(0)
    acting = asyncio.create_task(house.gate.act(ada, "deployments.stop", "deployment:chat", "r", work))
    await revoking
    with pytest.raises(CorralError):
        await acting
    assert not done and len(await house.refusals()) == 1


async def test_what_may_not_be_seen_is_not_found_and_the_record_says_why(house: House, ada: Actor) -> None:
    with pytest.raises(NotFound) as missing:
        house.gate.require(ada, "deployments.stop", "deployment:secret")
    assert isinstance(missing.value, Unseen) and "no grant gives bin" in missing.value.reason
    assert "grant" not in str(missing.value)
    await house.grant(ROOT, "viewer", "user:bin")
    with pytest.raises(NotAllowed):
        house.gate.require(ada, "deployments.stop", "deployment:secret")


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"what": "operater"}, NotFound, "no role 'operater'"),
        ({"what": "deployments.fly"}, Invalid, "no permission"),
        ({"scope": "deployment:*-a"}, Invalid, "star at the end only"),
        ({"scope": "planet:mars"}, Invalid, "kinds are"),
        ({"scope": "model:phi", "what": "deployments.stop"}, Invalid, "would mean nothing"),
        ({"subject": "user:no-such-user-here"}, NotFound, "knows no"),
        ({"subject": "bin"}, Invalid, "say user:NAME"),
        ({"subject": "user:../../etc/passwd"}, Invalid, "is nobody"),
        ({"subject": "user:\x1b[31mbin"}, Invalid, "is nobody"),
        ({"subject": "team:none"}, NotFound, "no team"),
        ({"until": NOW}, Invalid, "lies ahead"),
        ({"reason": "x" * 501}, Invalid, "over 500"),
    ],
)
async def test_a_grant_that_means_nothing_is_refused(
    house: House, fields: dict[str, Any], error: type[CorralError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await house.access.grant(ROOT, "r", **({"what": "viewer", "subject": "user:bin"} | fields))
    assert len(house.access.rights.grants) == 1


async def test_the_same_grant_twice_is_refused_and_names_the_first(house: House) -> None:
    id = await house.grant(ROOT, "viewer", "user:bin")
    with pytest.raises(Conflict, match=id):
        await house.grant(ROOT, "viewer", "user:bin")


async def test_built_in_roles_stay_and_used_ones_are_not_removed(house: House) -> None:
    with pytest.raises(Conflict, match="built in"):
        await house.access.put_roles(ROOT, "r", [Role(name="viewer", allows=("*",))])
    await house.access.put_roles(ROOT, "r", [Role(name="own", allows=("models.*",))])
    id = await house.grant(ROOT, "own", "user:bin")
    with pytest.raises(Conflict, match=id):
        await house.access.rm_role(ROOT, "r", "own")
    await house.access.revoke(ROOT, "r", id)
    await house.access.rm_role(ROOT, "r", "own")
    assert "own" not in house.access.rights.roles


async def test_explain_and_whoami_say_by_which_grant(house: House, ada: Actor) -> None:
    id = await house.grant(ROOT, "operator", "user:bin", "deployment:chat", reason="on call")
    yes = await house.inquiry.explain("bin", "deployments.stop", "deployment:chat")
    assert yes.allowed and id in yes.why and "on call" in yes.why and yes.grant is not None
    no = await house.inquiry.explain("user:bin", "models.rm", "model:x")
    assert not no.allowed and "no grant gives bin models.rm on model:x" in no.why
    me = await house.inquiry.whoami(ada)
    assert {each.permission for each in me.holds} >= {"deployments.stop", "chats.own"} and not me.because
    assert (await house.inquiry.whoami(ROOT)).because == "Corral itself"


@pytest.mark.parametrize(
    ("permission", "object", "words"),
    [
        ("deployments.use", "model:x", r"deployments\.use is about deployment:.*for example deployment:chat"),
        ("deployments.use", "deployment:../../x", "no deployment can be called.*for example deployment:chat"),
        ("deployments.use", "deployment:Chat", "no deployment can be called"),
        ("deployments.use", "deployment:", "no object"),
        ("deployments.use", "deployment:a*", "no star"),
        ("deployments.use", "chat", "no object.*deployment:chat"),
        ("models.rm", "model:a/b", "no model can be called"),
        ("keys.manage", "key:../x", "no key can be called"),
        ("audit.read", "audit:a/b", "no audit can be called"),
        ("access.grant", "access:user:", "no access can be called"),
        ("chats.forget", "user:a:b", "no user can be called"),
    ],
)
async def test_explain_refuses_what_the_permission_is_not_about(
    house: House, permission: str, object: str, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        await house.inquiry.explain("bin", permission, object)


@pytest.mark.parametrize("permission", PERMISSIONS)
async def test_explain_takes_the_example_that_it_names(house: House, permission: str) -> None:
    kind = PERMISSIONS[permission].kind
    assert not (await house.inquiry.explain("bin", permission, f"{kind}:{EXAMPLES[kind]}")).allowed


@pytest.mark.parametrize(
    ("permission", "object"),
    [("access.grant", "access:user:bin"), ("access.roles", "access:role:own"), ("keys.manage", "key:k12345678")],
)
async def test_explain_takes_the_objects_that_refusals_name(house: House, permission: str, object: str) -> None:
    assert not (await house.inquiry.explain("bin", permission, object)).allowed
    assert (await house.inquiry.explain("sys", permission, object)).allowed


async def test_simulate_says_who_would_gain_and_lose_and_changes_nothing(house: House, ada: Actor) -> None:
    id = await house.grant(ROOT, "operator", "user:bin")
    there = ["deployment:chat", "model:tiny"]
    lost = await house.inquiry.simulate(there, revoke=id)
    assert {(d.subject, d.permission, d.object, d.after) for d in lost} >= {
        ("user:bin", "deployments.stop", "deployment:chat", False)
    }
    gained = await house.inquiry.simulate(there, what="librarian", subject="user:bin")
    assert {(d.permission, d.object) for d in gained} == {
        (f"models.{verb}", "model:tiny") for verb in ("import", "rm", "alias", "gc", "verify", "move", "bench")
    }
    denied = await house.inquiry.simulate(there, what="deployments.stop", subject="user:bin", deny=True)
    assert [(d.permission, d.before, d.after) for d in denied] == [("deployments.stop", True, False)]
    assert len(house.access.rights.grants) == 2 and house.may(ada, "deployments.stop")


async def test_a_user_who_left_or_was_renamed_has_no_rules_for_the_gateway(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.grant(ROOT, "user", "user:bin", "deployment:chat")
    (rule,) = [each for each in house.access.uses("deployments.use") if each.kind == "user"]
    assert (rule.id, rule.scope, rule.deny) == (2, "deployment:chat", False)

    async def other(uids: object) -> dict[int, str]:
        return {2: "mallory"}

    monkeypatch.setattr("core.access.knownnames.names_of", other)
    looks = 0

    async def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise asyncio.CancelledError

    told = house.told
    with pytest.raises(asyncio.CancelledError):
        await house.access.run(pause)
    assert [each for each in house.access.uses("deployments.use") if each.kind == "user"] == []
    assert house.told == told + 1


async def test_the_gateway_hears_within_a_second_that_the_hosts_files_have_changed(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`userdel bin; useradd -u 2 mallory`, with no minute in between."""
    await house.grant(ROOT, "user", "user:bin", "deployment:chat")
    passwd, told, slept = tmp_path / "passwd", asyncio.Event(), list[float]()
    monkeypatch.setattr("core.userfiles.FILES", (passwd,))

    async def other(uids: object) -> dict[int, str]:
        return {2: "mallory"}

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        passwd.write_text("changed")
        await real_sleep(0)

    real_sleep = asyncio.sleep
    house.access._known._changes = UserChanges(sleep)
    monkeypatch.setattr("core.access.knownnames.names_of", other)
    house.access.on_change.append(told.set)
    async with asyncio.timeout(20):
        running = asyncio.create_task(house.access.run())
        await told.wait()
        running.cancel()
    assert slept[0] == GLANCE_S == 1.0 and sum(slept) < LOOK_EVERY_S
    assert [each for each in house.access.uses("deployments.use") if each.kind == "user"] == []


async def test_roles_are_defined_all_or_none(house: House) -> None:
    with pytest.raises(Invalid):
        await house.access.put_roles(ROOT, "r", [Role(name="a", allows=("models.*",)), Role(name="b", allows=("x.y",))])
    assert "a" not in house.access.rights.roles
    await house.access.put_roles(ROOT, "r", [Role(name=n, allows=("models.*",)) for n in ("a", "b")])
    assert {"a", "b"} < set(house.access.rights.roles)
    assert (await house.records())[-1].object == "access:roles"


@pytest.mark.parametrize("scope", ["deployment:team-a/*", "deployment:Team-*", "model:org/name", "deployment:"])
async def test_a_scope_that_no_name_can_match_is_refused_with_one_that_can(house: House, scope: str) -> None:
    with pytest.raises(Invalid, match=rf"matches no .*alone.*say {scope.partition(':')[0]}:[a-z-]+\*"):
        await house.grant(ROOT, "operator", "user:bin", scope)
    with pytest.raises(Invalid, match="matches no"):
        await house.inquiry.simulate([], what="operator", subject="user:bin", scope=scope)


async def test_a_denial_that_would_not_hold_is_refused_and_explained(house: House, ada: Actor) -> None:
    """The owner of a daemon of his own, and root there."""
    house.gate.rights = Rights(mode="user", owner_uid=ada.uid)
    for name in ("bin", "root"):
        with pytest.raises(Conflict, match=f"does not hold against user:{name}.*write the files anyway"):
            await house.grant(ROOT, "deployments.use", f"user:{name}", "deployment:chat", deny=True)
    id = await house.grant(ROOT, "deployments.use", "group:bin", "deployment:chat", deny=True)
    said = await house.inquiry.explain("bin", "deployments.use", "deployment:chat")
    assert said.allowed and f"grant {id}" in said.why and "does not hold against him" in said.why
    assert house.may(ada, "deployments.use", "deployment:chat")


async def test_who_has_left_the_host_holds_nothing_in_the_matrix_and_is_marked_in_the_list(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor files the list: a name in it that is somebody else's now would be a right that nobody has."""
    await house.grant(ROOT, "operator", "user:bin")
    await house.grant(ROOT, "operator", "user:daemon")
    whom = {str(g.subject): g.subject for g in house.access.rights.grants}
    assert {"user:bin", "user:daemon"} <= {held.subject for held in house.inquiry.matrix()}

    async def renamed(uids: Any) -> dict[int, str]:
        return {whom["user:bin"].id: "frank"}

    monkeypatch.setattr("core.access.knownnames.names_of", renamed)
    await house.access.changed()
    assert not {"user:bin", "user:daemon"} & {held.subject for held in house.inquiry.matrix()}
    gone = {str(each.subject): each.gone for each in house.inquiry.grants()}
    assert gone["user:bin"].endswith("is frank now") and gone["user:daemon"].endswith("is nobody's any more")
    assert gone["group:sys"] == ""
