"""kill -9 of daemon, gateway, keeper and engine at random moments, while people deploy, scale, ask and remove.

After each round: what the command said done is what is wanted, nothing runs twice, and nothing runs that the database
does not know. At the end, when all has settled: the chain verifies, each intent has its outcome, each answer is whole
or marked. `CORRAL_KILL_SEED` repeats a run's choices (not its timing).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import command
import pytest
from faults import open_intents, tiny

from core.client import Client
from core.errors import Conflict, CorralError, NoDaemon, NoRoom, NotFound, TimedOut
from core.keeper import keeper
from core.nodes import proc
from core.nouns import ChatOptions, DeploymentSpec
from core.paths import Paths, user_paths

DOUBLE = Path(__file__).with_name("engine_double.py")
ANSWER = "".join(f"w{n} " for n in range(24))
FAST, REAL = ("one", "two"), "real"
ENDED = ("done", "cut", "failed", "stopped")
CONFIG = """
[capacity]
reserve_bytes = 1
[replicas]
backoff_s = [{pauses}]
steady_s = 0
drain_timeout_s = 0.2
stop_timeout_s = 4
[engines]
llama_server = "{engine}"
"""


class Wish(NamedTuple):
    """What is wanted of one deployment."""

    ctx: int
    replicas: int
    wanted: str


class Process(NamedTuple):
    """A living keeper or engine of this home, and the launch that it is for."""

    pid: int
    start: int
    launch: str
    what: str


class Herd:
    """One home under fire: asks through the public face, and remembers what it was told."""

    def __init__(self, home: Path, seed: int) -> None:
        self.paths: Paths = user_paths()
        self.seed = seed
        self.client = Client(self.paths.socket)
        self.wishes: dict[str, set[Wish | None]] = {name: {None} for name in (*FAST, REAL)}
        """What may be wanted of each name: one, or two after an answer that was lost."""
        self.asked: dict[str, list[str]] = {}
        """Acknowledged questions by chat."""
        self.owners: dict[str, str] = {}
        engine = home / "llama-server"
        engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{DOUBLE}" "$@"\n')
        engine.chmod(0o755)
        pauses = ", ".join(["0.05"] * 500)
        self.paths.config.write_text(CONFIG.format(pauses=pauses, engine=engine))

    # ---------------------------------------------------------------------------------------- asking

    async def call(self, verb: Callable[[], Awaitable[Any]]) -> Any:
        """Do it, with a daemon started by the command where none answers. Raises what a caller would see."""
        for _ in range(6):
            try:
                return await verb()
            except NoDaemon as error:
                if "went away" in error.what or not await self._unheard():
                    raise
        return await verb()

    async def _unheard(self) -> bool:
        """No daemon listens: start one as any terminal does."""
        try:
            await self.client.status()
        except (NoDaemon, TimedOut):
            await asyncio.to_thread(command.run, "ps")
        return True

    async def settle(
        self, name: str, verb: Callable[[], Awaitable[Any]], after: Callable[[Wish | None], Wish | None]
    ) -> None:
        """One change of one name: both outcomes are possible only if the answer was lost."""
        (before,) = self.wishes[name]
        self.wishes[name] = {before, after(before)}
        tries = 0

        async def once() -> Any:
            nonlocal tries
            tries += 1
            return await verb()

        try:
            await self.call(once)
        except (Conflict, NoRoom, NotFound):
            if tries == 1:
                self.wishes[name] = {before}
            else:  # the first try may have been done by a daemon that died before it could say so
                await self.look(name)
        except (NoDaemon, TimedOut):
            await self.look(name)
        else:
            self.wishes[name] = {after(before)}

    async def look(self, name: str) -> None:
        """Ask what is wanted of a name after a lost answer; it must be one of the two."""
        found = await self.wish(name)
        assert found in self.wishes[name], f"{name} is {found}, acknowledged were {self.wishes[name]}"
        self.wishes[name] = {found}

    async def wish(self, name: str) -> Wish | None:
        while True:
            try:
                found = await self.call(lambda: self.client.deployment(name))
            except NotFound:
                return None
            except (NoDaemon, TimedOut):
                continue
            return Wish(found.spec.ctx, found.spec.replicas, found.wanted)

    # ---------------------------------------------------------------------------------------- what people do

    async def act(self, name: str, dice: random.Random) -> None:
        client, (wish,) = self.client, self.wishes[name]
        if wish is None or dice.random() < 0.2:
            spec = DeploymentSpec(
                name=name, ctx=dice.choice((256, 512)), replicas=1 if name == REAL else dice.randint(0, 2),
                model="smollm2-135m" if name == REAL else "tiny",
                engine="xllamacpp" if name == REAL else "llama-server",
            )  # fmt: skip
            made = Wish(spec.ctx, spec.replicas, "running")
            await self.settle(name, lambda: client.deploy(spec, replace=True), lambda _: made)
            return
        verb = dice.choice(("scale", "stop", "start", "restart", "rm"))
        if verb == "scale":
            count = 1 if name == REAL else dice.randint(0, 3)
            await self.settle(name, lambda: client.scale(name, count), lambda old: old and old._replace(replicas=count))
        elif verb == "stop":
            await self.settle(
                name, lambda: client.stop_deployment(name), lambda old: old and old._replace(wanted="stopped")
            )
        elif verb == "rm":
            await self.settle(name, lambda: client.remove_deployment(name), lambda _: None)
        else:
            call = client.start_deployment if verb == "start" else client.restart_deployment
            await self.settle(name, lambda: call(name), lambda old: old and old._replace(wanted="running"))

    async def ask(self, name: str, dice: random.Random) -> None:
        """A question in a new chat or an old one; nobody waits for its answer."""
        try:
            mine = [chat for chat, owner in self.owners.items() if owner == name]
            if not mine or dice.random() < 0.3:
                chat = (await self.call(lambda: self.client.create_chat(name, ChatOptions()))).id
                self.asked[chat], self.owners[chat] = [], name
            else:
                chat = dice.choice(mine)
            question = f"q{dice.getrandbits(32)}"
            await self.call(lambda: self.client.ask(chat, question, forget_oldest=True))
            self.asked[chat].append(question)
        except CorralError:
            return

    # ---------------------------------------------------------------------------------------- kill -9

    def processes(self) -> list[Process]:
        """Keepers and engines of this home, by their working folder; all alive at one moment."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    folder = Path(os.readlink(f"/proc/{entry}/cwd"))
                    command = Path(f"/proc/{entry}/cmdline").read_bytes()
                except OSError:
                    continue
                start = proc.start_time(int(entry))
                if folder.parent == self.paths.launches and start is not None:
                    what = "keeper" if os.fsencode(keeper.__file__) in command else "engine"
                    found.append(Process(int(entry), start, folder.name, what))
        return [each for each in found if proc.start_time(each.pid) == each.start]

    def owner(self, launch: str) -> str:
        """Whose launch it is; empty before its record is written."""
        try:
            return str(json.loads((self.paths.records / launch / "launch.json").read_bytes())["owner"])
        except (OSError, ValueError):
            return ""

    async def newborn(self, seconds: float) -> None:
        """Wait for a keeper that has written nothing yet, but not for longer than this."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and all(self.owner(each.launch) for each in self.processes()):
            await asyncio.sleep(0.002)

    def kill(self, dice: random.Random, only: str = "") -> list[str]:
        """One to three of them, chosen anew from what lives now."""
        there = [(f"{each.what} of {self.owner(each.launch)}", each.pid, each.start) for each in self.processes()]
        try:
            daemon = json.loads(self.paths.daemon_lock.read_bytes())["pid"]
            there += [("daemon", daemon, proc.start_time(daemon))] * max(1, len(there) // 2)
        except (OSError, ValueError, KeyError):
            pass
        there = [each for each in there if only in each[0]]
        killed = []
        for what, pid, start in dice.sample(there, min(len(there), dice.choice((1, 1, 2, 3)))):
            if start is not None and proc.start_time(pid) == start:
                os.kill(pid, signal.SIGKILL)
                killed.append(what)
        return killed

    # ---------------------------------------------------------------------------------------- what must hold

    def known(self) -> set[str]:
        """Launches that the database knows as begun and not ended; the gateway's by their intent."""
        db = sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True)
        try:
            open_ones = {row[0] for row in db.execute("SELECT id FROM launches WHERE ended_at IS NULL")}
            gateways = {
                row[0]
                for row in db.execute("SELECT request FROM audit WHERE verb IN ('gateway.start', 'gateway.replace')")
            }
            return open_ones | gateways
        finally:
            db.close()

    def intents(self) -> list[tuple[Any, ...]]:
        """Intents without an outcome."""
        db = sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True)
        try:
            return open_intents(db)
        finally:
            db.close()

    def check_processes(self) -> None:
        """No second copy and no orphan, at this very moment."""
        living = self.processes()
        copies: dict[str, set[str]] = {}
        for each in living:
            if owner := self.owner(each.launch):
                copies.setdefault(owner, set()).add(each.launch)
        twice = {owner: launches for owner, launches in copies.items() if len(launches) > 1}
        assert not twice, f"a second copy: {twice}"
        known = self.known()
        orphans = [each for each in living if each.launch not in known]
        if orphans:  # it may have ended between the two looks
            orphans = [each for each in orphans if proc.start_time(each.pid) == each.start]
        assert not orphans, f"nothing explains {orphans}"

    async def round(self, number: int) -> list[str]:
        dice = random.Random(f"{self.seed}/{number}")
        killed: list[str] = []

        async def work(name: str, dice: random.Random) -> None:
            await asyncio.sleep(dice.uniform(0, 0.3))
            await self.act(name, dice)

        async def chat(dice: random.Random) -> None:
            await asyncio.sleep(dice.uniform(0, 0.3))
            await self.ask(dice.choice(FAST), dice)

        async def shoot(dice: random.Random) -> None:
            for _ in range(dice.choice((1, 1, 2))):
                pause = dice.uniform(0, 0.3)
                if dice.random() < 0.3:
                    await self.newborn(pause + 0.2)  # the moment in which only a lock says that it lives
                    killed.extend(self.kill(dice, only="daemon"))
                else:
                    await asyncio.sleep(pause)
                    killed.extend(self.kill(dice))

        async with asyncio.TaskGroup() as group:
            for name in FAST if number % 4 else (*FAST, REAL):
                group.create_task(work(name, random.Random(dice.random())))
            group.create_task(chat(random.Random(dice.random())))
            group.create_task(shoot(random.Random(dice.random())))
        self.check_processes()
        for name in self.wishes:
            await self.look(name)
        return killed

    async def settled(self, seconds: float) -> None:
        """Wait until what runs is what is wanted, and check that it is just that."""
        deadline = time.monotonic() + seconds
        while (wrong := await self._unsettled()) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert not wrong, f"not settled after {seconds:.0f} s: {wrong}"

    async def _unsettled(self) -> str:
        try:
            deployments = await self.call(self.client.deployments)
            replicas = await self.call(self.client.replicas)
            gateway = (await self.call(self.client.status)).gateway_status
        except (NoDaemon, TimedOut) as error:
            return str(error)
        for each in deployments:
            if each.state != ("stopped" if each.wanted == "stopped" or not each.spec.replicas else "ready"):
                return f"{each.spec.name} is {each.state}: {each.reason}"
        should = {f"{d.spec.name}/{i}" for d in deployments for i in range(d.spec.replicas)}
        if {each.id for each in replicas} != should:
            return f"replicas {[each.id for each in replicas]}, wanted {sorted(should)}"
        if gateway.state != "ready":
            return f"the gateway is {gateway.state}"
        runs = {each.launch for each in replicas if each.state == "ready"}
        living = {each.launch for each in self.processes() if self.owner(each.launch) != "gateway"}
        if runs != living:
            return f"ready are launches {runs}, alive {living}"
        return f"open intents: {left}" if (left := self.intents()) else ""

    async def answers(self) -> None:
        """Every question that was acknowledged is there, and its answer is whole, or marked and its beginning."""
        deadline = time.monotonic() + 30
        for chat, questions in self.asked.items():
            while True:
                detail = await self.call(lambda chat=chat: self.client.chat(chat))  # type: ignore[misc]
                if all(turn.state in ENDED for turn in detail.messages) or time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.1)
            # Once each: an answer that was lost on its way makes the client ask again.
            there = list(dict.fromkeys(turn.question for turn in detail.messages if turn.question in questions))
            assert there == questions, f"chat {chat} lost a question"
            for turn in detail.messages:
                assert turn.state in ENDED, f"{turn.id} is {turn.state}"
                assert turn.answer == ANSWER if turn.state == "done" else ANSWER.startswith(turn.answer), turn


async def rounds(home: Path, folder: Path, count: int, every: int) -> None:
    """`count` rounds, with all settled and looked at after each `every`."""
    seed = int(os.environ.get("CORRAL_KILL_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_KILL_SEED={seed}")
    herd = Herd(home, seed)
    for args in (("models", "sample"), ("models", "import", str(tiny(folder)), "--name", "tiny")):
        await asyncio.to_thread(command.run, *args)
    for number in range(1, count + 1):
        began = time.monotonic()
        killed = await herd.round(number)
        print(f"round {number}: {', '.join(killed) or 'nothing'} in {time.monotonic() - began:.1f} s")
        if number % every == 0 or number == count:
            await herd.settled(90)
            await herd.answers()
            herd.check_processes()
            report = await herd.call(herd.client.verify_audit)
            assert report.ok, report.message
            print(f"settled, {report.records} records, {time.monotonic() - began:.1f} s")


@pytest.mark.journey
@pytest.mark.timeout(400)
async def test_25_rounds(home: Path, sample: Path, tmp_path: Path) -> None:
    await rounds(home, tmp_path, 25, 25)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_1000_rounds(home: Path, sample: Path, tmp_path: Path) -> None:
    await rounds(home, tmp_path, 1000, 25)
