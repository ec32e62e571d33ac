"""A crowd at the gateway with mixed keys, while daemon, replicas and then the gateway too are killed -9.

Without a kill of the gateway all counts agree exactly: what clients got, the lines of usage, and what the engines made.
With one, what ended in its last second or so may lack its line. Nothing is left taken, waiting or open afterwards, and
equal keys have had equal shares. Replicas that are taken away end what they answer. `CORRAL_SOAK_S` is how long each
part takes in `make soak`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import fleet
import psutil
import pytest
from command import ask, corral, free_port, until
from crowd import Crowd, Heard, made

from core.nodes import proc
from core.paths import user_paths

EQUAL = tuple(f"equal{n}" for n in range(5))
SLOTS, REPLICAS = 4, 3
RPM, AT_ONCE = 30, 2
SPOOLED_S = 2.0
"""The spool is written each second; on a busy machine a look may come late."""
MIB = 1 << 20


class Line(NamedTuple):
    key: str
    outcome: str
    status: int
    requests: int
    tokens: int
    began: float
    ended: float


def usage(deployment: str, since: int) -> tuple[list[Line], int]:
    """The lines committed after row `since`, and the last row."""
    with sqlite3.connect(user_paths().database) as db:
        found = db.execute(
            "SELECT key, outcome, status, requests, coalesce(answer_tokens, 0), time - total_s, time FROM usage_lines"
            " WHERE deployment = ? AND seq > ? ORDER BY time",
            (deployment, since),
        ).fetchall()
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM usage_lines").fetchone()
    return [Line(*each) for each in found], last


def count(lines: list[Line], key: str, *outcomes: str) -> int:
    return sum(each.requests for each in lines if each.key == key and each.outcome in outcomes)


def idle() -> dict[str, Any] | None:
    """The gateway's status when nothing runs, waits, or is not committed."""
    corral("ps")  # starts a daemon where none runs
    found = ask("status")["gateway_status"]
    busy = found["in_flight"] or found["queued"] or found["spooled"] or found["state"] != "ready"
    return None if busy else dict(found)


class House:
    """What is served and who asks."""

    def __init__(self, home: Path, clients: int) -> None:
        self.counts = home / "counts"
        self.counts.touch()
        self.port = free_port()
        fleet.install(home, counts=str(self.counts), more=f'[gateway]\nlisten = "127.0.0.1:{self.port}"\n')
        fleet.take(home)
        fleet.deploy("--ctx", str(256 * SLOTS), "--parallel", str(SLOTS), "--replicas", str(REPLICAS), "--wait")
        corral("models", "sample")
        corral("deploy", "smollm2-135m", "--name", "real", "--ctx", "1024", "--parallel", "2", "--wait")
        self.secrets = {name: ask("keys", "create", name)["key"] for name in (*EQUAL, "real")}
        self.secrets["few"] = ask("keys", "create", "few", "--rpm", str(RPM))["key"]
        self.secrets["narrow"] = ask("keys", "create", "narrow", "--concurrency", str(AT_ONCE))["key"]
        self.ids = {each["name"]: each["id"] for each in ask("keys", "ls")}
        each = max(SLOTS * REPLICAS, clients // (len(EQUAL) + 2))
        self.clients = {name: each for name in (*EQUAL, "few", "narrow")}
        self.row = 0
        self._replicas = REPLICAS
        self.killed: list[tuple[str, float]] = []

    async def part(self, seconds: float, victims: tuple[str, ...], every: float) -> tuple[Crowd, Crowd]:
        """Let all ask for so long while now and then something is killed."""
        one, real = Crowd(self.port, "one"), Crowd(self.port, "real", max_tokens=12)
        async with asyncio.TaskGroup() as group:
            for _ in range(max(self.clients.values())):  # in turns, so that no key comes first with all its clients
                for name in self.clients:
                    group.create_task(one.client(name, self.secrets[name]))
            for _ in range(3):
                group.create_task(real.client("real", self.secrets["real"]))
            await self._fire(seconds, victims, every)
            one.over.set()
            real.over.set()
        return one, real

    async def _fire(self, seconds: float, victims: tuple[str, ...], every: float) -> None:
        deadline = time.monotonic() + seconds
        order = itertools.cycle(victims)
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(left, random.uniform(0.5, 1.5) * every))
            if victims and left > every:
                await asyncio.to_thread(self._kill, next(order))

    def _kill(self, what: str) -> None:
        if what == "scale":
            self._replicas = REPLICAS - 1 if self._replicas == REPLICAS else REPLICAS
            corral("scale", "one", str(self._replicas))
            return
        there = [each["pid"] for each in ask("ps") if each["state"] == "ready" and each["deployment"] == what]
        status = ask("status")
        match what:
            case "daemon":
                pid = status["daemon"]["pid"]
            case "gateway":
                pid = status["gateway_status"]["pid"]
            case _:
                pid = random.choice(there) if there else None
        if pid is not None and proc.start_time(pid) is not None:
            self.killed.append((what, time.time()))
            os.kill(pid, signal.SIGKILL)

    def settle(self) -> dict[str, Any]:
        return dict(until(idle, 60))

    def lines(self, deployment: str) -> list[Line]:
        return usage(deployment, self.row)[0]

    def begin(self) -> None:
        self.row = usage("one", 0)[1]
        self.counts.write_text("")
        self.killed.clear()


