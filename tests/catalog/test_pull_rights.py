"""Who may pull from where, and that a token is said to its hub and to nobody else."""

import json
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

import certs
import msgspec
import pytest
from aiohttp import web as served
from hub_double import Fault, HubDouble
from pullworld import BOB, ME, NAME, REPO, SOURCE, STRANGER, World, model

from core.catalog.pull.web import NotReached, Web, public
from core.client.pull import hub_token
from core.errors import CorralError, Invalid, NeedsToken, NotAllowed
from core.nouns import Actor, Grant, Subject

pytestmark = pytest.mark.usefixtures("small_steps")
TOKEN = "hf_MarkerMarkerMarkerMarker"
LIBRARIAN = Actor(uid=1300, name="lib")


@pytest.fixture
def gated(hub: HubDouble) -> bytes:
    made = model(200_000)
    hub.repos[REPO] = {NAME: made}
    hub.gated, hub.token = {REPO}, TOKEN
    return made


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("127.9.9.9", False),
        ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("255.255.255.255", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("::", False),
        ("nonsense", False),
    ],
)  # fmt: skip
def test_an_address_is_the_internets_own_or_not(address: str, is_public: bool) -> None:
    assert public(address) is is_public


async def test_a_private_address_needs_its_permission_and_the_refusal_is_recorded(
    world: World, hub: HubDouble, gated: bytes
) -> None:
    hub.files["x.gguf"] = model(2000)
    world.gate.rights = world.gate.rights.__class__(
        mode="system", owner_uid=1,
        grants=[Grant(id="g2", what="librarian", subject=Subject(kind="user", name="lib", id=1300), by="root", at=0.0)],
    )  # fmt: skip
    for source in (f"{hub.url}/files/x.gguf", hub.url.replace("127.0.0.1", "2130706433") + "/files/x.gguf"):
        with pytest.raises(NotAllowed, match=r"models\.pull-private"):
            await world.pull(source, LIBRARIAN)
    with pytest.raises(NotAllowed, match=r"models\.pull-private"):  # a mirror that the caller names
        await world.pull(SOURCE, LIBRARIAN, endpoint=hub.url.replace("127.0.0.1", "localhost"))
    assert hub.asked == []
    refused = [r for r in await world.audit.ls() if r.verb == "models.pull" and r.outcome == "refused"]
    assert len(refused) == 3 and refused[0].actor == "lib"
    hub.gated = set()
    plan = await world.pulls.plan(LIBRARIAN, "request1", SOURCE, secret="", endpoint="", ctx=0)
    assert plan.choices, "the hub that the settings name may be there"
    with pytest.raises(NotAllowed):
        await world.pull(SOURCE, STRANGER)


async def test_a_redirect_to_a_private_address_is_refused_too(hub: HubDouble) -> None:
    """The first host is at an address of the internet, as far as its name says."""
    hub.files["x.gguf"] = model(2000)
    port = int(hub.url.rpartition(":")[2])

    async def look(host: str, _: int) -> Sequence[str]:
        return ["127.0.0.1"]

    net = Web(private=False, trusted=["outside.example"], look=look)
    hub.faults.append(Fault(redirect=f"http://inside.example:{port}/files/x.gguf"))
    with pytest.raises(NotAllowed, match=r"inside\.example is at 127\.0\.0\.1"):
        async with net.get(f"http://outside.example:{port}/files/x.gguf"):
            pass
    await net.close()
    assert len(hub.asked) == 1


async def test_a_name_that_means_another_address_a_moment_later_gains_nothing(hub: HubDouble) -> None:
    told = [["93.184.216.34"], ["127.0.0.1"]]

    async def look(host: str, _: int) -> Sequence[str]:
        return told.pop(0) if len(told) > 1 else told[0]

    net = Web(private=False, look=look)
    with pytest.raises(NotAllowed):
        async with net.get(f"https://rebinds.example:{hub.url.rpartition(':')[2]}/files/x.gguf"):
            pass
    await net.close()
    assert hub.asked == []


async def test_the_internet_is_not_asked_without_tls_and_no_redirect_leaves_it() -> None:
    async def look(host: str, _: int) -> Sequence[str]:
        return ["93.184.216.34"]

    net = Web(private=True, look=look)
    with pytest.raises(Invalid, match="without TLS"):
        await net.check("http://somewhere.example/x.gguf")
    with pytest.raises(Invalid, match="nothing is pulled from"):
        await net.check("file:///etc/passwd")


