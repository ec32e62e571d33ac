"""What was said is sealed: no file holds it, no box opens in another place, and locked chats hinder nothing else."""

import asyncio
import json
import os
import random
import sqlite3
from contextlib import closing

import pytest

from core.chats import Masters, Vault, tables
from core.chats.sealed import Box, Master, Ring, rewrap
from core.errors import Conflict, Failed, Invalid, Locked, NotAllowed
from core.nouns import Actor, ChatOptions
from core.settings import ChatsTable
from core.store import copies

ALICE = Actor(uid=1000, name="alice")
BOB = Actor(uid=0, name="root")
SECRET = "Weidenkätzchen"


async def said(chats, text: str = SECRET, actor: Actor = ALICE) -> str:
    """A chat in which `text` is title, system prompt, question and answer."""
    chat = await chats.create(actor, "r", "chat", ChatOptions(system=text), text)
    turn = await chats.turns.ask(actor, "r", chat.id, text)
    async with asyncio.timeout(10):
        async for _ in chats.turns.stream(actor, chat.id, turn.id):
            pass
    return chat.id


def answers(house, text: str) -> None:
    piece = json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": text[:40]}]}).encode()
    house.gateway.script = [b"data: " + piece + b"\n\n", b"data: [DONE]\n\n"]


def change(house, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(house.paths.database)) as db, db:
        db.execute(sql, values)


async def test_nothing_that_was_said_is_in_any_file(house, chats) -> None:
    answers(house, SECRET)
    id = await said(chats)
    assert house.holding(SECRET) == [] and house.holding(SECRET[:8]) == []
    (turn,) = (await chats.get(ALICE, id)).messages
    assert (turn.question, turn.answer) == (SECRET, SECRET)
    assert (await chats.ls(ALICE))[0].options.system == SECRET
    assert [chat.id for chat in await chats.search(ALICE, SECRET.upper())] == [id]


async def test_no_box_opens_in_another_row_or_field(house, chats) -> None:
    first, second = await said(chats, "one"), await said(chats, "two")
    for column in ("asked", "answered"):
        rows = await house.store.read(lambda db, c=column: db.execute(f"SELECT chat, {c} FROM turns").fetchall())
        for chat, box in rows:
            change(house, f"UPDATE turns SET {column} = ? WHERE chat != ?", box, chat)
            for each in {first, second} - {chat}:
                with pytest.raises(Failed, match="cannot be opened"):
                    await chats.get(ALICE, each)
            change(house, f"UPDATE turns SET {column} = ? WHERE chat = ?", dict(rows)[second], second)
            change(house, f"UPDATE turns SET {column} = ? WHERE chat = ?", dict(rows)[first], first)
    change(house, "UPDATE chats SET sealed = (SELECT sealed FROM chats WHERE id = ?)", second)
    assert sorted(chat.title for chat in await chats.ls(ALICE)) == ["(cannot be opened)", "two"]  # hides no other
    assert [chat.id for chat in await chats.search(ALICE, "two")] == [second]
    change(house, "UPDATE turns SET asked = answered")
    with pytest.raises(Failed, match="question"):
        await chats.get(ALICE, second)


async def test_a_chat_given_to_another_user_by_hand_does_not_open_for_him(house, chats) -> None:
    mine, his = await said(chats), await said(chats, "his", BOB)
    change(house, "UPDATE chats SET key = (SELECT key FROM chats WHERE id = ?) WHERE id = ?", his, mine)
    with pytest.raises(Failed, match="changed"):
        await chats.get(ALICE, mine)
    assert (await chats.get(BOB, his)).messages[0].question == "his"


