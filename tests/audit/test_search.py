"""A search finds what is asked for, all of it and nothing else, in steps that each take a bounded time."""

import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.audit.chain import COLUMNS, GENESIS
from core.audit.log import moment
from core.audit.search import FIRST, TERMS, Found, find, wanted
from core.errors import Invalid

MIGRATIONS = sorted((Path(__file__).parents[2] / "core/audit/migrations").glob("*.sql"))
VERBS = ("deployments.create", "deployments.rm", "keys.create", "chats.rm")
OUTCOMES = ("done", "refused", "failed", "intent", "interrupted")


def row(seq: int, **fields: object) -> tuple[object, ...]:
    base: dict[str, object] = dict.fromkeys(COLUMNS, "") | {
        "seq": seq, "time": f"2026-01-{1 + seq * 27 // 40_001:02}T00:00:00.000000Z", "actor": f"user{seq % 7}",
        "uid": 1, "through": "cli", "verb": VERBS[seq % 4], "object": f"deployment:d{seq % 1000}", "before": "null",
        "after": f'{{"ctx":{seq}}}', "outcome": "done", "prev": GENESIS, "hash": GENESIS,
    }  # fmt: skip
    return tuple((base | fields)[name] for name in COLUMNS)


def database(rows: list[tuple[object, ...]]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.executescript("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
    for file in MIGRATIONS:
        db.executescript(file.read_text())
    db.executemany(f"INSERT INTO audit VALUES ({', '.join('?' * 15)})", rows)
    return db


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    """40,000 records; 17 is refused, 35,000 is eve's."""
    special: dict[int, dict[str, object]] = {
        17: {"outcome": "refused", "reason": "100% no_grant gives it"}, 35_000: {"actor": "eve", "object": 'x:"q" y'},
    }  # fmt: skip
    made = database([row(n, **special.get(n, {})) for n in range(1, 40_001)])
    yield made
    made.close()


def seqs(db: sqlite3.Connection, text: str, limit: int = 100, **fields: int) -> list[int]:
    """By as many steps as it takes, newest last."""
    rows: list[int] = []
    while True:
        found = find(db, wanted(text, moment), limit=limit - len(rows), **fields)
        got = [each[0] for each in found.rows]
        rows = rows + got if "after" in fields else got + rows
        if not found.more or len(rows) >= limit:
            return rows
        fields = {"after" if "after" in fields else "before": found.searched}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("eve", [35_000]), ("actor:eve", [35_000]), ("EVE", [35_000]), ("actor:EVE", []), ("actor:ev*", [35_000]),
        ("outcome:refused", [17]), ("refused", [17]), ("100%", [17]), ("no_grant", [17]), ("nogrant", []), ("n__g", []),
        ("reason:grant", [17]), ("outcome:refused verb:deployments.rm", [17]), ("outcome:refused -verb:dep", []),
        ("outcome:none", []), ('"q" y', [35_000]), ('object:x:"q"', [35_000]), ("seq:40000", [40_000]),
        ("seq:40001", []),
        ("change:39999", [39_999]), ("-actor:user until:2026-01-31", [35_000]), ("'; DROP TABLE audit; --", []),
        ("actor:", [*range(39_901, 40_001)]), ("since:2027-01-01", []), ("until:2025-01-01", []),
        ("seq:17 actor:user3", [17]), ("seq:17 actor:user4", []),
    ],
)  # fmt: skip
def test_words_find_their_records_alone(db: sqlite3.Connection, text: str, expected: list[int]) -> None:
    assert seqs(db, text) == expected
    assert seqs(db, text, after=0, limit=10**6)[-100:] == expected[-100:] or len(expected) == 100


@pytest.mark.parametrize(("text", "meant"), [("actr:root", "actor"), ("-outcom:done", "outcome"), ("verbs:x", "verb")])
def test_what_is_nearly_a_field_is_not_taken_for_text(text: str, meant: str) -> None:
    with pytest.raises(Invalid, match=r"no field .*:; there are") as raised:
        wanted(text, moment)
    assert raised.value.todo.startswith(f"say {meant}: if you meant that")
    wanted(f'"{text}"', moment)


@pytest.mark.parametrize("kind", [
    "access", "account", "audit", "chat", "daemon", "deployment", "gateway", "group", "key", "limit", "model", "node",
    "replica", "retention", "team", "usage", "user", "http",
])  # fmt: skip
def test_an_object_is_no_slip(kind: str) -> None:
    wanted(f"{kind}:x", moment)


@pytest.mark.parametrize("text", ["seq:x", "since:noon", "-since:2026", "x" * 501, "a " * (TERMS + 1)])
def test_what_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(Invalid):
        wanted(text, moment)


def test_a_search_stops_after_its_time_and_goes_on_from_there(db: sqlite3.Connection) -> None:
    found = find(db, wanted("refused", moment), clock=count(0, 1).__next__)
    assert not found.rows and found.more and found.searched == 40_000 - FIRST + 1
    assert (found.first, found.last) == (1, 40_000)


def test_an_empty_trail_has_nothing() -> None:
    empty = database([])
    assert find(empty, wanted("x", moment)) == Found([], 0, False, 0, 0)
    empty.close()


@pytest.mark.parametrize("text", ["actor:eve", "verb:keys.create", "object:deployment:d55", "outcome:refused"])
def test_an_index_gives_the_records(db: sqlite3.Connection, text: str) -> None:
    plans: list[str] = []
    db.set_trace_callback(plans.append)
    find(db, wanted(text, moment), limit=5)
    db.set_trace_callback(None)
    last = next(each for each in reversed(plans) if "BETWEEN" in each)
    assert "USING INDEX audit_by_" in str(db.execute(f"EXPLAIN QUERY PLAN {last}").fetchall()), last


WORD = st.sampled_from(
    ["actor:user1", "actor:user", "verb:keys", "rm", "-rm", "outcome:done", "-outcome:refused", "d1",
     "object:deployment:d2", "change:1", "zzz", "outcome:i"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(OUTCOMES)), max_size=40),
    words=st.lists(WORD, max_size=3), limit=st.integers(1, 9), up=st.booleans(), at=st.integers(0, 45),
)  # fmt: skip
def test_pages_in_either_direction_have_what_a_plain_look_has(records, words, limit, up, at) -> None:
    rows = [
        row(n, actor=f"user{a}", verb=VERBS[v], object=f"deployment:d{n % 3}", outcome=o)
        for n, (a, v, o) in enumerate(records, 1)
    ]
    db = database(rows)
    expected = [each[0] for each in rows if all(_fits(dict(zip(COLUMNS, each, strict=True)), word) for word in words)]
    expected = [seq for seq in expected if (seq > at if up else seq < at)]
    got: list[int] = []
    while True:
        page = find(db, wanted(" ".join(words), moment), limit=limit, **{"after" if up else "before": at})
        assert len(page.rows) <= limit
        got = got + [each[0] for each in page.rows] if up else [each[0] for each in page.rows] + got
        if not page.more:
            break
        at = page.searched
    assert got == expected
    db.close()


def _fits(record: dict[str, object], word: str) -> bool:
    bare = word.removeprefix("-")
    field, colon, value = bare.partition(":")
    if not colon:
        fits = any(bare in str(record[name]) for name in ("actor", "verb", "object", "outcome", "reason"))
    elif field == "change":
        fits = value in str(record["before"]) or value in str(record["after"])
    else:
        fits = str(record[field]).startswith(value)
    return fits != word.startswith("-")
