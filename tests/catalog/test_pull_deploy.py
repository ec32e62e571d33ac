"""What is deployed when its pull is stored: by the daemon, once, by whom asked, with the rights of that moment."""

import msgspec
import pytest
from hub_double import HubDouble
from pullworld import BOB, ME, NAME, REPO, SOURCE, World, model

from core.access import Rights
from core.api.sight import Sight
from core.catalog.pull import later, rows
from core.errors import Conflict, Invalid, NoRoom, NotAllowed, NotFound, StoreError
from core.nouns import Actor, DeploymentSpec, Event, Grant, ImportOptions, ModelShape, Plan, Pull, PulledDeploy, Subject

LIBRARIAN = Actor(uid=1300, name="lib")
pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk put off is tried again without a pause."""
    monkeypatch.setattr(later, "PAUSES_S", (0.0,))


def chat(name: str = "chat", *, replace: bool = False, **fields: object) -> PulledDeploy:
    return PulledDeploy(spec=DeploymentSpec(name=name, model="?", **fields), replace=replace)  # type: ignore[arg-type]


async def stands(world: World, **fields: object) -> Pull:
    """A pull that has begun, and whose server stands still."""
    return await world.stands(**{"deploy": chat(), **fields})


async def settled(world: World, pull: Pull) -> PulledDeploy:
    """What became of what was to be deployed."""
    deploy = (await world.until(pull.id, lambda now: not now.open)).deploy
    assert deploy is not None
    return deploy


def librarian(world: World, *more: str) -> None:
    """He may pull; and what is said."""
    user = Subject(kind="user", name="lib", id=LIBRARIAN.uid)
    grants = [
        Grant(id=f"g{n}", what=what, subject=user, by="root", at=0.0) for n, what in enumerate(("librarian", *more))
    ]
    world.grants = grants
    world.gate.rights = Rights(mode="system", owner_uid=1, grants=grants)


async def test_it_is_deployed_as_it_was_said_when_it_is_stored(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world, deploy=chat(ctx=8192, parallel=2, replace=True))
    assert pull.deploy is not None and pull.deploy.state == "waits" and pull.deploy.spec.model == "m"
    assert world.deployments.made == []
    world.flows()
    became = await settled(world, pull)
    ((actor, request, spec, replace),) = world.deployments.made
    assert (actor, request, replace, became.state) == (ME, "request1", True, "done")
    assert (spec.name, spec.model, spec.ctx, spec.parallel) == ("chat", "m", 8192, 2)
    hub.repos[REPO] = {NAME: model(200_000, b"\2")}
    second = await settled(world, await world.pull(SOURCE, name="m", deploy=chat("next")))
    assert second.spec.model == "m@2", "its very version, not what the name means"


@pytest.mark.parametrize(
    ("said", "weighed"), [({"parallel": 4}, 4 * 4096), ({"parallel": 4, "ctx": 1024}, 1024), ({}, 0)]
)
async def test_the_quantisation_is_chosen_for_all_that_it_is_to_serve(
    world: World, hub: HubDouble, data: bytes, said: dict[str, int], weighed: int
) -> None:
    asked, plan = [], world.pulls._finder._plan

    async def planned(shape: ModelShape, ctx: int) -> Plan:
        asked.append(ctx)
        return await plan(shape, ctx)

    world.pulls._finder._plan = planned
    await settled(world, await world.pull(SOURCE, deploy=chat(**said)))  # type: ignore[arg-type]
    assert set(asked) == {weighed}


async def test_it_survives_the_daemon_and_happens_once(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world)
    await world.close()
    world.flows()
    await world.open()
    assert (await settled(world, pull)).state == "done"
    for _ in range(2):
        await world.again()
        await settled(world, pull)
    assert len(world.deployments.made) == 1


@pytest.mark.parametrize("when", ["before it was deployed", "after it was"])
async def test_a_kill_around_that_moment_deploys_it_once(world: World, hub: HubDouble, data: bytes, when: str) -> None:
    pull = await world.pull(SOURCE, deploy=chat())
    await settled(world, pull)
    if when.startswith("before"):  # as a daemon leaves it that is killed between the two
        row = world.pulls._running.row(pull.id)
        waits = msgspec.structs.replace(row.pull, deploy=chat())
        await world.store.transact(lambda db: rows.put(db, msgspec.structs.replace(row, pull=waits)))
        world.deployments.made.clear()
    await world.again()
    assert (await settled(world, pull)).state == "done"
    assert len(world.deployments.made) == 1


async def test_whoever_may_not_deploy_is_told_before_the_first_byte(world: World, hub: HubDouble, data: bytes) -> None:
    rights = world.gate.rights
    librarian(world)
    with pytest.raises(NotAllowed, match=r"deployments\.create"):
        await world.pull(SOURCE, LIBRARIAN, deploy=chat())
    assert hub.asked == [] and world.pulls.ls() == []
    assert [r.verb for r in await world.audit.ls() if r.outcome == "refused"] == ["deployments.create"]
    world.gate.rights = rights
    world.deployments.unforeseen = Conflict("deployment 'chat' exists")
    with pytest.raises(Conflict, match="exists"):
        await world.pull(SOURCE, deploy=chat())
    assert world.pulls.ls() == []


async def test_a_right_that_was_lost_meanwhile_is_looked_at_again_and_told(
    world: World, hub: HubDouble, data: bytes
) -> None:
    librarian(world, "operator")
    pull = await stands(world, actor=LIBRARIAN)
    librarian(world)
    world.flows()
    became = await settled(world, pull)
    assert became.state == "failed" and became.error is not None and became.error.code == "not_allowed"
    assert world.deployments.made == [] and (await world.catalog.get("m")).version == 1
    refused = [r for r in await world.audit.ls() if r.outcome == "refused"]
    assert [(r.actor, r.verb, r.object) for r in refused] == [("lib", "deployments.create", "deployment:chat")]
    await world.again()
    assert world.pulls.get(pull.id).deploy == became


async def test_for_one_who_has_left_the_host_nothing_is_deployed(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world)
    world.deployments.left.add("ada")
    world.flows()
    became = await settled(world, pull)
    assert became.state == "failed" and became.error is not None and "not on this host" in became.error.what


async def test_what_has_no_room_when_it_is_here_fails_and_is_not_tried_again(
    world: World, hub: HubDouble, data: bytes
) -> None:
    world.deployments.refused = NoRoom("chat does not fit", "2 GiB are missing")
    pull = await world.pull(SOURCE, deploy=chat())
    became = await settled(world, pull)
    assert became.state == "failed" and became.error is not None and became.error.code == "no_room"
    world.deployments.refused = None
    await world.pulls.mend()
    await world.again()
    assert world.deployments.made == [] and world.pulls.get(pull.id).deploy == became


async def test_a_disk_that_takes_no_record_puts_it_off(world: World, hub: HubDouble, data: bytes) -> None:
    world.deployments.refused = StoreError("the database cannot be written")
    pull = await world.pull(SOURCE, deploy=chat())
    now = await world.until(pull.id, lambda now: now.deploy is not None and now.deploy.error is not None)
    assert now.state == "done" and now.open and now.deploy is not None and now.deploy.error is not None
    assert "tried again" in now.deploy.error.todo
    world.deployments.refused = None
    await world.pulls.mend()
    assert (await settled(world, pull)).error is None
    assert len(world.deployments.made) == 1


async def test_it_may_be_left_undeployed_while_it_comes(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world)
    world.gate.rights = Rights(mode="system", owner_uid=1, grants=world.grants)
    with pytest.raises(NotAllowed):
        await world.pulls.undeploy(Actor(uid=99, name="eve"), "request2", pull.id)
    left = await world.pulls.undeploy(BOB, "request2", pull.id)
    assert left.deploy is not None and left.deploy.state == "dropped" and left.state == "pulling"
    with pytest.raises(Conflict, match="nothing is deployed"):
        await world.pulls.undeploy(BOB, "request3", pull.id)
    world.flows()
    done = await world.ended(pull)
    assert done.state == "done" and done.deploy == left.deploy
    await world.again()
    assert world.deployments.made == []
    (record,) = [r for r in await world.audit.ls() if r.verb == "models.pull-undeploy" and r.outcome == "done"]
    assert (record.actor, record.object) == ("bob", "model:m")
    with pytest.raises(NotFound):
        await world.pulls.undeploy(BOB, "request3", "nosuch")


async def test_one_that_is_left_undeployed_in_the_last_moment_is_not_deployed(
    world: World, hub: HubDouble, data: bytes
) -> None:
    pull = await stands(world)
    world.deployments.before = lambda: world.pulls.undeploy(BOB, "request2", pull.id)
    world.flows()
    became = await settled(world, pull)
    assert became.state == "dropped" and world.deployments.made == []
    await world.again()
    assert world.deployments.made == [] and world.pulls.get(pull.id).deploy == became


async def test_said_again_it_deploys_the_version_that_is_here(world: World, hub: HubDouble, data: bytes) -> None:
    await world.pulled(SOURCE)
    hub.sent = 0
    first, again = [await settled(world, await world.pull(SOURCE, deploy=chat())) for _ in range(2)]
    assert (first.state, first.changed, again.state, again.changed) == ("done", True, "done", False)
    assert first.spec.model == "m" and len(await world.catalog.versions("m")) == 1 and hub.sent == 0
    hub.repos[REPO] = {NAME: model(200_000, b"\2")}
    await world.pulled(SOURCE)
    live = await world.pull(SOURCE, deploy=chat("live"), options=ImportOptions(live=True))
    assert (await settled(world, live)).state == "dropped", "what it asked of the name is not done"
    assert "m@2 is the same already" in str(world.pulls.get(live.id).error)


async def test_a_name_that_is_taken_is_refused_before_the_first_byte_unless_the_version_is_here(
    world: World, hub: HubDouble, data: bytes
) -> None:
    foreseen: list[bool] = []

    async def foresee(spec: DeploymentSpec, *, replace: bool) -> None:
        foreseen.append(replace)
        if not replace:
            raise Conflict("deployment 'chat' exists")

    world.deployments.foresee = foresee  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="exists"):
        await world.pull(SOURCE, deploy=chat())
    assert hub.sent == 0 and foreseen == [True, False]
    await world.pulled(SOURCE)
    assert (await settled(world, await world.pull(SOURCE, deploy=chat()))).state == "done"
    librarian(world)
    with pytest.raises(NotAllowed, match=r"deployments\.create"):
        await world.pull(SOURCE, LIBRARIAN, deploy=chat())


async def test_of_a_cancelled_one_nothing_is_deployed(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world)
    cancelled = await world.pulls.cancel(ME, "request2", pull.id)
    assert cancelled.deploy is not None and cancelled.deploy.state == "dropped" and not cancelled.open
    world.flows()
    await world.again()
    assert world.deployments.made == []


async def test_a_bad_spec_is_refused_as_it_would_be_later(world: World, hub: HubDouble, data: bytes) -> None:
    world.deployments.unforeseen = Invalid("parallel is 300", "it may be 1 to 256")
    with pytest.raises(Invalid):
        await world.pull(SOURCE, deploy=chat(parallel=300))
    assert hub.asked == []


async def test_who_may_not_see_the_deployment_does_not_hear_of_it(world: World, hub: HubDouble, data: bytes) -> None:
    pull = await stands(world)
    user = Subject(kind="user", name="lib", id=LIBRARIAN.uid)
    reads = Grant(id="g9", what="models.read", subject=user, by="root", at=0.0)
    world.gate.rights = Rights(mode="system", owner_uid=1, grants=[*world.grants, reads])
    event = Event(id="1.1", type="pull", object=f"pull:{pull.id}", time=0.0, data=msgspec.to_builtins(pull))
    theirs, ours = Sight(world.gate, LIBRARIAN), Sight(world.gate, ME)
    assert theirs.event(event) and theirs.told(event).data["deploy"] is None
    assert [each.deploy for each in theirs.pulls([pull])] == [None]
    assert ours.told(event).data["deploy"]["spec"]["name"] == "chat" and ours.pulls([pull]) == [pull]
    world.flows()
    await settled(world, pull)
