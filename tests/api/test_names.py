"""Names of callers: looked up once, and a directory that does not answer holds up nobody but the caller."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from core.api import peer
from core.api.peer import Names


async def test_a_name_is_looked_up_once() -> None:
    asked: list[int] = []
    names = Names(lambda uid: asked.append(uid) or f"user{uid}")
    assert [await names.of(7), await names.of(7), await names.of(8)] == ["user7", "user7", "user8"]
    assert asked == [7, 8]
    names.close()


async def test_a_name_is_believed_for_a_minute_and_longer_while_the_directory_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user who was renamed, or whose uid was given to somebody else, is not taken for the one before."""
    monkeypatch.setattr(peer, "LOOKUP_S", 0.1)
    now, name, silent = [0.0], ["ann"], threading.Event()
    names = Names(lambda uid: name[0] if name[0] else str(silent.wait(20)), clock=lambda: now[0])
    assert await names.of(7) == "ann"
    name[0] = "bob"
    now[0] = peer.KNOWN_S - 1
    assert await names.of(7) == "ann"
    now[0] = peer.KNOWN_S
    assert await names.of(7) == "bob"
    name[0], now[0] = "", 3 * peer.KNOWN_S
    assert await names.of(7) == "bob"
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
