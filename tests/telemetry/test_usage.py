"""Usage batches are committed once, whatever is sent again; what an older program kept is taken along."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.errors import TimedOut
from core.gateway.wire import UsageLine
from core.store.migrate import find, migrate
from core.telemetry.usage import COLUMNS, commit_batch, row_of
from core.telemetry.whose import KNOWN_S, Whose

PEOPLE = {7: ("ann", "staff")}
LINE = UsageLine(
    id="0" * 16, time=1000.5, uid=7, deployment="chat", model="m", replica="chat/0", launch="l", path="/v1/completions",
    status=200, outcome="ok", prompt_tokens=9, cached_tokens=4, answer_tokens=3, queue_s=0.5, first_byte_s=0.6,
    total_s=1.5, first_token_s=0.7, version=2, node="local", core_s=2.0, key="k1",
)  # fmt: skip


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, find(["core.telemetry"]), 1.0)
        yield db


def test_a_repeated_batch_is_dropped_and_a_later_one_taken(db: sqlite3.Connection) -> None:
    rows = [row_of(LINE, PEOPLE)] * 2
    assert commit_batch(db, "gw1", 1, rows)
    assert not commit_batch(db, "gw1", 1, rows)
    assert commit_batch(db, "gw1", 2, rows[:1])
    assert not commit_batch(db, "gw1", 1, rows)
    assert commit_batch(db, "gw2", 1, rows[:1])
    assert db.execute("SELECT count(*) FROM usage_lines").fetchone() == (4,)


def test_a_line_is_kept_with_name_and_group_and_without_content(db: sqlite3.Connection) -> None:
    commit_batch(db, "gw", 1, [row_of(LINE, PEOPLE)])
    kept = dict(zip(COLUMNS, db.execute(f"SELECT {', '.join(COLUMNS)} FROM usage_lines").fetchone(), strict=True))
    assert kept == {
        "id": "0" * 16, "time": 1000.5, "uid": 7, "user": "ann", "groupname": "staff", "key": "k1",
        "deployment": "chat", "model": "m", "version": 2, "node": "local", "replica": "chat/0", "launch": "l",
        "path": "/v1/completions", "status": 200, "outcome": "ok", "requests": 1, "prompt_tokens": 9,
        "cached_tokens": 4, "answer_tokens": 3, "estimated": 0, "queue_s": 0.5, "first_byte_s": 0.6,
        "first_token_s": 0.7, "total_s": 1.5, "core_s": 2.0,
    }  # fmt: skip


def test_counts_that_cannot_be_are_none_and_stop_no_batch(db: sqlite3.Connection) -> None:
    wild = replace(LINE, prompt_tokens=10**30, cached_tokens=-5, answer_tokens=1 << 63, uid=8)
    row = row_of(wild, PEOPLE)
    assert (row.prompt_tokens, row.cached_tokens, row.answer_tokens) == (None, None, None)
    assert (row.user, row.groupname) == ("uid:8", "")
    assert commit_batch(db, "gw", 1, [row])


def test_the_lines_of_an_older_program_are_taken_along(tmp_path: Path) -> None:
    known = find(["core.telemetry"])
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        migrate(db, [each for each in known if each[0] < 10], 1.0)
        old = {
            "id": "a", "time": 5.5, "uid": 7, "deployment": "chat", "model": "m", "replica": "chat/0", "launch": "l",
            "path": "/v1/completions", "status": 200, "outcome": "client-gone", "answer_tokens": 3, "estimated": True,
            "total_s": 2.5,
        }  # fmt: skip
        data = [("gw", 1, 0, 5.5, "chat", json.dumps(old)), ("gw", 1, 1, 6.0, "chat", "torn")]
        db.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?)", data)
        db.execute("INSERT INTO usage_mark VALUES ('gw', 1)")
        migrate(db, known, 2.0)
        sql = "SELECT time, uid, user, outcome, prompt_tokens, answer_tokens, estimated, total_s, key FROM usage_lines"
        assert db.execute(sql).fetchall() == [(5.5, 7, "uid:7", "client-gone", None, 3, 1, 2.5, "")]
        assert not commit_batch(db, "gw", 1, [row_of(LINE, PEOPLE)])


async def test_names_are_asked_for_again_after_a_while_and_a_directory_that_is_away_stops_nothing() -> None:
    now, asked, away = [0.0], [], [False]

    async def look_up(uids: object) -> dict[int, tuple[str, str]]:
        if away[0]:
            raise TimedOut("users were not looked up")
        asked.append(sorted(uids))  # type: ignore[call-overload]
        return {7: ("ann", "staff")}

    whose = Whose(look_up, lambda: now[0])
    assert await whose.of([7, 7, 8]) == {7: ("ann", "staff"), 8: ("uid:8", "")}
    assert await whose.of([7, 8]) and asked == [[7, 8]]
    now[0] += KNOWN_S
    away[0] = True
    assert await whose.of([7, 9]) == {7: ("ann", "staff"), 9: ("uid:9", "")}
    away[0] = False
    now[0] += KNOWN_S
    assert await whose.of([7]) == {7: ("ann", "staff")} and asked == [[7, 8], [7]]


async def test_the_host_s_users_have_a_name_and_a_group() -> None:
    assert await Whose().of([0, 2**31 - 3, 2**40]) == {
        0: ("root", "root"), 2**31 - 3: (f"uid:{2**31 - 3}", ""), 2**40: (f"uid:{2**40}", "")
    }  # fmt: skip


def test_what_had_ended_before_its_gateway_was_killed_is_no_second_line(db: sqlite3.Connection) -> None:
    ended = replace(LINE, id="ended")
    commit_batch(db, "gw", 1, [row_of(ended, PEOPLE)])
    late = [
        row_of(replace(ended, id=id, time=ended.time + 1, outcome="gateway-died"), PEOPLE) for id in ("ended", "ran")
    ]
    commit_batch(db, "gw", 2, late)
    found = db.execute("SELECT id, outcome FROM usage_lines ORDER BY seq").fetchall()
    assert found == [("ended", LINE.outcome), ("ran", "gateway-died")]
