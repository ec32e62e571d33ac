"""Where a server of somebody else may be: at an address of the internet, unless whoever named it may more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from world import World

from core.deployments.attached import addresses_of
from core.errors import NotAllowed

PUBLIC, OTHER = "93.184.216.34", "93.184.216.35"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080", "http://localhost:1", "http://10.1.2.3", "http://169.254.169.254", "http://[::1]:8",
        "http://[fe80::1]/base", "http://0.0.0.0:1", "http://2130706433", "http://0x7f.1", "http://[::ffff:10.0.0.1]",
    ],
)  # fmt: skip
async def test_what_is_no_address_of_the_internet_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed, match="no address of the internet") as caught:
        await addresses_of(url, public_only=True)
    assert "deployments.attach-private" in str(caught.value)
    assert await addresses_of(url, public_only=False)


async def test_one_of_the_internet_is_asked_where_it_was_looked_at_and_not_where_its_name_leads_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    means, looks = [PUBLIC], 0

    async def look_up(host: str, port: int) -> Sequence[str]:
        nonlocal looks
        looks += 1
        assert (host, port) == ("far.example", 8080)
        return tuple(means)

    monkeypatch.setattr("core.deployments.attached.look_up", look_up)
    monkeypatch.setattr("core.deployments.attached.LOOK_S", 0.01)
    await world.want("running", url="http://far.example:8080", public=True)
    await world.state("ready")
    route = world.runner.route()
    assert route is not None and (route.endpoint, route.at) == ("tcp:far.example:8080", PUBLIC)
    means.insert(0, OTHER)  # in turn, as resolvers do
    enough = looks + 3
    await world.until(lambda: looks >= enough)
    route = world.runner.route()
    assert route is not None and route.at == PUBLIC
    means[:] = [PUBLIC, "10.0.0.1"]
    await world.state("backoff")
    assert "far.example is at 10.0.0.1" in world.runner.view.reason and world.runner.route() is None
    means[:] = [OTHER]
    await world.state("ready")
    route = world.runner.route()
    assert route is not None and route.at == OTHER


async def test_one_that_was_named_by_who_may_is_asked_by_its_name(world: World) -> None:
    await world.want("running", url="http://127.0.0.1:8080")
    await world.state("ready")
    route = world.runner.route()
    assert route is not None and route.at == ""
