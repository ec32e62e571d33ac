"""Names of callers: looked up once, and a directory that does not answer holds up nobody but the caller."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from core.api import peer
from core.api.peer import Names


async def test_a_name_is_looked_up_once_for_a_burst_of_requests() -> None:
    asked: list[int] = []
    names = Names(lambda uid: asked.append(uid) or f"user{uid}", clock=lambda: 0.0, changed=tuple)
    assert [await names.of(7), await names.of(7), await names.of(8)] == ["user7", "user7", "user8"]
    assert asked == [7, 8]
    names.close()


async def test_who_got_the_uid_of_somebody_who_left_is_not_taken_for_him_at_the_next_request() -> None:
    """`userdel ann; useradd -u 7 eve`: the host's own files have changed, so nothing from before counts."""
    files, host = [((1,),)], {7: "ann"}
    names = Names(lambda uid: host.get(uid, f"uid:{uid}"), clock=lambda: 0.0, changed=lambda: files[0])
    assert await names.of(7) == "ann"
    del host[7]
    files[0] = ((2,),)
    assert await names.of(7) == "uid:7"
    host[7] = "eve"
    files[0] = ((3,),)
    assert await names.of(7) == "eve"
    names.close()


async def test_a_change_while_a_name_is_looked_up_makes_it_old_at_once() -> None:
    files, host = [((1,),)], ["ann"]

    def look_up(uid: int) -> str:
        found, host[0], files[0] = host[0], "eve", ((2,),)
        return found

    names = Names(look_up, clock=lambda: 0.0, changed=lambda: files[0])
    assert await names.of(7) == "ann"
    assert await names.of(7) == "eve"
    names.close()


async def test_a_directorys_name_is_believed_for_two_seconds_and_not_longer_while_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its changes are told by nobody; and while it does not answer the uid, which holds no right, stands for it."""
    monkeypatch.setattr(peer, "LOOKUP_S", 0.1)
    now, name, silent = [0.0], ["ann"], threading.Event()
    names = Names(lambda uid: name[0] if name[0] else str(silent.wait(20)), clock=lambda: now[0], changed=tuple)
    assert await names.of(7) == "ann"
    name[0] = "bob"
    now[0] = 1.9
    assert await names.of(7) == "ann"
    now[0] = 2.0
    assert await names.of(7) == "bob"
    name[0], now[0] = "", 4.0
    assert await names.of(7) == "uid:7"
    silent.set()
    names.close()


async def test_a_directory_that_does_not_answer_costs_the_caller_the_name_and_the_daemon_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer, "LOOKUP_S", 0.1)
    gate = threading.Event()
    names = Names(lambda uid: "late" if gate.wait(20) else "")
    callers = [asyncio.create_task(names.of(uid)) for uid in range(100)]
    longest, last = 0.0, time.monotonic()
    while not all(caller.done() for caller in callers):
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert [await caller for caller in callers] == [f"uid:{uid}" for uid in range(100)]
    assert longest < 0.09, "the loop went on all the time"
    assert sum(thread.name.startswith("names") for thread in threading.enumerate()) == 1
    gate.set()
    assert await names.of(3) == "late", "asked again, and told"
    names.close()


async def test_a_uid_without_a_name_is_told_as_a_number() -> None:
    names = Names()
    assert await names.of(4_000_000_001) == "uid:4000000001"
    assert "root" in Path("/etc/passwd").read_text()
    assert await names.of(0) == "root"
    names.close()
