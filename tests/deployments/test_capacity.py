"""Admission of deployments: never more than is left, and the refusal says the numbers."""

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from doubles import MODEL, AttachDouble, CatalogDouble, EngineDouble, HostDouble
from hypothesis import given
from hypothesis import strategies as st

from core.budgets import Room
from core.deployments import tables
from core.deployments.capacity import Capacity, admit, check_url, waits
from core.deployments.runner import Runner
from core.deployments.yard import Yard
from core.engines.base import EngineRegistry
from core.errors import Invalid, NoRoom
from core.nouns import DeploymentSpec, Plan, PlanParts
from core.settings import Settings

MIB = 1 << 20
NOTHING = PlanParts(weights=0, kv_cache=0, compute=0, repack=0, output=0, base=0)


def plan_of(size: int) -> Plan:
    return Plan(
        model="m", ctx=1024, ctx_per_slot=1024, parallel=1, cache_type="f16", rss_bytes=size, plan_bytes=size,
        parts=NOTHING, free_bytes=0, reserve_bytes=0, reserved_bytes=0, fits=True, reason="",
    )  # fmt: skip


def room_of(left: int) -> Room:
    return Room(free_bytes=left + 30 * MIB, reserve_bytes=20 * MIB, reserved_bytes=10 * MIB)


@given(st.integers(1, 1 << 34), st.integers(0, 64), st.integers(-(1 << 30), 1 << 36), st.integers(0, 1 << 32))
def test_what_is_admitted_fits_and_what_fits_is_admitted(size: int, replicas: int, left: int, freed: int) -> None:
    spec = DeploymentSpec(name="d", model="m")
    fits = size * replicas <= left + freed
    try:
        admit(spec, plan_of(size), room_of(left), replicas=replicas, freed=freed)
    except NoRoom as error:
        assert not fits and replicas
        assert error.details["plan_bytes"] == size * replicas
    else:
        assert fits or not replicas


def test_the_refusal_says_what_is_needed_and_left() -> None:
    with pytest.raises(NoRoom) as caught:
        admit(DeploymentSpec(name="d", model="m"), plan_of(400 * MIB), room_of(500 * MIB), replicas=2)
    assert "2 x 400 MiB is needed and 500 MiB is left" in str(caught.value)
    assert "20 MiB for the host and 10 MiB held by others" in str(caught.value)


def test_a_limit_below_the_plan_is_refused_whatever_is_free() -> None:
    spec = DeploymentSpec(name="d", model="m", memory=100 * MIB)
    with pytest.raises(NoRoom, match="less than the plan"):
        admit(spec, plan_of(400 * MIB), room_of(1 << 40), replicas=1)


def test_the_last_look_says_why_a_replica_waits() -> None:
    assert waits(plan_of(10 * MIB), room_of(10 * MIB)) == ""
    assert waits(plan_of(10 * MIB), room_of(5 * MIB)) == "waits for room: 10 MiB needed, 5 MiB left"


async def test_a_replica_of_an_older_generation_is_not_counted_as_ready() -> None:
    """Else `restart --wait` could return on the process that is about to go."""

    def wanted(generation: int) -> tables.Wanted:
        spec = DeploymentSpec(name="d", model="m", ctx=1024)
        return tables.Wanted(
            spec=spec, wanted="running", generation=generation, plan=plan_of(MIB), created_at=0, created_by="alice"
        )

    yard = SimpleNamespace(clock=lambda: 0.0, node=SimpleNamespace(name="local"), changed=lambda view: None)
    row = tables.ReplicaRow(
        id="d/0", deployment="d", state="ready", reason="", since=0, restarts=0, next_try=None, launch="aaaaaaaaaa"
    )
    launch = tables.LaunchRow(
        id="aaaaaaaaaa", replica="d/0", generation=1, secret="", effect="", request="", started_at=0, plan_bytes=MIB,
        rss_planned=MIB,
    )  # fmt: skip
    runner = Runner(cast(Yard, yard), "d", 0, row)
    runner.want(wanted(1))
    assert runner.view_for(wanted(1)).state == "ready" and not runner.holds
    runner.adopt(launch, None)
    assert runner.holds
    assert runner.view_for(wanted(1)).state == "ready"
    assert runner.view_for(wanted(2)).state == "stopping"


