"""A full disk and a broken one at every write that the daemon makes to the store, and kill -9 at each of them.

The n-th write fails, once or from then on until the fault is lifted, while people deploy, ask, scale and remove. Every
action is then done, or refused with a sentence and nothing of it is there; what was acknowledged stays, also through a
restart; the chain verifies; and once the fault is lifted all works again. The suite takes a sample of the writes,
`make soak` takes all of a start, and of a running day's 800 the first two and the last of each run of writes to one
file (a commit's frames, for SQLite one error whichever fails), some 320; `CORRAL_FAULT_EACH=1` takes all.
`CORRAL_FAULT_SEED` repeats a sample, `CORRAL_FAULT_FROM` begins at a later one and `CORRAL_FAULT_STEP` takes every so
many of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import os
import pwd
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import faults
import psutil
import pytest
from command import until
from faults import KILL, Disk, Program, edge

from core.client import Client
from core.errors import CorralError, NoDaemon, NotFound, StoreError, TimedOut
from core.nodes.proc import start_time
from core.nouns import ChatOptions, DeploymentSpec, ImportJob
from core.paths import Paths, user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

DOUBLE = Path(__file__).with_name("engine_double.py")
CONFIG = """
[capacity]
reserve_bytes = 1
[replicas]
backoff_s = [0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05]
drain_timeout_s = 0.2
stop_timeout_s = 4
[engines]
llama_server = "{engine}"
"""
BROKEN = "the daemon failed on this request"
"""What the daemon says of an error that nobody foresaw: here it is always a bug."""
FAULTS = [(error, lasting) for error in (errno.ENOSPC, errno.EDQUOT, errno.EIO) for lasting in (False, True)]

FROM = int(os.environ.get("CORRAL_FAULT_FROM") or 1)
"""The first write of the long runs: to go on where one has failed."""
STEP = int(os.environ.get("CORRAL_FAULT_STEP") or 1)
"""From one to the next in the long runs."""

EACH = bool(os.environ.get("CORRAL_FAULT_EACH"))
"""Every single write of a running day."""

Wish = tuple[int, str] | None
"""Replicas and what is wanted; None: no such deployment."""


@pytest.fixture
def disk(library: Path, home: Path, tmp_path: Path) -> Disk:
    engine = home / "llama-server"
    engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{DOUBLE}" "$@"\n')
    engine.chmod(0o755)
    user_paths().config.write_text(CONFIG.format(engine=engine))
    return Disk(library, tmp_path / "control")


@pytest.fixture
def program(disk: Disk, tmp_path: Path) -> Iterator[Program]:
    found = Program(disk, tmp_path / "said")
    yield found
    if found.alive():
        found.end(9)


def sound(error: CorralError) -> None:
    """It is a sentence that somebody meant to say."""
    assert error.what and error.what != BROKEN, error
    assert not isinstance(error, TimedOut), error


class Life:
    """What people did with one home, and what they were told."""

    def __init__(self, program: Program) -> None:
        self.program, self.disk = program, program.disk
        self.paths: Paths = user_paths()
        self.client = Client(self.paths.socket)
        self.wishes: dict[str, set[Wish]] = {}
        self.chats: dict[str, set[bool]] = {}
        """Whether a chat should be there."""
        self.asked: dict[str, list[str]] = {}
        self.done: set[tuple[str, str]] = set()
        """Verb and object of what was acknowledged."""
        self.told: list[str] = []

    # ---------------------------------------------------------------------------------------- what people do

    async def settle(self, name: str, verb: str, call: Callable[[], Awaitable[Any]], after: Wish) -> None:
        """One change of one name: done, or refused and as before."""
        before = self.wishes.get(name, {None})
        self.wishes[name] = before | {after}
        try:
            await call()
        except NotFound:
            assert None in before
            self.wishes[name] = {None}
        except NoDaemon:
            await self.killed()
        except CorralError as error:
            sound(error)
            self.told.append(str(error))
            if "probably" not in error.what:
                self.wishes[name] = before
            assert await self.wish(name) in self.wishes[name], f"{name} is half done after: {error}"
        else:
            self.wishes[name] = {after}
            self.done.add((verb, f"deployment:{name}"))

    async def killed(self) -> None:
        """Nobody answers: that is only right if the daemon was killed."""
        assert self.program.process is not None
        await asyncio.to_thread(self.program.process.wait, 10)
        assert self.program.process.returncode == -9, self.program.said()[-3000:]

    async def wish(self, name: str) -> Wish:
        try:
            found = await self.client.deployment(name)
        except NotFound:
            return None
        return found.spec.replicas, found.wanted

    async def deploy(self, name: str, replicas: int = 1) -> None:
        spec = DeploymentSpec(name=name, model="tiny", ctx=256, replicas=replicas, engine="llama-server")
        await self.settle(
            name, "deployments.create", lambda: self.client.deploy(spec, replace=True), (replicas, "running")
        )

    async def turn(self, name: str, verb: str) -> None:
        call = {"stop": self.client.stop_deployment, "restart": self.client.restart_deployment}[verb]
        current = next(iter(self.wishes[name]))
        count = current[0] if current else 1
        wanted = "stopped" if verb == "stop" else "running"
        await self.settle(name, f"deployments.{verb}", lambda: call(name), (count, wanted))

    async def scale(self, name: str, count: int) -> None:
        wanted = next(iter(self.wishes[name]))
        after = (count, wanted[1]) if wanted else None
        await self.settle(name, "deployments.scale", lambda: self.client.scale(name, count), after)

    async def rm(self, name: str) -> None:
        await self.settle(name, "deployments.rm", lambda: self.client.remove_deployment(name), None)

    async def chat(self, name: str) -> str:
        """A new chat with a question; its id, empty if it was refused."""
        try:
            chat = (await self.client.create_chat(name, ChatOptions())).id
        except (NotFound, NoDaemon):
            return ""
        except CorralError as error:
            sound(error)
            return ""
        self.chats[chat], self.asked[chat] = {True}, []
        self.done.add(("chats.create", f"chat:{chat}"))
        with contextlib.suppress(NoDaemon):
            try:
                await self.client.ask(chat, "how many?")
                self.asked[chat].append("how many?")
            except CorralError as error:
                sound(error)
        return chat

    async def forget(self, chat: str) -> None:
        before = self.chats[chat]
        self.chats[chat] = {True, False}
        try:
            await self.client.remove_chat(chat)
        except NoDaemon:
            pass
        except CorralError as error:
            sound(error)
            if "probably" not in error.what:
                self.chats[chat] = before
        else:
            self.chats[chat] = {False}
            self.done.add(("chats.rm", f"chat:{chat}"))

    async def script(self) -> None:
        """One day in small: every kind of write that a running daemon makes to the store."""
        await self.deploy("one")
        await self.waits("one")
        chat = await self.chat("one")
        if chat:
            await self.answered(chat)
        await self.scale("one", 2)
        await self.turn("one", "restart")
        await self.waits("one")
        if chat:
            await self.forget(chat)
        await self.turn("one", "stop")
        await self.rm("one")
        await self.gone()

    async def waits(self, name: str) -> None:
        """Until it is ready, or something has failed: then nobody can say when it will be."""
        await self.until(lambda: self._ready(name), unless=self.hit)

    async def _ready(self, name: str) -> bool:
        return any(each.spec.name == name and each.state == "ready" for each in await self.client.deployments())

    async def answered(self, chat: str) -> None:
        async def ended() -> bool:
            found = await self.client.chat(chat)
            return all(turn.state not in ("waiting", "streaming") for turn in found.messages)

        await self.until(ended, unless=self.hit)

    async def gone(self) -> None:
        async def empty() -> bool:
            return not await self.client.replicas()

        await self.until(empty, unless=self.hit)

    def hit(self) -> bool:
        return self.disk.failed > 0

    async def until(
        self, check: Callable[[], Awaitable[Any]], *, unless: Callable[[], bool] = lambda: False, seconds: float = 30
    ) -> Any:
        deadline = time.monotonic() + seconds
        while not unless():
            with contextlib.suppress(NoDaemon):
                if found := await check():
                    return found
            assert time.monotonic() < deadline, f"not in time: {self.program.said()[-3000:]}"
            await asyncio.sleep(0.03)
        return None

    # ---------------------------------------------------------------------------------------- what must hold

    async def holds(self) -> None:
        """All that was acknowledged is there, nothing that was refused is, and the chain verifies."""
        for name, allowed in self.wishes.items():
            found = await self.wish(name)
            assert found in allowed, f"{name} is {found}, acknowledged was {allowed}; told: {self.told}"
            self.wishes[name] = {found}
        there = {chat.id for chat in await self.client.chats()}
        for chat, may in self.chats.items():
            assert (chat in there) in may, f"chat {chat}: {chat in there}"
            self.chats[chat] = {chat in there}
            if chat in there:
                detail = await self.client.chat(chat)
                assert [turn.question for turn in detail.messages][: len(self.asked[chat])] == self.asked[chat]
        report = await self.client.verify_audit()
        aside = list(self.paths.state.glob("corral.db.corrupt-*"))  # with all records of the chain before
        assert report.how in (("", "lost") if aside else ("",)), report.message
        missing = self.done - self.recorded()
        assert not missing, f"acknowledged and not recorded: {missing}"

    def recorded(self) -> set[tuple[str, str]]:
        with self.reading() as db:
            return set(db.execute("SELECT verb, object FROM audit WHERE outcome = 'done'").fetchall())

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True)
        try:
            yield db
        finally:
            db.close()

    async def well(self) -> None:
        """The fault is lifted: what is wanted runs, no effect is left open, nothing is warned of, all works."""

        async def settled() -> bool:
            status = await self.client.status()
            with self.reading() as db:
                left = faults.open_intents(db)
            wanted = {
                f"{each.spec.name}/{n}"
                for each in await self.client.deployments()
                for n in range(each.spec.replicas)
                if each.state == ("stopped" if each.wanted == "stopped" or not each.spec.replicas else "ready")
            }
            replicas = {each.id for each in await self.client.replicas()}
            # What was found at the start is said for as long as this daemon runs; other tests' gateways take ports.
            said = ("set aside", "is gone", "the daemon died", "Address already in use")
            warnings = [each for each in status.daemon.warnings if not any(words in each for words in said)]
            self.last = f"{warnings} {left} wanted {wanted} are {replicas}"
            ready = status.gateway_status.state == "ready"
            return ready and not (warnings or left) and wanted == replicas

        try:
            await self.until(settled)
        except AssertionError:
            raise AssertionError(f"not well: {self.last}; {self.program.said()[-3000:]}") from None
        for name in [name for name, may in self.wishes.items() if may != {None}]:
            await self.rm(name)
        for chat in [chat for chat, may in self.chats.items() if may != {False}]:
            await self.forget(chat)
        await self.deploy("after", replicas=0)
        await self.rm("after")
        assert all(may == {None} for may in self.wishes.values()), self.wishes
        assert all(may == {False} for may in self.chats.values())
        await self.gone()
        assert "Traceback" not in self.program.said(), self.program.said()[-6000:]

    async def again(self, number: int = 9) -> None:
        """A new daemon; the one before is killed, or told to end."""
        if self.program.alive():
            await asyncio.to_thread(self.program.end, number)
        assert await asyncio.to_thread(self.program.start), self.program.said()[-3000:]


async def begun(program: Program, folder: Path) -> Life:
    """A home with a model, a running daemon and its gateway."""
    assert await asyncio.to_thread(program.start), program.said()
    life = Life(program)
    job = await life.client.import_model(str(faults.tiny(folder)), "tiny")

    async def imported() -> bool:
        return (await life.client.import_job(job.id)).state == "done"

    await life.until(imported)

    async def gateway() -> bool:
        return (await life.client.status()).gateway_status.state == "ready"

    await life.until(gateway)
    return life


async def once(life: Life, at: int, error: int, lasting: bool, restart: bool) -> bool:
    """One day with a fault at the `at`-th write; False if there are fewer writes than that."""
    life.disk.arm(at, error, lasting=lasting)
    life.told.clear()
    try:
        await life.script()
        if error == KILL and life.hit():
            life.disk.lift()
            await life.again()
        assert life.program.alive(), "the daemon ended"
        hit = life.hit()
        life.disk.lift()
        if restart:
            await life.again()
        await life.holds()
        await life.well()
    except BaseException as failure:
        life.disk.lift()
        names = life.disk.names()
        where = names[at - 1] if at <= len(names) else "no write"
        failure.add_note(f"{faults.name_of(error)}{' lasting' * lasting} at write {at} ({where}), restart {restart}")
        failure.add_note(life.program.said()[-4000:])
        raise
    return hit


class Home:
    """A state folder as a daemon left it, put back before each case."""

    def __init__(self, life: Life, keep: Path) -> None:
        self._life, self._keep = life, keep
        self._memory = (life.wishes, life.chats, life.asked, life.done)
        if life.paths.state.exists():
            shutil.copytree(life.paths.state, keep, ignore=lambda *_: {"corral.sock", "gateway.sock", "control.sock"})

    def restore(self) -> Life:
        state = self._life.paths.state
        until(lambda: shutil.rmtree(state, ignore_errors=True) or not state.exists())  # a keeper may still write there
        if self._keep.exists():
            shutil.copytree(self._keep, state)
        life = Life(self._life.program)
        life.wishes, life.chats, life.asked, life.done = copy.deepcopy(self._memory)
        return life


async def left_by_a_killed_daemon(program: Program, folder: Path) -> Life:
    """With something wanted, a chat, and all of it still in the write-ahead log."""
    life = await begun(program, folder)
    await life.deploy("zero", replicas=0)
    assert await life.chat("zero")
    gateway = (await life.client.status()).gateway_status.pid
    program.end(9)
    assert gateway
    keeper = psutil.Process(gateway).ppid()  # which would start it again, in a folder that is put back under it
    for pid in (keeper, gateway):
        os.kill(pid, 9)
        until(lambda pid=pid: start_time(pid) is None)
    assert life.paths.database.with_name("corral.db-wal").stat().st_size
    return life


async def left_by_an_older_program(program: Program, folder: Path) -> Life:
    """As one that kept no usage yet: none of its migrations was had."""
    life = await left_by_a_killed_daemon(program, folder)
    db = sqlite3.connect(life.paths.database)
    db.executescript(
        "DROP TABLE usage_lines; DROP TABLE usage_rollups; DROP TABLE usage_state; DROP TABLE usage_mark;"
        " DELETE FROM migrations WHERE name LIKE 'usage%' OR name = 'keyless'"
    )
    db.close()
    return life


async def left_corrupt(program: Program, folder: Path) -> Life:
    """Nothing of it can be read: a new database follows its chain."""
    life = await left_by_a_killed_daemon(program, folder)
    for file in (life.paths.database, life.paths.database.with_name("corral.db-wal")):  # which may have all pages
        with file.open("r+b") as out:
            out.write(b"not a database at all")
    life.wishes, life.chats, life.done = {}, {}, set()
    return life


async def nothing_there(program: Program, folder: Path) -> Life:
    return Life(program)


STARTS = [nothing_there, left_by_a_killed_daemon, left_by_an_older_program, left_corrupt]


async def start(home: Home, at: int, error: int, lasting: bool) -> bool:
    """Start with a fault at the `at`-th write and, once that is lifted, well; False if there are fewer writes."""
    life = home.restore()
    program, disk = life.program, life.disk
    mark = len(program.said())
    disk.arm(at, error, lasting=lasting)
    try:
        if await asyncio.to_thread(program.start):

            async def gateway() -> bool:
                return (await life.client.status()).gateway_status.state == "ready"

            await life.until(gateway, unless=life.hit)
        if life.hit() and error == KILL:
            await life.killed()
        hit = life.hit()
        disk.lift()
        assert hit or program.alive(), program.said()[mark:]
        if not program.alive():
            last = program.said()[mark:].strip().splitlines()[-1:]
            assert error == KILL or (last and last[0].startswith("corral: ")), program.said()[mark:]
            await life.again()
        await life.holds()
        if home._memory[0] == {} and home._keep.exists():
            set_aside(life)
            await life.again(15)  # which no longer warns of it
        await life.well()
        await life.client.shutdown(True)
    except BaseException as failure:
        disk.lift()
        names = disk.names()
        where = names[at - 1] if 0 < at <= len(names) else "no write"
        failure.add_note(f"{faults.name_of(error)}{' lasting' * lasting} at write {at} ({where}) of a start")
        raise
    finally:
        if program.alive():
            program.end(9)
    return hit


def set_aside(life: Life) -> None:
    """The corrupt file is there whole, beside the one that follows its chain."""
    files = {each.name: each for each in life.paths.state.glob("corral.db.corrupt-*")}
    (main,) = [each for name, each in files.items() if not name.endswith(("-wal", "-shm"))]
    assert main.read_bytes().startswith(b"not a database at all")
    assert any(each.stat().st_size for name, each in files.items() if name.endswith("-wal")), files
    with life.reading() as db:
        assert db.execute("SELECT prev FROM audit WHERE seq = 1").fetchone()[0] != "0" * 64


async def writes_of_a_day(life: Life) -> int:
    """How many there are without a fault."""
    assert not await once(life, 0, errno.EIO, False, False)
    assert not life.told
    return life.disk.count


def seed() -> int:
    found = int(os.environ.get("CORRAL_FAULT_SEED") or random.SystemRandom().getrandbits(32))
    print(f"CORRAL_FAULT_SEED={found}")
    return found


async def test_a_quota_that_is_used_up_is_told_as_that_and_not_as_an_io_error(program: Program, tmp_path: Path) -> None:
    life = await begun(program, tmp_path)
    quota = f"the quota of {pwd.getpwuid(os.getuid()).pw_name} on the disk"
    life.disk.arm(1, errno.EDQUOT, lasting=True)
    with pytest.raises(StoreError) as refused:
        await life.client.deploy(DeploymentSpec(name="one", model="tiny", ctx=256, engine="llama-server"))
    assert refused.value.why == f"{quota} with the database is used up" and "quota -s" in refused.value.todo
    warnings = (await life.client.status()).daemon.warnings
    assert f"{quota} with the database is used up: nothing is started until there is room" in warnings
    life.disk.lift()
    await life.well()
    life.disk.arm(1, errno.EDQUOT, lasting=True, only="models/")
    other = tmp_path / "other"
    other.mkdir()

    async def import_other() -> ImportJob:
        source = faults.tiny(other)
        # what is stored already would need no room
        source.write_bytes(source.read_bytes().replace(b"apache-2.0", b"apache-2.1"))
        job = await life.client.import_model(str(source), "other")

        async def ended() -> ImportJob | None:
            found = await life.client.import_job(job.id)
            return found if found.state in ("done", "failed") else None

        return cast(ImportJob, await life.until(ended))

    job = await import_other()
    assert job.error is not None and job.error.code == "no_room" and life.hit()
    assert job.error.why == f"{quota} is used up" and "quota -s" in job.error.todo
    life.disk.lift()
    assert (await import_other()).state == "done"


async def test_a_sample_of_the_writes_of_a_running_daemon(program: Program, tmp_path: Path) -> None:
    dice = random.Random(seed())
    life = await begun(program, tmp_path)
    most = await writes_of_a_day(life)
    for n, (error, lasting) in enumerate([*FAULTS, dice.choice(FAULTS)]):
        await once(life, dice.randint(1, most), error, lasting, restart=n % 4 == 3)


async def test_a_sample_of_the_writes_of_a_start(program: Program, tmp_path: Path) -> None:
    dice = random.Random(seed())
    kind = dice.choice(STARTS)
    print(kind.__name__)
    home = Home(await kind(program, tmp_path), tmp_path / "left")
    assert not await start(home, 0, errno.EIO, False)
    most = home.restore().disk.count
    for error, lasting in dice.sample([*FAULTS, (KILL, False)], 3):
        await start(home, dice.randint(1, most), error, lasting)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize(("error", "lasting"), [*FAULTS, (KILL, False)])
async def test_every_write_of_a_start(
    program: Program, tmp_path: Path, kind: Callable[[Program, Path], Awaitable[Life]], error: int, lasting: bool
) -> None:
    home = Home(await kind(program, tmp_path), tmp_path / "left")
    at = FROM
    while await start(home, at, error, lasting):
        at += STEP
    print(f"{kind.__name__}: {at - STEP} writes, each {STEP}. from {FROM} on")
    assert at > 10


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(("error", "lasting"), [*FAULTS, (KILL, False)])
async def test_every_write_of_a_running_daemon(program: Program, tmp_path: Path, error: int, lasting: bool) -> None:
    life = await begun(program, tmp_path)
    most = await writes_of_a_day(life)
    names = life.disk.names()[:most]
    places = [n for n in range(1, most + 1) if EACH or edge(names, n)]
    taken = [n for n in places if n >= FROM][::STEP]
    for at in taken:
        if not await once(life, at, error, lasting, restart=at % 3 == 0):
            break  # this day was shorter
    print(f"{len(taken)} of {len(places)} places in {most} writes")
    assert len(places) > 50
