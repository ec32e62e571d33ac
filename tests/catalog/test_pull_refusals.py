"""What a server refuses is told as it is: a login that Corral does not say, an expired address, too many questions."""

import time
from email.utils import formatdate

import pytest
from hub_double import Fault, HubDouble
from pullworld import ME, NAME, REPO, SOURCE, World, model

from core.errors import Failed, NeedsToken

pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture
def address(hub: HubDouble) -> str:
    hub.files["tiny.gguf"] = model(200_000)
    return f"{hub.url}/files/tiny.gguf"


@pytest.mark.parametrize(("status", "what"), [(401, "wants a login"), (403, "does not give this file")])
async def test_an_address_that_refuses_is_not_called_gated(
    world: World, hub: HubDouble, address: str, status: int, what: str
) -> None:
    hub.look_faults.append(Fault(status=status))
    with pytest.raises(Failed, match=rf"127\.0\.0\.1 {what}") as told:
        await world.pull(address)
    assert f"answers {status}" in told.value.why and "user, password or token" in told.value.why
    assert not any(word in str(told.value) for word in ("gated", "HF_TOKEN", "licence"))
    assert world.pulls.ls() == []


@pytest.mark.parametrize("way", ["address", "hub"])
async def test_plain_http_behind_an_https_address_is_told_as_that(
    world: World, hub: HubDouble, address: str, way: str
) -> None:
    plain = hub.url.replace("http://", "https://")
    with pytest.raises(Failed) as told:
        if way == "address":
            await world.pull(address.replace("http://", "https://"))
        else:
            await world.pull(SOURCE, endpoint=plain)
    said = str(told.value)
    assert "says https" in said and "port" in said
    assert not any(word in said for word in ("Operation not permitted", "Error", "SSL"))


async def test_a_hub_that_nobody_listens_for_is_told_without_the_librarys_words(world: World, hub: HubDouble) -> None:
    with pytest.raises(Failed, match=r"127\.0\.0\.1 cannot be reached") as told:
        await world.pull(SOURCE, endpoint="http://127.0.0.1:9")
    assert "refused" in told.value.why and "ConnectError" not in str(told.value)


async def test_a_file_whose_name_says_no_quantisation_is_not_called_one(world: World, hub: HubDouble) -> None:
    hub.files["cut.gguf"] = model(20_000)
    hub.repos[REPO] = {"cut.gguf": model(20_000, b"\2")}
    done = await world.pulled(f"{hub.url}/files/cut.gguf")
    assert done.state == "done" and done.quantization != "cut"
    chosen = await world.pulled(f"{SOURCE}:cut", name="n")
    assert (chosen.state, chosen.quantization) == ("done", "")
    assert chosen.model is not None and chosen.model.origin.startswith(f"{SOURCE}:cut@")


async def test_one_that_wants_a_login_on_the_way_lets_the_pull_rest_with_its_bytes(
    world: World, hub: HubDouble, address: str
) -> None:
    pull = await world.stands(address)
    await world.pulls.pause(ME, "r", pull.id)
    world.flows()
    hub.faults.append(Fault(status=403))
    await world.pulls.resume(ME, "r", pull.id)
    rests = await world.ended(pull)
    assert rests.state == "paused" and rests.error is not None and "does not give" in rests.error.what
    await world.pulls.resume(ME, "r", pull.id)
    done = await world.ended(pull)
    assert done.state == "done" and hub.sent < 300_000, done.error


async def test_an_address_that_expired_is_asked_for_anew(world: World, hub: HubDouble, address: str) -> None:
    hub.look_faults.append(Fault(status=403))
    with pytest.raises(NeedsToken, match="does not let us in") as told:
        await world.pull(f"{address}?sig=s3cr3t")
    assert "expired" in told.value.why and "--url ADDRESS" in told.value.todo and "s3cr3t" not in str(told.value)
    hub.faults.append(Fault(status=403))
    assert (await world.pulled(f"{address}?sig=s3cr3t")).state == "needs token"


@pytest.mark.parametrize(("token", "said"), [("", "wants a token"), ("hf_some", "no access to it")])
async def test_a_hub_says_what_its_token_lacks(world: World, hub: HubDouble, token: str, said: str) -> None:
    hub.repos[REPO] = {NAME: model(20_000)}
    hub.faults.append(Fault(status=403))
    done = await world.pulled(SOURCE, secret=token)
    assert done.state == "needs token" and done.error is not None
    assert said in f"{done.error.what}; {done.error.why}"


async def test_429_without_a_time_waits_longer_than_a_cut_and_says_why(
    world: World, hub: HubDouble, address: str
) -> None:
    hub.faults += [Fault(status=429), Fault(status=429), Fault(status=503)]
    done = await world.pulled(address)
    assert done.state == "done", done.error
    assert world.waits == [5, 10, 2]
    assert "asked too often (it answers 429 and does not say for how long): tried again after 5 s" in done.notes[0]
    hub.look_faults.append(Fault(status=429))
    with pytest.raises(Failed, match="asked too often") as told:
        await world.pull(address, name="n")
    assert told.value.todo == "ask again in some minutes"


async def test_a_time_that_a_server_names_is_waited_for_also_as_a_date(
    world: World, hub: HubDouble, address: str
) -> None:
    hub.faults += [Fault(status=429, retry_after=formatdate(time.time() + 120, usegmt=True)), Fault(status=503)]
    assert (await world.pulled(address)).state == "done"
    assert 100 < world.waits[0] <= 120 and world.waits[1] == 1
    hub.look_faults.append(Fault(status=429, retry_after="7"))
    with pytest.raises(Failed, match="cannot give") as told:
        await world.pull(address, name="n")
    assert told.value.todo == "ask again after 7 s"
