"""How long chats are kept, with a clock that the test moves."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from core.chats import Chats, Retention
from core.errors import StoreError
from core.nouns import Actor, Chat, ChatOptions, Turn
from core.store import copies
from core.store.hourly import EVERY_S

ALICE = Actor(uid=1000, name="alice")
BOB = Actor(uid=0, name="root")
DAY_S = 86400.0
SECRET = "Weidenkätzchen"


class Keeping:
    """Retention on the house's clock; `days` is the setting."""

    def __init__(self, house, chats) -> None:
        self.house, self.chats = house, chats
        self.retention = self.again()

    @property
    def days(self) -> int:
        return self.house.days

    @days.setter
    def days(self, days: int) -> None:
        self.house.days = days

    def again(self) -> Retention:
        return self.house.retention(self.chats)


@pytest.fixture
def keeping(house, chats) -> Keeping:
    return Keeping(house, chats)


async def new(chats: Chats, question: str = "", actor: Actor = ALICE) -> Chat:
    chat = await chats.create(actor, "r", "chat", ChatOptions(), "")
    if question:
        await end(chats, await chats.turns.ask(actor, "r", chat.id, question), actor)
    return chat


async def end(chats: Chats, turn: Turn, actor: Actor = ALICE) -> None:
    async with asyncio.timeout(10):
        async for _ in chats.turns.stream(actor, turn.chat, turn.id):
            pass


async def there(chats: Chats) -> set[str]:
    return {chat.id for actor in (ALICE, BOB) for chat in await chats.ls(actor)}


async def test_a_chat_counts_from_its_last_turn_and_everybody_s_go_in_one_record(house, chats, keeping) -> None:
    old, used = await new(chats, SECRET), await new(chats, "hello")
    theirs, bare = await new(chats, SECRET, BOB), await new(chats)
    keeping.days = 30
    house.now += 29 * DAY_S
    await end(chats, await chats.turns.ask(ALICE, "r", used.id, "again"))
    await chats.update(ALICE, "r", old.id, title=f"{SECRET} is no turn")
    assert await keeping.retention.sweep() == 0
    heard = house.bus.last
    house.now += 2 * DAY_S
    assert await keeping.retention.sweep() == 3
    assert await there(chats) == {used.id}
    records = await house.audit.ls(verb="chats.expire")
    (record,) = records
    assert (record.actor, record.object, record.before) == ("corral", "chats:all", {"chats": 3, "turns": 2})
    assert record.after == {"by_days": {"30": 3}}
    assert SECRET not in json.dumps([str(each) for each in await house.audit.ls()])
    gone = await anext(house.bus.follow(heard))
    assert {event.object for event in gone if event.type == "chat.gone"} == {
        f"chat:{chat.id}" for chat in (old, theirs, bare)
    }
    assert await keeping.retention.sweep() == 0 and len(await house.audit.ls(verb="chats.expire")) == 1


async def test_without_the_setting_nothing_goes(house, chats, keeping) -> None:
    chat = await new(chats, "hello")
    house.now += 10_000 * DAY_S
    assert await keeping.retention.sweep() == 0
    assert await there(chats) == {chat.id}


async def test_a_chat_that_is_being_answered_stays(house, chats, keeping) -> None:
    house.gateway.script = [None]
    chat = await chats.create(ALICE, "r", "chat", ChatOptions(), "")
    turn = await chats.turns.ask(ALICE, "r", chat.id, "long")
    keeping.days = 1
    house.now += 5 * DAY_S
    assert await keeping.retention.sweep() == 0
    house.gateway.go.set()
    await end(chats, turn)
    assert await keeping.retention.sweep() == 1


async def test_nothing_of_it_is_left_in_any_file_not_even_sealed(house, chats, keeping) -> None:
    """Among others that stay: pages whose rows were moved would keep pieces in their gaps."""
    house.days, gone = 2, []
    for n in range(60):
        chat = await chats.create(ALICE, "r", "chat", ChatOptions(), f"{SECRET} {n}" * (n % 7))
        await end(chats, await chats.turns.ask(ALICE, "r", chat.id, f"{SECRET} {n} " * (1 + n * 7 % 90)))
        gone += [(chat.id, house.boxes(chat.id))] if n % 2 else []
    with closing(sqlite3.connect(house.paths.database)) as db:
        copies.make(db, house.paths.backups, house.now)
    assert house.holding(SECRET) == []
    house.now += DAY_S
    for chat in await chats.ls(ALICE):
        if chat.id not in dict(gone):
            await end(chats, await chats.turns.ask(ALICE, "r", chat.id, "again"))
    house.now += 1.5 * DAY_S
    assert await keeping.retention.sweep() == 30
    files = {path: path.read_bytes() for path in house.paths.root.rglob("*") if path.is_file()}
    assert len(files) > 3
    left = [(path, id) for path, data in files.items() for id, sealed in gone for box in sealed if box[:40] in data]
    assert left == []
    assert len(await chats.ls(ALICE)) == 30


async def test_what_a_killed_daemon_left_in_a_copy_goes_with_the_next_start(house, chats, keeping) -> None:
    over, used = await new(chats, SECRET), await new(chats, "hello")
    boxes = house.boxes(over.id)
    with closing(sqlite3.connect(house.paths.database)) as db:
        copy = copies.make(db, house.paths.backups, house.now)
    keeping.days = 3
    house.now += 2 * DAY_S
    await end(chats, await chats.turns.ask(ALICE, "r", used.id, "again"))  # its copy is older than it is
    house.now += 2 * DAY_S

    async def killed(fn: object, **how: object) -> None:
        raise StoreError("killed")

    real, house.store.erase = house.store.erase, killed
    with pytest.raises(StoreError):
        await keeping.retention.sweep()
    house.store.erase = real
    assert boxes and all(box in copy.read_bytes() for box in boxes)
    assert await keeping.again().sweep() == 0
    assert not any(box[:40] in copy.read_bytes() for box in boxes)
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT id FROM chats").fetchall() == [(used.id,)]
    assert over.id not in await there(chats)


async def test_it_looks_at_once_and_each_hour_and_survives_a_disk_that_fails(house, chats, keeping) -> None:
    await new(chats, "hello")
    keeping.days = 1
    pauses: list[float] = []
    real = house.store.read

    async def failing(fn: object) -> None:
        raise StoreError("the database was not read")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        house.now += DAY_S
        house.store.read = failing if len(pauses) == 1 else real
        if len(pauses) == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keeping.retention.run(pause)
    assert pauses == [EVERY_S] * 4
    assert await there(chats) == set()


async def test_when_a_chat_goes_is_told(house, chats, keeping) -> None:
    made = house.now
    chat = await new(chats)
    assert chat.goes_at is None
    keeping.days = 2
    assert [each.goes_at for each in await chats.ls(ALICE)] == [made + 2 * DAY_S]
    house.now += DAY_S
    await end(chats, await chats.turns.ask(ALICE, "r", chat.id, "hello"))
    assert (await chats.get(ALICE, chat.id)).chat.goes_at == made + 3 * DAY_S
    assert [each.goes_at for each in await chats.search(ALICE, "hello")] == [made + 3 * DAY_S]