async def complete(ctx_train: int = 8192, cores: int = 2, **asked: Any) -> DeploymentSpec:
    """The spec as it would be deployed, of a model that was trained with so much, on a host of so many cores."""
    host, catalog = HostDouble(), CatalogDouble()
    host.cores = cores
    model = msgspec.structs.replace(MODEL, shape=msgspec.structs.replace(MODEL.shape, ctx_train=ctx_train))
    catalog.get = AsyncMock(return_value=model)  # type: ignore[method-assign]
    engines = EngineRegistry([EngineDouble(), AttachDouble()])
    capacity = Capacity(host, engines, cast(Any, catalog), Settings)
    return (await capacity.complete(DeploymentSpec(name="d", model="m", **asked)))[0]


@pytest.mark.parametrize("ctx, parallel, least", [(1, 4, 1024), (1, 1, 256), (1023, 4, 1024), (255, 1, 256)])
async def test_a_context_that_no_engine_gives_out_is_refused_with_the_least_that_is(
    ctx: int, parallel: int, least: int
) -> None:
    """An engine aborts over a conversation of one cell, and gives 256 where 16 were planned."""
    with pytest.raises(Invalid, match=rf"ctx is {ctx}.*that is {ctx // parallel} for a.*--ctx {least} or more"):
        await complete(ctx=ctx, parallel=parallel)
    assert (await complete(ctx=least, parallel=parallel)).ctx == least


async def test_a_model_that_was_trained_with_less_gets_what_it_knows() -> None:
    assert (await complete(ctx_train=128, ctx=256, parallel=2)).ctx == 256
    assert (await complete(ctx_train=128)).ctx == 128


async def test_more_threads_than_usable_cores_are_refused() -> None:
    with pytest.raises(Invalid, match=r"threads is 3.*2 cores are usable on this host.*2 or less"):
        await complete(threads=3)
    with pytest.raises(Invalid, match="1 core is usable"):
        await complete(threads=2, cores=1)
    assert (await complete(threads=2)).threads == 2


@pytest.mark.parametrize("parallel, less, more", [(3, 2, 4), (7, 4, 8), (12, 8, 16)])
async def test_slots_of_an_embedding_model_that_would_end_its_engine_are_refused(
    parallel: int, less: int, more: int
) -> None:
    with pytest.raises(Invalid, match=rf"cannot have {parallel} slots.*--parallel {less} or {more}"):
        await complete(embedding=True, parallel=parallel, ctx=parallel * 512)
    for each in (less, more):
        assert (await complete(embedding=True, parallel=each, ctx=each * 512)).parallel == each
    assert (await complete(parallel=parallel, ctx=parallel * 512)).parallel == parallel


async def test_a_model_that_pools_nothing_is_deployed_for_no_embeddings_but_where_an_engine_answers_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CatalogDouble, "pools", AsyncMock(return_value=False))
    with pytest.raises(Invalid, match=r"makes no embeddings of texts.*pooling_type.*leave out --embedding"):
        await complete(embedding=True)
    assert (await complete()).embedding is False
    able = msgspec.structs.replace(EngineDouble.abilities, unpooled=True)
    monkeypatch.setattr(EngineDouble, "abilities", able)
    assert (await complete(embedding=True)).embedding


async def test_a_url_is_not_dropped_for_an_engine_that_runs_here() -> None:
    with pytest.raises(Invalid, match="--url names a server elsewhere"):
        await complete(engine="xllamacpp", url="http://h")


async def test_an_attached_server_has_threads_and_contexts_of_its_own() -> None:
    assert (await complete(engine="attach", url="http://h", threads=99, ctx=1)).threads == 99


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "https://api.example.com/openai/", "http://[::1]:9", "http://10.0.0.7/a/b~c"]
)
def test_the_url_of_a_server_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8080", "ftp://host", "http://", "http://host:0", "http://host:99999", "http://host:x", "http://[::1",
        "http://host/a b", "http://host/\r\nX-Evil: 1", "http://ho st", "http://host/#f", "unix:///tmp/s", "http://h\u00f6st",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    """Its parts go into the head of a request."""
    with pytest.raises(Invalid, match="is no URL of a server"):
        check_url(url)


@pytest.mark.parametrize("url", ["http://me:hunter2@host", "http://hunter2@host", "https://host/v1?api_key=hunter2"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Invalid, match="holds no user, key or query") as told:
        check_url(url)
    assert "hunter2" not in str(told.value.body())