def test_each_box_has_a_nonce_of_its_own_and_a_changed_bit_is_found() -> None:
    box = Box("k", os.urandom(32))
    boxes = [box.seal(b"same", "question", "c", "t") for _ in range(500)]
    assert len({each[1:13] for each in boxes}) == 500
    for n in range(len(boxes[0]) * 8):
        bad = bytearray(boxes[0])
        bad[n // 8] ^= 1 << n % 8
        with pytest.raises(Failed):
            box.open(bytes(bad), "question", "c", "t")
    for bad in (b"", b"\x01", boxes[0][:20]):
        with pytest.raises(Failed):
            box.open(bad, "question", "c", "t")
    assert "same" not in repr(box) and box.open(boxes[1], "question", "c", "t") == b"same"


async def test_locked_chats_say_so_and_can_still_be_removed(house, chats) -> None:
    id = await said(chats)
    house.ring.lock("the key is not there", "put it back")
    for call in (chats.ls(ALICE), chats.get(ALICE, id), chats.search(ALICE, "x"), chats.turns.ask(ALICE, "r", id, "q"),
                 chats.create(ALICE, "r", "chat", ChatOptions())):  # fmt: skip
        with pytest.raises(Locked, match="locked"):
            await call
    await chats.rm(ALICE, "r", id)
    house.ring.unlock(Master(b"k" * 32))
    assert await chats.ls(ALICE) == []


# ---------------------------------------------------------------------------------------- from before


def plain(house, text: str, chats: int = 45) -> None:
    """Chats as the program before wrote them."""
    with closing(sqlite3.connect(house.paths.database)) as db, db:
        for n in range(chats):
            options = json.dumps({"system": text})
            db.execute("INSERT INTO chats (id, owner_uid, owner, title, deployment, options, created_at, updated_at)"
                       " VALUES (?, 1000, 'alice', ?, 'chat', ?, 1, ?)", (f"c{n:04}", text, options, n))  # fmt: skip
            for turn in range(n % 4):
                db.execute("INSERT INTO turns (id, chat, n, question, answer, state, reason, asked_at, figures) VALUES"
                           " (?, ?, ?, ?, ?, 'done', ?, 1, ?)",
                           (f"t{n}-{turn}", f"c{n:04}", turn + 1, text * (1 + n * 13 % 70), text * (1 + n * 7 % 90),
                            text, '{"finish": "stop", "context_tokens": 7}'))  # fmt: skip


async def test_no_gap_of_the_database_keeps_a_piece_of_what_was_plain(house, chats) -> None:
    """Pages whose rows moved as they grew: without writing the file anew some two dozen pieces stay in 7 MB."""
    dice, mark = random.Random(1), "MARKER-"
    with closing(sqlite3.connect(house.paths.database)) as db, db:
        db.execute("PRAGMA secure_delete=ON")
        for _ in range(300):
            id = f"{dice.getrandbits(40):010x}"
            title = mark * dice.randint(1, 12)
            db.execute("INSERT INTO chats (id, owner_uid, owner, title, deployment, options, created_at, updated_at)"
                       " VALUES (?, 1000, 'alice', ?, 'chat', '{}', 1, 1)", (id, title))  # fmt: skip
            for n in range(dice.randint(1, 6)):
                turn = f"{dice.getrandbits(64):016x}"
                db.execute("INSERT INTO turns (id, chat, n, question, answer, state, asked_at) VALUES"
                           " (?, ?, ?, ?, '', 'done', 1)", (turn, id, n, mark * dice.randint(1, 300)))  # fmt: skip
                for k in range(3):
                    answer = mark * dice.randint(1, 400) * (k + 1)
                    db.execute("UPDATE turns SET answer = ? WHERE id = ?", (answer, turn))
    assert await house.sealing.seal() == 300
    assert house.holding(mark) == []


async def test_chats_from_before_are_sealed_and_nothing_plain_is_left(house, chats) -> None:
    plain(house, SECRET)
    with closing(sqlite3.connect(house.paths.database)) as db:
        copies.make(db, house.paths.backups, house.now)
    assert len(house.holding(SECRET)) >= 2
    assert (await chats.get(ALICE, "c0003")).messages[0].question.startswith(SECRET)  # readable meanwhile
    assert await house.sealing.seal() == 45
    assert house.holding(SECRET) == [] and house.holding(SECRET[:7]) == []
    detail = await chats.get(ALICE, "c0003")
    assert (detail.chat.title, detail.chat.options.system, len(detail.messages)) == (SECRET, SECRET, 3)
    turn = detail.messages[0]
    assert (turn.answer, turn.reason, turn.finish, turn.context_tokens) == (SECRET * 22, SECRET, "stop", 7)
    (record,) = await house.audit.ls(verb="chats.seal")
    assert record.after == {"chats": 45}
    assert await house.sealing.seal() == 0


async def test_sealing_goes_on_after_a_kill_between_two_pieces(house, chats, monkeypatch) -> None:
    plain(house, SECRET)
    real, done = tables.seal_chat, []

    def killed(db, ring, id):
        if len(done) == 25:
            raise Failed("killed")
        done.append(id)
        return real(db, ring, id)

    monkeypatch.setattr(tables, "seal_chat", killed)
    with pytest.raises(Failed):
        await house.sealing.seal()
    monkeypatch.setattr(tables, "seal_chat", real)
    left = await house.store.read(lambda db: len(tables.plain_chats(db, 100)))
    assert left == 25  # one piece was whole, and of the second nothing
    assert await house.sealing.seal() == 25
    assert house.holding(SECRET) == []


async def test_a_question_in_a_chat_from_before_seals_it_first(house, chats) -> None:
    plain(house, SECRET, 4)
    turn = await chats.turns.ask(ALICE, "r", "c0003", "again")
    async with asyncio.timeout(10):
        async for _ in chats.turns.stream(ALICE, "c0003", turn.id):
            pass
    assert await house.store.read(lambda db: len(tables.plain_chats(db, 9))) == 3
    assert [each.question for each in (await chats.get(ALICE, "c0003")).messages][-1] == "again"


# ---------------------------------------------------------------------------------------- the master key


class Keys:
    """A vault over the house's store, with the settings that a test gives."""

    def __init__(self, house, **settings: str) -> None:
        self.table = ChatsTable(**settings)
        self.environ: dict[str, str] = {}
        self.vault = Vault(house.store, house.gate, Masters(house.paths, lambda: self.table, self.environ))

    def set(self, **settings: str) -> None:
        self.table = ChatsTable(**settings)


async def sealed_in(house, vault: Vault, text: str = SECRET) -> bytes:
    """A box of alice's under this vault's key."""
    return await house.store.transact(lambda db: vault.ring.of_user(db, 1000, "alice").seal(text.encode(), "x"))


async def opened(house, vault: Vault, box: bytes) -> str:
    return await house.store.read(
        lambda db: vault.ring.of_chat(db, db.execute("SELECT id FROM chat_keys").fetchone()[0]).open(box, "x").decode()
    )  # fmt: skip


async def test_the_first_key_is_made_apart_from_the_database_and_found_again(house) -> None:
    first = Keys(house).vault
    await first.start()
    place = house.paths.chats_key
    assert place.stat().st_mode & 0o777 == 0o600 and not place.is_relative_to(house.paths.state)
    box = await sealed_in(house, first)
    again = Keys(house).vault
    await again.start()
    assert await opened(house, again, box) == SECRET
    (record,) = await house.audit.ls(verb="chats.key")
    assert record.after["key"] == first.ring.master.id and place.read_text().strip() not in repr(record)


async def test_a_lost_or_wrong_key_locks_and_a_key_put_back_opens(house) -> None:
    keys = Keys(house)
    await keys.vault.start()
    box, place = await sealed_in(house, keys.vault), house.paths.chats_key
    text = place.read_text()
    vault = Keys(house).vault
    place.unlink()
    await vault.start()
    assert "is not in" in (await vault.status()).why and not place.exists()  # and no new one is made
    assert vault.troubles()
    for wrong, words in (("0" * 64, "another key"), ("x", "no master key")):
        place.write_text(wrong)
        place.chmod(0o600)
        await vault.follow()
        assert words in (await vault.status()).why
    place.write_text(text)
    place.chmod(0o644)
    await vault.follow()
    assert "may be read by others" in (await vault.status()).why
    place.chmod(0o600)
    await vault.follow()
    assert await opened(house, vault, box) == SECRET and vault.troubles() == []


async def test_a_key_that_vanishes_under_an_open_vault_is_told_until_it_is_back_or_replaced(house) -> None:
    vault, place = Keys(house).vault, house.paths.chats_key
    await vault.start()
    box, text = await sealed_in(house, vault), place.read_text()
    await vault.mind()
    assert vault.troubles() == []
    place.unlink()
    await vault.mind()
    (trouble,) = vault.troubles()
    assert f"it is not in {place}" in trouble and "corral chats rekey" in trouble and not place.exists()
    place.write_text("0" * 64)
    place.chmod(0o600)
    await vault.mind()
    assert "holds another key" in vault.troubles()[0]
    place.write_text(text)
    await vault.mind()
    assert vault.troubles() == []
    place.unlink()
    await vault.mind()
    await vault.rekey(ALICE_ADMIN, "r", "")
    assert vault.troubles() == []
    await vault.mind()
    assert vault.troubles() == [] and place.read_text() != text
    again = Keys(house).vault
    await again.start()
    assert await opened(house, again, box) == SECRET


async def test_a_named_file_and_a_credential_of_systemd(house, tmp_path) -> None:
    folder = tmp_path / "cred"
    folder.mkdir()
    (folder / "chats.key").write_text("ab" * 32 + "\n")
    (folder / "chats.key").chmod(0o440 if os.getuid() == 0 else 0o600)
    keys = Keys(house, master_key="$CREDENTIALS_DIRECTORY/chats.key")
    await keys.vault.start()
    assert "no credentials" in (await keys.vault.status()).why
    keys.environ["CREDENTIALS_DIRECTORY"] = str(folder)
    await keys.vault.follow()
    assert keys.vault.ring.master.id == Master(bytes.fromhex("ab" * 32)).id
    assert not house.paths.chats_key.exists()


async def test_a_passphrase_is_chosen_once_and_asked_for_after_each_start(house) -> None:
    keys = Keys(house, master_key="passphrase")
    await keys.vault.start()
    assert (await keys.vault.status()).state == "new"
    with pytest.raises(Invalid, match="short"):
        await keys.vault.unlock(ALICE_ADMIN, "r", "eleven char")
    await keys.vault.unlock(ALICE_ADMIN, "r", "correct horse battery")
    box = await sealed_in(house, keys.vault)
    again = Keys(house, master_key="passphrase").vault
    await again.start()
    assert (await again.status()).state == "locked"
    with pytest.raises(NotAllowed, match="wrong"):
        await again.unlock(ALICE_ADMIN, "r", "correct horse batterz")
    with pytest.raises(Locked):
        await opened(house, again, box)
    with pytest.raises(NotAllowed):
        await again.unlock(Actor(uid=77, name="mallory"), "r", "correct horse battery")
    opens = []
    again.on_open.append(lambda: _note(opens))
    await again.unlock(ALICE_ADMIN, "r", "correct horse battery")
    assert await opened(house, again, box) == SECRET and opens == [1]
    assert house.holding("horse") == []
    assert [(r.verb, r.outcome) for r in await house.audit.ls(verb="chats.unlock")] == [
        ("chats.unlock", "refused"), ("chats.unlock", "done"),
    ]  # fmt: skip


async def _note(opens: list[int]) -> None:
    opens.append(1)


ALICE_ADMIN = Actor(uid=1000, name="alice")


async def test_going_over_to_another_key_wraps_anew_and_ends_the_old_one(house, tmp_path) -> None:
    keys = Keys(house)
    await keys.vault.start()
    box, old = await sealed_in(house, keys.vault), house.paths.chats_key.read_text()
    with closing(sqlite3.connect(house.paths.database)) as db:
        copy = copies.make(db, house.paths.backups, house.now)
    before = await house.store.read(lambda db: db.execute("SELECT wrapped FROM chat_keys").fetchone()[0])
    await keys.vault.rekey(ALICE_ADMIN, "r", "")
    assert house.paths.chats_key.read_text() != old
    assert [p for p in house.paths.root.rglob("*") if p.is_file() and old.strip().encode() in p.read_bytes()] == []
    files = [p for p in house.paths.state.rglob("*") if p.is_file() and before in p.read_bytes()]
    assert files == []  # in the copy it is wrapped anew too
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT master FROM chat_keys").fetchone() == (keys.vault.ring.master.id,)
    again = Keys(house).vault
    await again.start()
    assert await opened(house, again, box) == SECRET
    # on to a passphrase, which ends Corral's own file
    keys.set(master_key="passphrase")
    await keys.vault.follow()
    told = await keys.vault.status()
    assert (told.place, told.passphrase, told.wanted) == (str(house.paths.chats_key), False, "passphrase")
    (trouble,) = keys.vault.troubles()
    assert str(house.paths.chats_key) in trouble and "rekey" in trouble
    await keys.vault.rekey(ALICE_ADMIN, "r", "correct horse battery")
    assert keys.vault.troubles() == []
    assert not house.paths.chats_key.exists() and (await keys.vault.status()).passphrase
    # and to a file that is named
    named = tmp_path / "named.key"
    named.write_text("cd" * 32)
    named.chmod(0o600)
    keys.set(master_key=str(named))
    told = await keys.vault.status()
    assert (told.passphrase, told.wanted) == (True, "file")
    await keys.vault.rekey(ALICE_ADMIN, "r", "")
    with pytest.raises(Conflict, match="no other key"):
        await keys.vault.rekey(ALICE_ADMIN, "r", "")
    assert await opened(house, keys.vault, box) == SECRET
    assert [r.outcome for r in await house.audit.ls(verb="chats.rekey")] == [
        "done",
        "done",
        "done",
    ]


async def test_a_kill_at_any_step_of_going_over_leaves_a_key_that_opens(house, monkeypatch) -> None:
    """Before the record of it the old key counts, after it the new one, wherever the files are."""
    keys = Keys(house)
    await keys.vault.start()
    box = await sealed_in(house, keys.vault)
    real = keys.vault._masters

    class Killed(Exception):
        pass

    def killed(*args: object, **how: object) -> None:
        raise Killed

    for step in ("act", "succeed"):
        with monkeypatch.context() as patch:
            if step == "act":
                patch.setattr(house.gate, "act", killed)
                patch.setattr(Masters, "give_up", lambda self: None)
            else:
                patch.setattr(Masters, "succeed", killed)
            with pytest.raises(Killed):
                await keys.vault.rekey(ALICE_ADMIN, "r", "")
        assert real._next.exists()
        keys = Keys(house)
        await keys.vault.start()
        assert await opened(house, keys.vault, box) == SECRET, step
        assert not real._next.exists()


def test_wrapping_anew_leaves_alone_what_another_key_wraps(house) -> None:
    one, two = Master(os.urandom(32)), Master(os.urandom(32))
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE chat_keys (id, owner_uid, owner, master, wrapped, made_at)")
        Ring(one).of_user(db, 1, "a")
        Ring(two).of_user(db, 2, "b")
        assert rewrap(db, one, two) == 1 and rewrap(db, one, two) == 0
        for uid, name in ((1, "a"), (2, "b")):
            Ring(two).of_user(db, uid, name)
