"""What `corral audit ls` filters by: actor, verb, object, outcome and time, alone and together."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.access import Gate, Rights
from core.audit import Audit
from core.errors import Invalid
from core.nouns import CORRAL, Actor, Outcome
from core.paths import Paths
from core.store import Store

BEGIN = 1_800_000_000.0
ALICE = Actor(uid=1000, name="alice", through="cli")
ALAN = Actor(uid=1001, name="alan", through="console")
RECORDS: list[tuple[Actor, str, str, Outcome]] = [
    (CORRAL, "daemon.start", "daemon:local", "done"),
    (ALICE, "deployments.create", "deployment:chat", "done"),
    (CORRAL, "replica.start", "replica:chat/0", "intent"),
    (CORRAL, "replica.start", "replica:chat/0", "failed"),
    (ALAN, "deployments.rm", "deployment:chat", "refused"),
    (ALAN, "models.rm", "model:100%_*", "done"),
]
"""One second apart; seq 1 to 6."""


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    now = BEGIN
    found = Audit(store, paths, clock=lambda: now)
    gate = Gate(store, found, Rights(mode="user", owner_uid=0))
    for n, (actor, verb, object, outcome) in enumerate(RECORDS):
        now = BEGIN + n
        await gate.record(actor, verb, object, f"request{n}", outcome)
    yield found
    await store.close()


@pytest.mark.parametrize(
    ("filters", "seqs"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"limit": 2}, [5, 6]),
        ({"after_seq": 2, "limit": 2}, [3, 4]),
        ({"before_seq": 3}, [1, 2]),
        ({"actor": "alice"}, [2]),
        ({"actor": "al*"}, [2, 5, 6]),
        ({"verb": "replica.start"}, [3, 4]),
        ({"verb": "deployments.*"}, [2, 5]),
        ({"object": "deployment:chat"}, [2, 5]),
        ({"object": "replica:*"}, [3, 4]),
        ({"object": "model:100%_**"}, [6]),
        ({"object": "model:1__%*"}, []),
        ({"outcome": "refused"}, [5]),
        ({"since": str(BEGIN + 3)}, [4, 5, 6]),
        ({"until": str(BEGIN + 1)}, [1, 2]),
        ({"since": "2027-01-15T08:00:01Z", "until": "2027-01-15T09:00:02+01:00"}, [2, 3]),
        ({"since": "2027-01-15T08:00:05.000001"}, []),
        ({"actor": "al*", "outcome": "done", "verb": "models.*"}, [6]),
        ({"actor": "' OR 1=1 --"}, []),
    ],
)
async def test_a_filter_shows_its_records_alone(audit: Audit, filters: dict[str, Any], seqs: list[int]) -> None:
    assert [record.seq for record in await audit.ls(**filters)] == seqs


@pytest.mark.parametrize("text", ["yesterday", "nan", "inf", "-inf", "1e300", "-1e300", "1e18", "2027-13-01", "é"])
async def test_what_is_no_time_is_refused(audit: Audit, text: str) -> None:
    for side in ("since", "until"):
        filters: dict[str, Any] = {side: text}
        with pytest.raises(Invalid, match="is no time"):
            await audit.ls(**filters)


async def test_a_record_has_all_that_it_must(audit: Audit) -> None:
    (record,) = await audit.ls(actor="alice")
    assert (record.time, record.uid, record.through) == ("2027-01-15T08:00:01.000000Z", 1000, "cli")
    assert (record.request, record.outcome, record.before, record.after) == ("request1", "done", None, None)
    (before,) = await audit.ls(limit=1, before_seq=2)
    assert record.prev == before.hash
