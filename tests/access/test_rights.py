"""Who may do what: deny by default, deny wins, and nobody hands on what he does not hold."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access.permissions import BUILTIN, PERMISSIONS, covers, matches, overlap
from core.access.rights import Rights, Use
from core.nouns import Actor, Grant, Role, Subject, Team

ALICE = Actor(uid=1000, name="alice", groups=(100, 2000))
BOB = Actor(uid=1001, name="bob", groups=(100,))
ROOT = Actor(uid=0, name="root", groups=(0,))
NOW = 1_000_000.0


def user(actor: Actor) -> Subject:
    return Subject(kind="user", name=actor.name, id=actor.uid)


STAFF = Subject(kind="group", name="staff", id=2000)


def grant(what: str, subject: Subject, scope: str = "*", *, deny: bool = False, until: float | None = None) -> Grant:
    effect = "deny" if deny else "allow"
    return Grant(id="g1", effect=effect, what=what, subject=subject, scope=scope, by="root", at=0.0, until=until)


def system(*grants: Grant, roles: tuple[Role, ...] = (), teams: tuple[Team, ...] = ()) -> Rights:
    return Rights(mode="system", owner_uid=0, roles=roles, grants=grants, teams=teams)


def may(rights: Rights, actor: Actor, permission: str, object: str = "deployment:chat", now: float = NOW) -> bool:
    return rights.decide(actor, permission, object, now).allowed


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_without_a_grant_nobody_may_do_anything_and_root_reads(permission: str) -> None:
    rights = system()
    assert not may(rights, ALICE, permission) and not rights.anywhere(ALICE, permission, NOW)
    more = {"daemon.reload", "daemon.shutdown", "access.break-glass"}
    assert may(rights, ROOT, permission) == (permission in {*BUILTIN["auditor"].allows, *more})
    assert may(Rights(mode="user", owner_uid=1000), ROOT, permission)


def test_the_owner_of_a_daemon_of_his_own_needs_no_grant_and_others_do() -> None:
    rights = Rights(mode="user", owner_uid=1000)
    assert may(rights, ALICE, "deployments.rm") and not may(rights, BOB, "daemon.read")


def test_a_grant_holds_on_its_scope_for_its_role_until_it_ends() -> None:
    rights = system(grant("operator", STAFF, "deployment:team-a-*", until=NOW + 10))
    assert may(rights, ALICE, "deployments.stop", "deployment:team-a-chat")
    assert not may(rights, ALICE, "deployments.stop", "deployment:chat")
    assert not may(rights, ALICE, "models.rm", "deployment:team-a-chat")
    assert not may(rights, BOB, "deployments.stop", "deployment:team-a-chat")
    assert not may(rights, ALICE, "deployments.stop", "deployment:team-a-chat", NOW + 10)
    said = rights.decide(ALICE, "deployments.stop", "deployment:team-a-chat", NOW + 10)
    assert "has ended" in said.why


@pytest.mark.parametrize("scope", ["*", "key:*"])
def test_a_denial_of_what_needs_no_object_leaves_nothing_of_it(scope: str) -> None:
    allowed, denied = grant("user", user(ALICE)), grant("keys.own", user(ALICE), scope, deny=True)
    rights = system(allowed, denied)
    assert not rights.anywhere(ALICE, "keys.own", NOW) and rights.anywhere(ALICE, "chats.own", NOW)
    narrow = system(allowed, grant("deployments.use", user(ALICE), "deployment:a*", deny=True))
    assert narrow.anywhere(ALICE, "deployments.use", NOW)


def test_a_denial_wins_whatever_stands_beside_it() -> None:
    allowed, denied = grant("admin", user(ALICE)), grant("deployments.rm", STAFF, "deployment:chat", deny=True)
    for grants in ((allowed, denied), (denied, allowed)):
        rights = system(*grants)
        assert not may(rights, ALICE, "deployments.rm") and may(rights, ALICE, "deployments.rm", "deployment:other")
        assert "denies it to group:staff" in rights.decide(ALICE, "deployments.rm", "deployment:chat", NOW).why
    root = grant("audit.read", Subject(kind="group", name="root", id=0), deny=True)
    assert may(system(), ROOT, "audit.read", "audit:chain") and not may(system(root), ROOT, "audit.read", "audit:chain")


@pytest.mark.parametrize(
    "other",
    [Actor(uid=1000, name="mallory"), Actor(uid=1007, name="alice")],
    ids=["the uid was given to somebody else", "another uid took the name"],
)
def test_a_grant_is_for_a_name_with_its_uid(other: Actor) -> None:
    rights = system(grant("admin", user(ALICE)))
    assert not may(rights, other, "deployments.stop")
    assert "uid 1000" in rights.decide(other, "deployments.stop", "deployment:chat", NOW).why


def test_a_team_is_its_members_users_and_groups() -> None:
    team = Subject(kind="team", name="ml")
    rights = system(grant("user", team), teams=(Team(name="ml", members=(STAFF, user(BOB))),))
    assert may(rights, ALICE, "deployments.use") and may(rights, BOB, "deployments.use")
    assert not may(system(grant("user", team)), ALICE, "deployments.use")


def test_a_role_of_ones_own_stands_for_its_patterns() -> None:
    role = Role(name="starter", allows=("deployments.st*",))
    rights = system(grant("starter", user(ALICE)), roles=(role,))
    assert may(rights, ALICE, "deployments.start") and may(rights, ALICE, "deployments.stop")
    assert not may(rights, ALICE, "deployments.rm")
    assert not may(system(grant("starter", user(ALICE))), ALICE, "deployments.start")


def test_an_auditor_changes_nothing_and_an_admin_does_not_touch_the_trail() -> None:
    changing = {p for p in PERMISSIONS if not p.endswith((".read", ".verify", ".export", ".read-others"))}
    auditor = system(grant("auditor", user(ALICE)))
    assert not {p for p in changing if may(auditor, ALICE, p, "x:y")}
    assert may(auditor, ALICE, "usage.read-others", "usage:all")
    assert not may(auditor, ALICE, "chats.read-others", "chat:x")
    admin = system(grant("admin", user(ALICE)))
    assert {p for p in PERMISSIONS if not may(admin, ALICE, p, "x:y")} == {
        "access.break-glass", "audit.accept", "audit.archive", "chats.read-others",
    }  # fmt: skip


def test_the_built_in_roles_name_permissions_that_there_are() -> None:
    for role in BUILTIN.values():
        assert set(role.allows) <= set(PERMISSIONS) and role.words


# -------------------------------------------------------------------------------------------- handing on

NAMES = st.text("ab", max_size=3)
PATTERNS = st.builds(lambda name, star: name + star, NAMES, st.sampled_from(["", "*"]))
ALL = ["".join(letters) for n in range(6) for letters in product("ab", repeat=n)]


def may_use(uses: Iterable[Use], name: str) -> bool:
    """As the gateway decides it: a denial wins."""
    fits = [use.deny for use in uses if matches(use.scope, f"deployment:{name}")]
    return bool(fits) and not any(fits)


@given(PATTERNS, PATTERNS)
def test_covers_and_overlap_say_what_matching_says(one: str, other: str) -> None:
    ours, theirs = ({name for name in ALL if matches(each, name)} for each in (one, other))
    assert covers(one, other) == (theirs <= ours)
    assert overlap(one, other) == bool(ours & theirs)


SCOPES = st.sampled_from(["*", "deployment:*", "deployment:a*", "deployment:ab", "deployment:b*", "model:*", "model:a"])
WHATS = st.sampled_from(["viewer", "user", "operator", "admin", "deployments.stop", "deployments.*", "models.*", "*"])
TIMES = st.one_of(st.none(), st.floats(NOW - 5, NOW + 50))
SUBJECTS = st.sampled_from([user(ALICE), user(BOB), STAFF])
GRANTS = st.lists(
    st.builds(
        lambda what, subject, scope, deny, until: grant(what, subject, scope, deny=deny, until=until),
        WHATS, SUBJECTS, SCOPES, st.booleans(), TIMES,
    ),
    max_size=6,
)  # fmt: skip
OBJECTS = ["deployment:a", "deployment:ab", "deployment:b", "model:a", "model:b", "daemon:local"]


@given(GRANTS, st.randoms(use_true_random=False))
def test_the_order_of_grants_does_not_matter(grants: list[Grant], shuffle: random.Random) -> None:
    rights = system(*grants)
    shuffle.shuffle(grants)
    other = system(*grants)
    for permission, object in product(("deployments.stop", "models.read"), OBJECTS):
        assert may(rights, ALICE, permission, object) == may(other, ALICE, permission, object)


@given(GRANTS, WHATS, SCOPES, TIMES.filter(lambda t: t is None or t > NOW))
def test_whoever_may_hand_it_on_holds_all_of_it_for_as_long(
    grants: list[Grant], what: str, scope: str, until: float | None
) -> None:
    rights = system(*grants)
    if rights.lacks(ALICE, what, scope, until, NOW):
        return
    for permission in rights.permissions_of(what):
        for object in (each for each in OBJECTS if matches(scope, each)):
            for moment in (NOW, NOW + 60.0 if until is None else until - 1e-3):
                allows = [g for g in grants if g.effect == "allow"]
                assert may(rights, ALICE, permission, object, NOW)
                assert may(system(*allows), ALICE, permission, object, moment)


def test_nobody_grants_more_than_he_holds() -> None:
    rights = system(grant("operator", user(ALICE), "deployment:a*", until=NOW + 10))
    assert rights.lacks(ALICE, "operator", "deployment:ab*", NOW + 10, NOW) == ""
    assert "for so long" in rights.lacks(ALICE, "deployments.stop", "deployment:a*", None, NOW)
    assert "does not hold" in rights.lacks(ALICE, "deployments.stop", "*", NOW + 5, NOW)
    assert "does not hold" in rights.lacks(ALICE, "admin", "deployment:a", NOW + 5, NOW)
    assert "does not hold" in rights.lacks(ROOT, "viewer", "*", None, NOW)
    assert Rights(mode="user", owner_uid=1000).lacks(ALICE, "*", "*", None, NOW) == ""


def there(subject: Subject) -> list[Actor]:
    """The host of these tests: alice and bob, and alice in staff; nobody else."""
    return [actor for actor in (ALICE, BOB) if subject in (user(actor), STAFF)]


def test_one_admin_without_an_end_is_told_from_those_that_end() -> None:
    lasting, ending = grant("admin", user(ALICE)), grant("admin", user(BOB), until=NOW + 5)
    narrow = grant("admin", STAFF, "deployment:*")
    empty = grant("admin", Subject(kind="team", name="nobody"))
    assert system(lasting, ending, narrow, empty).admins(NOW, there) == [lasting]


def test_nobody_is_an_admin_who_is_not_there_or_in_a_group_that_is_empty_or_gone() -> None:
    gone = grant("admin", Subject(kind="user", name="carol", id=1002))
    recycled = grant("admin", Subject(kind="user", name="carol", id=ALICE.uid))
    empty = grant("admin", Subject(kind="group", name="empty", id=3000))
    ghosts = Team(name="ghosts", members=(gone.subject, empty.subject))
    team = grant("admin", Subject(kind="team", name="ghosts"))
    assert system(gone, recycled, empty, team, teams=(ghosts,)).admins(NOW, there) == []
    assert system(recycled).admins(NOW, lambda subject: [ALICE]) == [], "whoever got the uid is somebody else"
    assert system(grant("admin", STAFF)).admins(NOW, there), "alice"
    assert not system(grant("admin", STAFF)).admins(NOW, lambda subject: [BOB]), "bob is not in it"
    mixed = Team(name="ghosts", members=(gone.subject, user(BOB)))
    assert system(team, teams=(mixed,)).admins(NOW, there) == [team]


@pytest.mark.parametrize(
    ("what", "scope", "until", "left"),
    [
        ("access.grant", "*", None, False),
        ("access.*", "access:*", None, False),
        ("admin", "*", NOW + 60, False),
        ("admin", "*", NOW, True),
        ("admin", "deployment:*", None, True),
        ("access.read", "*", None, True),
    ],
)
@pytest.mark.parametrize("whom", [user(ALICE), STAFF, Subject(kind="team", name="ml")], ids=str)
def test_an_admin_who_is_denied_granting_cannot_mend_the_rights_and_is_none(
    what: str, scope: str, until: float | None, left: bool, whom: Subject
) -> None:
    ml = Team(name="ml", members=(user(ALICE),))
    rights = system(grant("admin", user(ALICE)), grant(what, whom, scope, deny=True, until=until), teams=(ml,))
    assert bool(rights.admins(NOW, there)) == left
    assert (rights.standing(NOW) == system(rights.grants[0]).standing(NOW)) == left