async def test_a_gated_repository_wants_a_token_and_takes_the_right_one(
    world: World, hub: HubDouble, gated: bytes
) -> None:
    pull = await world.pulled(SOURCE)
    assert pull.state == "needs token" and pull.error is not None and pull.error.code == "needs_token"
    assert "hf auth login" in pull.error.todo
    await world.pulls.resume(ME, "request2", pull.id, secret="hf_wrong")
    pull = await world.ended(pull)
    assert pull.state == "needs token" and pull.error is not None and "does not let us in" in pull.error.what
    await world.pulls.resume(ME, "request3", pull.id, secret=TOKEN)
    assert (await world.ended(pull)).state == "done"


async def test_a_token_is_said_to_its_hub_alone(world: World, hub: HubDouble, gated: bytes) -> None:
    assert (await world.pulled(SOURCE, secret=TOKEN)).state == "done"
    assert {each.token for each in hub.of("hub") + hub.of("api")} == {f"Bearer {TOKEN}"}
    assert {each.token for each in hub.of("cdn")} == {""}
    hub.files["x.gguf"] = model(3000)
    await world.pulled(f"{hub.url}/files/x.gguf", secret=TOKEN, name="n")
    assert {each.token for each in hub.of("web")} == {""}


async def test_after_a_restart_a_gated_pull_waits_for_its_owners_token(
    world: World, hub: HubDouble, gated: bytes
) -> None:
    id = (await world.stands(secret=TOKEN)).id
    await world.close()
    world.flows()
    before = len(hub.asked)
    await world.open()
    pull = world.pulls.get(id)
    assert pull.state == "needs token" and pull.error is not None and pull.bytes_done > 0
    assert len(hub.asked) == before
    with pytest.raises(NeedsToken, match="ada began it"):
        await world.pulls.resume(BOB, "request2", id, secret=TOKEN)
    with pytest.raises(NeedsToken):
        await world.pulls.resume(ME, "request3", id)
    await world.pulls.resume(ME, "request4", id, secret=TOKEN)
    assert (await world.ended(pull)).state == "done"
    assert next(each.range for each in reversed(hub.of("cdn"))) != ""


async def test_what_follows_the_question_mark_is_asked_for_anew_after_a_restart(
    world: World, hub: HubDouble, gated: bytes
) -> None:
    hub.files["x.gguf"] = model(200_000)
    address = f"{hub.url}/files/x.gguf"

    def stop(count: int) -> None:
        hub.gate.clear()

    hub.on_bytes = stop
    pull = await world.pull(f"{address}?sig=s3cr3t")
    await world.until(pull.id, lambda now: now.bytes_done > 0)
    await world.close()
    world.flows()
    assert b"s3cr3t" not in b"".join(each.read_bytes() for each in world.paths.root.rglob("*") if each.is_file())
    await world.open()
    assert world.pulls.get(pull.id).state == "needs token"
    with pytest.raises(Invalid, match="another address"):
        await world.pulls.resume(ME, "request2", pull.id, source=f"{hub.url}/files/y.gguf?sig=s3cr3t")
    await world.pulls.resume(ME, "request3", pull.id, source=f"{address}?sig=s3cr3t")
    assert (await world.ended(pull)).state == "done"
    assert hub.of("web")[-1].path.endswith("?sig=s3cr3t")