def exact(house: House, one: Crowd, real: Crowd) -> None:
    """What the gateway was not killed in: all counts agree."""
    lines = house.lines("one")
    for name in house.clients:
        mine = [each for each in one.heard if each.key == name]
        told = Counter(each.outcome for each in mine)
        refused = Counter(each.status for each in mine if each.outcome == "refused")
        id = house.ids[name]
        assert not told["cut"] and not told["nobody"], [each for each in mine if each.outcome in ("cut", "nobody")][:3]
        assert count(lines, id, "ok") == told["whole"], name
        assert count(lines, id, "replica-died") == told["error"] + refused[502], name
        turned_away = sum(each.requests for each in lines if each.key == id and each.status in (429, 503))
        assert turned_away == refused[429] + refused[503], name
    whole, pieces = one.of("whole"), sum(each.pieces for each in one.heard)
    deaths = sum(what == "one" for what, _ in house.killed)
    ok = [each for each in lines if each.outcome == "ok"]
    assert all(each.pieces == 24 for each in whole) and all(each.tokens == 24 for each in ok)
    engines = list(made(house.counts))
    assert 0 <= len(ok) - sum(done for _, done in engines) <= deaths * SLOTS
    # A stream cut off is billed for what was made: what clients got, and no more than a token a slot beside it.
    assert abs(sum(each.tokens for each in lines) - pieces) <= deaths * SLOTS
    assert count(house.lines("real"), house.ids["real"], "ok") == len(real.of("whole")) > 0


def limits_held(house: House) -> None:
    """Never one too many in any minute, or at once."""
    lines = house.lines("one")
    few = sorted(each.began for each in lines if each.key == house.ids["few"] and each.status != 429)
    assert all(later - earlier > 59.99 for earlier, later in zip(few, few[RPM:], strict=False))
    narrow = [each for each in lines if each.key == house.ids["narrow"] and each.status != 429]
    steps = sorted([(each.began + 0.005, 1) for each in narrow] + [(each.ended, -1) for each in narrow])
    assert max(itertools.accumulate(step for _, step in steps)) <= AT_ONCE


def shares(house: House, one: Crowd) -> dict[str, int]:
    """Whole answers of each equal key: no farther than 10 % from their mean."""
    had = Counter(each.key for each in one.of("whole"))
    found = {name: had[name] for name in EQUAL}
    even = sum(found.values()) / len(found)
    assert all(abs(each - even) <= 0.1 * even for each in found.values()), found
    return found


def lost_at_most_the_last_second(house: House, one: Crowd) -> dict[str, int]:
    """Lines may lack for what ended just before a gateway was killed, and be too many for what was on its way."""
    kills = [at for what, at in house.killed if what == "gateway"]
    assert kills

    def near(each: Heard) -> bool:
        return any(at - SPOOLED_S <= each.at <= at + 0.5 for at in kills)

    lines, whole = house.lines("one"), one.of("whole")
    ok = sum(each.outcome == "ok" for each in lines)
    assert len(whole) - sum(map(near, whole)) <= ok <= len(whole) + sum(map(near, one.of("cut")))
    for each in one.of("cut", "nobody"):
        assert any(at - 0.5 <= each.at <= at + 20 for at in kills), each
    return {"whole": len(whole), "lines": ok, "kills": len(kills)}


def heal() -> None:
    """What was killed so often that it waits for long, or is given up, begins anew."""
    corral("restart", "one", "--wait")


async def soak(home: Path, seconds: float, clients: int, every: float, memory: int) -> None:
    house = House(home, clients)
    gateway = psutil.Process(house.settle()["pid"])
    warm, _ = await house.part(2, (), 1)
    assert warm.of("whole")
    house.settle()
    until(
        lambda: not gateway.net_connections("tcp") or all(c.status == "LISTEN" for c in gateway.net_connections("tcp"))
    )
    files = until(lambda: quiet(gateway))
    before = gateway.memory_info().rss
    house.begin()
    one, real = await house.part(seconds, ("one", "daemon", "real"), every)
    house.settle()
    exact(house, one, real)
    limits_held(house)
    print({"killed": Counter(what for what, _ in house.killed), "shares": shares(house, one)})
    until(lambda: quiet(gateway) and gateway.num_fds() <= files + 2)
    grown = gateway.memory_info().rss - before
    print({"gateway_grew_mib": round(grown / MIB, 1), "descriptors": (files, gateway.num_fds())})
    assert grown < memory
    heal()
    drained, _ = await house.part(seconds / 2, ("scale",), 2)
    told = Counter((each.outcome, each.status) for each in drained.heard)
    assert set(told) == {("whole", 200), ("refused", 429)}, told  # replicas that go end what they answer
    house.settle()
    heal()
    house.begin()
    one, _ = await house.part(seconds, ("gateway", "one", "daemon"), every)
    house.settle()
    print({"killed": Counter(what for what, _ in house.killed), **lost_at_most_the_last_second(house, one)})
    left = [each.name for each in user_paths().gateway.rglob("*") if each.name.endswith(".new")]
    assert not left
    corral("audit", "verify")
    assert all(replica["slots_busy"] == 0 for replica in ask("ps"))


def quiet(gateway: psutil.Process) -> int:
    """Descriptors of the gateway while nobody is connected for programs; 0 before that."""
    there = [each for each in gateway.net_connections("tcp") if each.status != psutil.CONN_LISTEN]
    return 0 if there else gateway.num_fds()


@pytest.mark.journey
@pytest.mark.timeout(300)
async def test_a_crowd_for_a_while(home: Path, sample: Path) -> None:
    await soak(home, 6, 84, 2, 32 * MIB)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_crowd_of_200(home: Path, sample: Path) -> None:
    await soak(home, float(os.environ.get("CORRAL_SOAK_S") or 300), 200, 5, 48 * MIB)
