"""The SQL of access; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from core.nouns import Grant, Mark, Role, ServiceAccount, Team

SEEDED = "access_seeded"
"""Key in `meta`: the first grants were written; whoever revokes them does not find them again."""


class Rows(NamedTuple):
    """All that rights are made of."""

    roles: list[Role]
    grants: list[Grant]
    teams: list[Team]
    accounts: list[ServiceAccount]
    marks: list[Mark]


def everything(db: sqlite3.Connection) -> Rows:
    roles = [msgspec.json.decode(row[0], type=Role) for row in db.execute("SELECT data FROM roles ORDER BY name")]
    grants = [msgspec.json.decode(row[0], type=Grant) for row in db.execute("SELECT data FROM grants ORDER BY at, id")]
    teams = [msgspec.json.decode(row[0], type=Team) for row in db.execute("SELECT data FROM teams ORDER BY name")]
    accounts = [
        msgspec.json.decode(row[0], type=ServiceAccount)
        for row in db.execute("SELECT data FROM service_accounts ORDER BY name")
    ]
    marks = [msgspec.json.decode(row[0], type=Mark) for row in db.execute("SELECT data FROM marks ORDER BY deployment")]
    return Rows(roles, grants, teams, accounts, marks)


def put_role(db: sqlite3.Connection, role: Role) -> None:
    db.execute("INSERT OR REPLACE INTO roles (name, data) VALUES (?, ?)", (role.name, _json(role)))


def delete_role(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM roles WHERE name = ?", (name,))


def put_grant(db: sqlite3.Connection, grant: Grant) -> None:
    db.execute("INSERT INTO grants (id, at, data) VALUES (?, ?, ?)", (grant.id, grant.at, _json(grant)))


def delete_grant(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM grants WHERE id = ?", (id,))


def put_team(db: sqlite3.Connection, team: Team) -> None:
    db.execute("INSERT OR REPLACE INTO teams (name, data) VALUES (?, ?)", (team.name, _json(team)))


def delete_team(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM teams WHERE name = ?", (name,))


def put_account(db: sqlite3.Connection, account: ServiceAccount) -> None:
    db.execute("INSERT OR REPLACE INTO service_accounts (name, data) VALUES (?, ?)", (account.name, _json(account)))


def delete_account(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM service_accounts WHERE name = ?", (name,))


def put_mark(db: sqlite3.Connection, mark: Mark) -> None:
    db.execute("INSERT OR REPLACE INTO marks (deployment, data) VALUES (?, ?)", (mark.deployment, _json(mark)))


def delete_mark(db: sqlite3.Connection, deployment: str) -> None:
    db.execute("DELETE FROM marks WHERE deployment = ?", (deployment,))


def seeded(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM meta WHERE key = ?", (SEEDED,)).fetchone() is not None


def mark_seeded(db: sqlite3.Connection) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, '1')", (SEEDED,))


def _json(noun: Role | Grant | Team | ServiceAccount | Mark) -> str:
    return msgspec.json.encode(noun).decode()