async def test_a_token_is_in_no_file_event_record_error_or_log(
    world: World, hub: HubDouble, gated: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    publish = world.bus.publish
    world.bus.publish = lambda *args, **named: said.append((args, named)) or publish(*args, **named)  # type: ignore
    told: list[str] = []
    for source, endpoint, fault in (
        ("hf:acme/none", "", None), (SOURCE, "http://127.0.0.1:9", None), (SOURCE, "", Fault(status=403)),
        (SOURCE, "", Fault(status=401)), (SOURCE, "", Fault(status=500)), ("hf:acme/x@nope", "", None),
    ):  # fmt: skip
        if fault is not None:
            hub.api_faults.append(fault)
        with pytest.raises(CorralError) as error:
            await world.pull(source, secret=TOKEN, endpoint=endpoint, name="n")
        told.append(repr(error.value) + str(error.value) + json.dumps(msgspec.to_builtins(error.value.body())))
    with pytest.raises(Invalid) as error:
        await world.pull(SOURCE, secret=TOKEN + "\r\nX: y")
    told.append(str(error.value))
    hub.faults += [Fault(cut=30_000), Fault(status=500), Fault(redirect="http://127.0.0.1:9/x"), Fault(hang=False)]
    id = (await world.stands(secret=TOKEN)).id
    world.flows()
    assert (await world.until(id, lambda now: now.state not in ("pulling", "storing", "waiting"))).state == "done"
    hub.repos[REPO][NAME] = model(3000, b"\2")  # what is stored need not be let in to
    again = await world.pulled(SOURCE, secret=TOKEN[:-1], name="o")
    assert again.state == "needs token"
    await world.close()
    for path in world.paths.root.rglob("*"):
        assert not path.is_file() or b"MarkerMarker" not in path.read_bytes(), path
    await world.open()
    for each in (*told, repr(said), caplog.text, repr([r for r in await world.audit.ls(limit=1000)])):
        assert "MarkerMarker" not in each
    assert b"MarkerMarker" not in Path("/proc/self/cmdline").read_bytes()


async def test_the_daemons_own_token_is_said_for_nobody(
    world: World, hub: HubDouble, gated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon was started by somebody who has one in his environment."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    world.environ |= {"HF_TOKEN": TOKEN, "PATH": "/bin"}
    assert (await world.pulled(SOURCE)).state == "needs token"
    assert {each.token for each in hub.asked} == {""}


async def test_rights_that_were_taken_away_end_a_pull_that_goes_on(world: World, hub: HubDouble, gated: bytes) -> None:
    hub.gated = set()
    id = (await world.stands()).id
    world.flows()
    await world.close()
    world.grants, before = [], len(hub.asked)
    await world.open()
    world.gate.rights = world.gate.rights.__class__(mode="system", owner_uid=1)
    done = await world.until(id, lambda now: now.state in ("failed", "done"))
    assert done.state == "failed" and done.error is not None and done.error.code == "not_allowed"
    assert world.left_over() == [] and len(hub.asked) == before


async def test_a_proxy_is_asked_and_may_be_anywhere(world: World, hub: HubDouble, gated: bytes) -> None:
    hub.gated = set()
    passed: list[str] = []

    async def proxied(request: served.Request) -> served.StreamResponse:
        passed.append(request.path_qs if "://" in request.path_qs else str(request.rel_url))
        return served.Response(status=502)

    app = served.Application()
    app.router.add_route("*", "/{tail:.*}", proxied)
    runner = served.AppRunner(app, access_log=None)
    await runner.setup()
    site = served.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    net = Web(private=False, environ={"HTTP_PROXY": f"http://localhost:{port}", "no_proxy": "direct.example"})
    try:
        async with net.get("http://name.of.nobody.invalid/x.gguf") as answer:
            assert answer.status == 502
        assert net.proxy("http://direct.example/x") is None
    finally:
        await net.close()
        await runner.cleanup()
    assert passed


def test_the_token_is_read_where_the_hubs_own_tools_keep_it(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "hf")}
    assert hub_token(home) == ""
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_home\n")
    (tmp_path / "t").write_text(" hf_path ")
    assert hub_token(home) == "hf_home"
    assert hub_token({**home, "HF_TOKEN_PATH": str(tmp_path / "t")}) == "hf_path"
    assert hub_token({**home, "HF_TOKEN": " hf_env\n"}) == "hf_env"
    (tmp_path / "hf/token").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="holds no token"):
        hub_token(home)


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(tmp_path: Path) -> None:
    issued, _ = certs.issued(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)

    async def given(request: served.Request) -> served.StreamResponse:
        return served.Response(body=b"GGUF")

    app = served.Application()
    app.router.add_get("/x.gguf", given)
    runner = served.AppRunner(app, access_log=None)
    await runner.setup()
    await served.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    url = f"https://localhost:{runner.addresses[0][1]}/x.gguf"
    wary, trusting = Web(private=True), Web(private=True, tls=certs.trusting(issued))
    try:
        with pytest.raises(NotReached, match="not one that this host trusts"):
            async with wary.get(url):
                pass
        async with trusting.get(url) as answer:
            assert await answer.piece() == b"GGUF"
    finally:
        await wary.close()
        await trusting.close()
        await runner.cleanup()


async def test_what_asks_the_hub_goes_nowhere_else(world: World, hub: HubDouble, gated: bytes) -> None:
    """Its library follows redirects; no name but the hub's means anything to it."""
    hub.api_faults.append(Fault(redirect=hub.cdn.replace("127.0.0.1", "localhost") + "/api/models/acme/tiny-GGUF"))
    with pytest.raises(NotReached):
        await world.pull(SOURCE, secret=TOKEN)
    assert {each.server for each in hub.asked} == {"api"}


async def test_without_the_hubs_library_the_line_that_installs_it_is_told(
    world: World, hub: HubDouble, gated: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.catalog.pull.hub.importlib.util.find_spec", lambda name: None)
    with pytest.raises(Invalid, match="huggingface-hub is not installed"):
        await world.pull(SOURCE)
    hub.files["x.gguf"] = model(3000)
    monkeypatch.undo()
    assert (await world.pulled(f"{hub.url}/files/x.gguf")).state == "done"
