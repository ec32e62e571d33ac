"""Usage batches are committed once, whatever is sent again."""

import sqlite3
from pathlib import Path

from core.telemetry.usage import UsageRow, commit_batch

SCHEMA = Path(__file__).parents[2] / "core/telemetry/migrations/0006_usage.sql"


def test_a_repeated_batch_is_dropped_and_a_later_one_taken() -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA.read_text())
    rows = [UsageRow(1.0, "chat", "{}"), UsageRow(2.0, "chat", "{}")]
    assert commit_batch(db, "gw1", 1, rows)
    assert not commit_batch(db, "gw1", 1, rows)
    assert commit_batch(db, "gw1", 2, rows[:1])
    assert not commit_batch(db, "gw1", 1, rows)
    assert commit_batch(db, "gw2", 1, rows[:1])
    assert db.execute("SELECT count(*) FROM usage").fetchone() == (4,)
    db.close()
