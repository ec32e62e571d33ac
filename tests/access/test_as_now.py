"""Somebody who asked before, as the host knows him when it is carried out."""

import grp
import os
import pwd

import pytest

from core.access.people import as_now
from core.errors import NotAllowed
from core.nouns import Actor

UID = os.getuid()


def unused() -> int:
    return next(n for n in range(54321, 65000) if not _known(n))


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


async def test_he_has_the_groups_that_he_had_and_still_is_in() -> None:
    me = pwd.getpwuid(UID)
    foreign = max(each.gr_gid for each in grp.getgrall()) + 1
    now = await as_now(Actor(uid=UID, name=me.pw_name, through="cli", groups=(me.pw_gid, foreign)))
    assert now == Actor(uid=UID, name=me.pw_name, through="cli", groups=(me.pw_gid,))
    assert (await as_now(Actor(uid=UID, name=me.pw_name))).groups == (), "none that he did not have when he asked"


async def test_one_who_left_or_whose_number_is_somebody_elses_may_nothing() -> None:
    for gone in (Actor(uid=unused(), name="ada"), Actor(uid=UID, name="nobody-of-this-name")):
        with pytest.raises(NotAllowed, match="not on this host any more"):
            await as_now(gone)


async def test_one_without_a_name_is_who_he_was() -> None:
    nameless = Actor(uid=unused(), name=f"uid:{unused()}", groups=(5,))
    assert await as_now(nameless) == nameless
