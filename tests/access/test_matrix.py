"""Every route with every role: what docs/access.md says is what the interface does."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.access import Gate, Rights
from core.access.permissions import BUILTIN
from core.api.peer import Names
from core.api.routes import add_routes
from core.api.server import ANYBODY, Call, Handler, Server
from core.api.tried import FIELDS
from core.audit import Audit
from core.nouns import Actor, Grant, Subject
from core.paths import Paths
from core.store import Store

_spec = importlib.util.spec_from_file_location("access_matrix", Path(__file__).with_name("matrix.py"))
assert _spec is not None and _spec.loader is not None
matrix = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(matrix)

ADA = Actor(uid=1000, name="ada", groups=(100,))
REACHED = {"reached": True}


class Hollow(Server):
    """The real routes and their checks; each handler only says that it was reached."""

    def add(
        self, method: str, path: str, permission: str, handler: Handler, *, on: str = "", status: int = 200,
        or_else: str = "",
    ) -> None:  # fmt: skip
        async def reached(call: Call) -> Any:
            return REACHED

        super().add(method, path, permission, reached, on=on, status=status, or_else=or_else)


class Anything:
    """Services that nobody calls."""

    def __getattr__(self, name: str) -> Any:
        return Anything()

    def __call__(self, *args: Any) -> Any:
        return Anything()


Walk = Callable[[str, str, str], Awaitable[int]]


@pytest.fixture
async def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Walk]:
    """(role, method, path) to the HTTP status that a user with this role alone gets."""
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir(parents=True, exist_ok=True)
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.access"))
    gate = Gate(store, Audit(store, paths), Rights(mode="system", owner_uid=0))

    async def ada(names: Names, peer: object, through: str) -> Actor:
        return ADA

    monkeypatch.setattr(Names, "actor", ada)
    made = Hollow(gate, "the log")
    add_routes(made, Anything())  # type: ignore[arg-type]
    made.names.clear()  # what there is would be named; here is nothing
    client: TestClient[web.Request, web.Application] = TestClient(TestServer(made.app))
    await client.start_server()

    async def go(role: str, method: str, path: str) -> int:
        subject = Subject(kind="user", name="ada", id=1000)
        role, _, denied = role.partition(", ")
        grants = [Grant(id="g1", what=role, subject=subject, by="root", at=0.0)] if role else []
        if denied:
            everybody = Subject(kind="group", name="users", id=100)
            grants.append(Grant(id="g2", effect="deny", what="*", subject=everybody, by="root", at=1.0))
        gate.rights = Rights(mode="system", owner_uid=0, grants=grants)
        found = re.sub(r"\{n:[^/]*\}", "1", path)
        async with client.request(method, "/api/v1" + re.sub(r"\{\w+\}", "name", found)) as answer:
            return answer.status

    yield go
    await client.close()
    made.close()
    await store.close()


@pytest.mark.parametrize("role", ["", *BUILTIN])
async def test_a_route_is_open_to_the_roles_that_have_its_permission_and_to_nobody_else(role: str, walk: Walk) -> None:
    allowed = BUILTIN[role].allows if role else ()
    rights = matrix.server().rights
    assert len(rights) > 40
    for right in rights:
        status = await walk(role, right.method, right.path)
        may = right.permission == ANYBODY or {right.permission, right.or_else} & set(allowed)
        assert (status < 300) == bool(may), (role, right, status)
        assert may or status in (403, 404)


async def reached(walk: Walk, role: str) -> set[tuple[str, str]]:
    """The routes that a user with this role alone gets to."""
    return {
        (right.method, right.path)
        for right in matrix.server().rights
        if await walk(role, right.method, right.path) < 300
    }  # fmt: skip


async def test_an_auditor_gets_to_whatever_can_be_read_and_to_nothing_that_changes_anything(walk: Walk) -> None:
    found = await reached(walk, "auditor")
    assert {each for each in found if each[0] != "GET"} == {
        ("POST", "/audit/verify"), ("POST", "/access/simulate"), ("POST", "/keys/whose"), ("POST", "/fit"),
        ("POST", "/speed"), ("POST", "/recommend"),
    }  # fmt: skip
    reads = {(right.method, right.path) for right in matrix.server().rights if right.method == "GET"}
    conversations = {each for each in reads if each[1].startswith("/chats")}
    own = {
        ("GET", "/usage"),
        ("GET", "/deployments/{name}/logs"),
        ("GET", "/privacy/forget/{user}"),
    }  # his own usage he has none of; logs are the operators', what would be forgotten is told to who may do it
    assert reads - found == conversations | own


async def test_an_admin_gets_to_no_route_that_alters_the_trail_or_breaks_the_glass(walk: Walk) -> None:
    found = await reached(walk, "admin")
    trail = {(right.method, right.path) for right in matrix.server().rights if right.path.startswith("/audit")}
    assert (
        trail - found == {("POST", "/audit/accept"), ("POST", "/audit/archive")}
        and ("POST", "/access/break-glass") not in found
    )
    changing = {each for each in trail & found if each[0] != "GET"}
    assert changing == {("POST", "/audit/verify"), ("POST", "/audit/keys/rotate")}  # a rotation is itself chained


OPEN = {"/whoami", "/access/permissions", "/limits", "/limits/one"}
"""What tells anybody of himself: who he is, and which limits he has."""


async def test_whatever_a_role_gives_a_denial_takes_on_every_route(walk: Walk) -> None:
    assert {path for _, path in await reached(walk, "admin, denied")} == OPEN


def test_every_route_needs_a_permission_but_those_that_tell_a_stranger_who_he_is() -> None:
    open_to_all = {right.path for right in matrix.server().rights if right.permission == ANYBODY}
    assert open_to_all == OPEN


def test_what_refusals_name_is_of_routes_that_there_are() -> None:
    assert set(FIELDS) <= {each.path for each in matrix.server().rights}
