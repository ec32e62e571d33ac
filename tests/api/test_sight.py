"""What of the daemon's state is shown to whom."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from core.api.sight import Sight
from core.nouns import Actor, BenchJob, Event, Pull, Status


@pytest.mark.parametrize(("may", "seen"), [(("nodes.read",), 1), ((), 0)])
def test_a_host_s_figures_are_in_the_status_of_who_may_see_the_host(may: tuple[str, ...], seen: int) -> None:
    gate = SimpleNamespace(may=lambda actor, permission, object: permission in may and object == "node:local")
    node = SimpleNamespace(node="local")
    status = msgspec.structs.replace(cast(Any, _status()), nodes=(node,))
    shown = Sight(cast(Any, gate), Actor(uid=7, name="ann", through="cli")).status(status)
    assert len(shown.nodes) == seen and shown.daemon is status.daemon


def _status() -> Status:
    return Status(
        daemon=cast(Any, SimpleNamespace()), gateway_socket="", gateway_status=cast(Any, SimpleNamespace()), nodes=(),
        deployments={}, replicas={}, models=0, audit_ok=True, audit_message="", audit_records=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("may", "seen"), [(("models.read",), True), (("models.import",), True), (("nodes.read",), False)]
)
def test_a_pull_is_seen_by_who_may_see_or_store_its_model(may: tuple[str, ...], seen: bool) -> None:
    gate = SimpleNamespace(may=lambda actor, permission, object: permission in may and object == "model:tiny")
    pull = Pull(id="p1", name="tiny", source="hf:a/b", state="pulling", owner="ada", started_at=0.0, files=())
    sight = Sight(cast(Any, gate), Actor(uid=7, name="ann", through="cli"))
    assert bool(sight.pulls([pull])) is seen
    event = Event(id="1.1", type="pull", object="pull:p1", time=0.0, data=msgspec.to_builtins(pull))
    assert sight.event(event) is seen


@pytest.mark.parametrize("concerned", [True, False])
def test_that_a_verification_goes_on_is_told_to_whom_it_concerns_and_with_no_more_than_that(concerned: bool) -> None:
    gate = SimpleNamespace(may=lambda actor, permission, object: True)
    sight = Sight(cast(Any, gate), Actor(uid=7, name="ann", through="cli"), lambda actor: concerned)
    assert sight.event(Event(id="1.1", type="verify", object="model:*", time=0.0)) is concerned
    assert not sight.event(Event(id="1.1", type="verify", object="model:*", time=0.0, data={"rotten": ["secret@1"]}))


@pytest.mark.parametrize(("object", "permission"), [("model:tiny", "models.read"), ("node:local", "nodes.read")])
def test_a_measurement_is_seen_by_who_may_see_what_is_measured(object: str, permission: str) -> None:
    event = Event(id="1.1", type="bench", object=object, time=0.0)
    for held in ("models.read", "nodes.read"):
        gate = SimpleNamespace(may=lambda actor, asked, on, held=held: asked == held and on == object)
        sight = Sight(cast(Any, gate), Actor(uid=7, name="ann", through="cli"))
        assert sight.event(event) is (held == permission)
        job = BenchJob(id="b", kind=object.partition(":")[0], object=object, state="measuring", by="ada")
        assert bool(sight.benches([job])) is (held == permission)
