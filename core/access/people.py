"""Users and groups of the host, by name: looked up in a thread, since they may come from a directory that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import msgspec

from core.errors import Invalid, NotAllowed, NotFound, TimedOut
from core.nouns import Actor, Subject

T = TypeVar("T")
LOOK_UP_S = 10.0
NOBODY = 2**32 - 2
"""A uid that no user has."""
_SUBJECT = re.compile(r"(?:(?P<kind>user|group|team|account):)?(?P<name>[^\s:*/\x00-\x1f]{1,128})")
SUBJECTS = "user:NAME, group:NAME, team:NAME or account:NAME"
OWNERS = "user:NAME, team:NAME or account:NAME"
"""What is said for who may hold rights, and for who may have keys."""


async def subject_named(text: str, kinds: str = SUBJECTS) -> Subject:
    """`user:alice`, `group:staff`, `team:ml` or `account:ci`, with its uid or gid. `kinds`: what may be said. Raises
    `Invalid`, `NotFound`, `TimedOut`."""
    match = _SUBJECT.fullmatch(text)
    if match is None or match["kind"] is None:
        raise Invalid(f"{text!r} is nobody", todo=f"say {kinds}")
    kind, name = match["kind"], match["name"]
    if kind == "team":
        return Subject(kind="team", name=name)
    if kind == "account":
        return Subject(kind="account", name=name)
    if kind == "user":
        return Subject(kind="user", name=name, id=(await _look_up(_user, name)).uid)
    return Subject(kind="group", name=name, id=await _look_up(_group, name))


async def actor_named(text: str) -> Actor:
    """A user as an actor with all groups. Raises `Invalid`, `NotFound`, `TimedOut`."""
    match = _SUBJECT.fullmatch(text)
    if match is None or match["kind"] not in (None, "user"):
        raise Invalid(f"{text!r} is no user", todo="say NAME or user:NAME")
    return await _look_up(_user, match["name"])


async def as_now(actor: Actor) -> Actor:
    """Somebody who asked before, as the host knows him now: with those of his groups that he is still in. Raises
    `NotAllowed` where he has left it, `TimedOut`."""

    def look() -> Actor | None:
        try:
            found = pwd.getpwuid(actor.uid)
        except KeyError:
            return actor if actor.name == f"uid:{actor.uid}" else None  # in containers not everybody has a name
        if found.pw_name != actor.name:
            return None
        groups = {found.pw_gid, *os.getgrouplist(found.pw_name, found.pw_gid)}
        return msgspec.structs.replace(actor, groups=tuple(each for each in actor.groups if each in groups))

    now = await _in_time(look, f"{actor.name} was")
    if now is None:
        raise NotAllowed(
            f"{actor.name} is not on this host any more", f"uid {actor.uid} is nobody, or somebody else",
            "somebody who may asks for it anew",
        )  # fmt: skip
    return now


async def people_of(
    subjects: Iterable[Subject], enough: Callable[[Subject, Actor], bool]
) -> dict[Subject, tuple[Actor, ...]]:
    """Who these users and groups of the host are now: nobody, where it knows none; of a group all members, or those up
    to the first that is `enough`, since a look-up of thousands takes a directory long. Raises `TimedOut`."""

    def look() -> dict[Subject, tuple[Actor, ...]]:
        return {each: tuple(_up_to(partial(enough, each), _actors(each))) for each in subjects}

    return await _in_time(look, "users and groups were")


async def group_of(name: str) -> int:
    """The gid of a group. Raises `NotFound`, `TimedOut`."""
    return await _look_up(_group, name)


async def names_of(uids: Iterable[int]) -> dict[int, str]:
    """The names of these users; one that has left the host is not in it. Raises `TimedOut`."""

    def look() -> dict[int, str]:
        found = {}
        for uid in uids:
            try:
                found[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                continue
        return found

    return await _in_time(look, "users were")


async def name_and_group(uids: Iterable[int]) -> dict[int, tuple[str, str]]:
    """The name and first group of these users; one that has left the host is not in it. Raises `TimedOut`."""

    def look() -> dict[int, tuple[str, str]]:
        found = {}
        for uid in uids:
            try:
                user = pwd.getpwuid(uid)
            except (KeyError, ValueError, OverflowError):  # no uid has more than 32 bits
                continue
            try:
                found[uid] = (user.pw_name, grp.getgrgid(user.pw_gid).gr_name)
            except KeyError:
                found[uid] = (user.pw_name, str(user.pw_gid))
        return found

    return await _in_time(look, "users were")


async def group_names(gids: Iterable[int]) -> list[str]:
    """The names of these groups; the number where there is none. Raises `TimedOut`."""

    def look() -> list[str]:
        found = []
        for gid in gids:
            try:
                found.append(grp.getgrgid(gid).gr_name)
            except KeyError:
                found.append(str(gid))
        return found

    return await _in_time(look, "groups were")


async def _in_time(look: Callable[[], T], what: str) -> T:
    try:
        async with asyncio.timeout(LOOK_UP_S):
            return await asyncio.to_thread(look)
    except TimeoutError:
        raise TimedOut(
            f"{what} not looked up", f"the host did not answer for {LOOK_UP_S:.0f} s", "look at its directory"
        ) from None


async def _look_up(look: Callable[[str], T], name: str) -> T:
    try:
        return await _in_time(lambda: look(name), f"{name} was")
    except (KeyError, ValueError):
        raise NotFound(f"this host knows no {name!r}", todo="getent passwd; getent group") from None


def _user(name: str) -> Actor:
    found = pwd.getpwnam(name)
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Actor(uid=found.pw_uid, name=found.pw_name, through="api", groups=tuple(sorted(set(groups))))


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _up_to(enough: Callable[[Actor], bool], actors: Iterable[Actor]) -> Iterator[Actor]:
    for each in actors:
        yield each
        if enough(each):
            return


def _actors(subject: Subject) -> Iterator[Actor]:
    for name in [subject.name] if subject.kind == "user" else _members(subject.id):
        try:
            yield _user(name)
        except KeyError:
            continue  # groups go on naming users who have left


def _members(gid: int) -> Iterator[str]:
    """Those that the group names, and those whose first group it is."""
    with contextlib.suppress(KeyError):
        yield from grp.getgrgid(gid).gr_mem
    yield from (user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)
