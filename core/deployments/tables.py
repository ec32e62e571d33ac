"""The SQL of deployments, replicas and launches; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from core.catalog import Use
from core.nouns import DeploymentSpec, LaunchStory, Model, Noun, Plan


class Wanted(Noun, frozen=True, kw_only=True):
    """A row of `deployments`."""

    spec: DeploymentSpec
    wanted: str
    generation: int
    plan: Plan
    created_at: float
    created_by: str
    version: int = 1
    """Of its model: the one that it got when it was deployed or restarted."""
    public: bool = False
    """Its server (of somebody else) is asked at addresses of the internet alone."""

    @property
    def exactly(self) -> str:
        """The version that it got, as the catalog names it."""
        return f"{self.spec.model_name}@{self.version}"


class ReplicaRow(Noun, frozen=True, kw_only=True):
    id: str
    deployment: str
    state: str
    reason: str
    since: float
    restarts: int
    next_try: float | None
    launch: str


class LaunchRow(Noun, frozen=True, kw_only=True):
    id: str
    replica: str
    generation: int
    secret: str
    effect: str
    request: str
    started_at: float
    plan_bytes: int
    rss_planned: int
    ended_at: float | None = None


_DEPLOYMENT = "SELECT spec, wanted, generation, plan, created_at, created_by, version, public FROM deployments"


def _wanted(row: tuple[Any, ...]) -> Wanted:
    return Wanted(
        spec=msgspec.json.decode(row[0], type=DeploymentSpec),
        wanted=row[1],
        generation=row[2],
        plan=msgspec.json.decode(row[3], type=Plan),
        created_at=row[4],
        created_by=row[5],
        version=row[6],
        public=bool(row[7]),
    )


def all_wanted(db: sqlite3.Connection) -> list[Wanted]:
    return [_wanted(row) for row in db.execute(_DEPLOYMENT + " ORDER BY name")]


def one_wanted(db: sqlite3.Connection, name: str) -> Wanted | None:
    row = db.execute(_DEPLOYMENT + " WHERE name = ?", (name,)).fetchone()
    return None if row is None else _wanted(row)


def put_wanted(db: sqlite3.Connection, wanted: Wanted) -> None:
    """Insert or replace one deployment."""
    db.execute(
        "INSERT INTO deployments (name, spec, wanted, generation, plan, created_at, created_by, version, public)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET spec = excluded.spec,"
        " wanted = excluded.wanted, generation = excluded.generation, plan = excluded.plan,"
        " version = excluded.version, public = excluded.public",
        (
            wanted.spec.name,
            msgspec.json.encode(wanted.spec).decode(),
            wanted.wanted,
            wanted.generation,
            msgspec.json.encode(wanted.plan).decode(),
            wanted.created_at,
            wanted.created_by,
            wanted.version,
            wanted.public,
        ),
    )


def delete_wanted(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM deployments WHERE name = ?", (name,))


def has_model(db: sqlite3.Connection, model: Model) -> bool:
    """Whether this version is still there, with this content."""
    row = db.execute(
        "SELECT 1 FROM model_versions WHERE model = ? AND version = ? AND sha256 = ?",
        (model.name, model.version, model.sha256),
    ).fetchone()
    return row is not None


def uses(db: sqlite3.Connection) -> list[Use]:
    """Which deployments need which versions of models."""
    return [
        Use(each.spec.name, each.spec.model, each.version, each.spec.tier, each.wanted == "running")
        for each in all_wanted(db)
        if each.spec.engine != "attach"
    ]


def all_replicas(db: sqlite3.Connection) -> list[ReplicaRow]:
    rows = db.execute("SELECT id, deployment, state, reason, since, restarts, next_try, launch FROM replicas")
    return [
        ReplicaRow(
            id=r[0], deployment=r[1], state=r[2], reason=r[3], since=r[4], restarts=r[5], next_try=r[6], launch=r[7]
        )
        for r in rows
    ]


def put_replica(db: sqlite3.Connection, row: ReplicaRow) -> None:
    db.execute(
        "INSERT INTO replicas (id, deployment, state, reason, since, restarts, next_try, launch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
        " reason = excluded.reason, since = excluded.since, restarts = excluded.restarts,"
        " next_try = excluded.next_try, launch = excluded.launch",
        (row.id, row.deployment, row.state, row.reason, row.since, row.restarts, row.next_try, row.launch),
    )


def delete_replica(db: sqlite3.Connection, replica: str) -> None:
    db.execute("DELETE FROM replicas WHERE id = ?", (replica,))


def put_launch(db: sqlite3.Connection, row: LaunchRow) -> None:
    """Commit a launch id before anything is started under it."""
    db.execute(
        "INSERT INTO launches (id, replica, generation, secret, effect, request, started_at, plan_bytes, rss_planned)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.id,
            row.replica,
            row.generation,
            row.secret,
            row.effect,
            row.request,
            row.started_at,
            row.plan_bytes,
            row.rss_planned,
        ),
    )


def open_launches(db: sqlite3.Connection) -> dict[str, LaunchRow]:
    """Launches whose end is not recorded yet, by id."""
    rows = db.execute(
        "SELECT id, replica, generation, secret, effect, request, started_at, plan_bytes, rss_planned, ended_at"
        " FROM launches WHERE ended_at IS NULL"
    )
    return {
        r[0]: LaunchRow(
            id=r[0],
            replica=r[1],
            generation=r[2],
            secret=r[3],
            effect=r[4],
            request=r[5],
            started_at=r[6],
            plan_bytes=r[7],
            rss_planned=r[8],
            ended_at=r[9],
        )
        for r in rows
    }


def end_launch(db: sqlite3.Connection, story: LaunchStory) -> None:
    """Record how a launch ended; its secret is forgotten."""
    db.execute(
        "UPDATE launches SET ended_at = ?, code = ?, signal = ?, reason = ?, lines = ?, peak_rss = ?, secret = ''"
        " WHERE id = ?",
        (
            story.ended_at,
            story.code,
            story.signal,
            story.reason,
            msgspec.json.encode(story.lines).decode(),
            story.peak_rss_bytes,
            story.launch,
        ),
    )


def measured(db: sqlite3.Connection, launch: str, rss: int, ready_at: float) -> None:
    """Write planned against measured for a launch that is ready, once: a later daemon finds it used already."""
    db.execute(
        "UPDATE launches SET rss_measured = ?, ready_at = ? WHERE id = ? AND ready_at IS NULL", (rss, ready_at, launch)
    )


def gateway_deaths(db: sqlite3.Connection, launch: str) -> int:
    """How many deaths of a gateway's launch are in the trail."""
    sql = "SELECT count(*) FROM audit WHERE verb = 'gateway.died' AND request = ?"
    return int(db.execute(sql, (launch,)).fetchone()[0])


def stories(db: sqlite3.Connection, deployment: str, limit: int = 20) -> list[LaunchStory]:
    """The launches of a deployment, newest first."""
    rows = db.execute(
        "SELECT id, started_at, ended_at, code, signal, reason, lines, peak_rss, plan_bytes, rss_planned, rss_measured"
        " FROM launches WHERE substr(replica, 1, ?) = ? ORDER BY started_at DESC LIMIT ?",
        (len(deployment) + 1, deployment + "/", limit),
    )
    return [
        LaunchStory(
            launch=r[0],
            started_at=r[1],
            ended_at=r[2],
            code=r[3],
            signal=r[4],
            reason=r[5],
            lines=tuple(msgspec.json.decode(r[6])),
            peak_rss_bytes=r[7],
            plan_bytes=r[8],
            rss_planned=r[9],
            rss_measured=r[10],
        )
        for r in rows
    ]


def launches_of(db: sqlite3.Connection, replica: str) -> list[str]:
    """Launch ids of a replica, newest first."""
    rows = db.execute("SELECT id FROM launches WHERE replica = ? ORDER BY started_at DESC", (replica,))
    return [row[0] for row in rows]
