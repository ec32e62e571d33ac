"""A real daemon pulls from the stand-in for a hub, through the command; kill -9 at random moments is no end of it.

`CORRAL_KILL_SEED` repeats a run's choices (not its timing); what was done in which round is printed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hub_double import Fault, HubDouble
from pullworld import model
from tiered import elsewhere

from core.client import Client
from core.errors import NoDaemon
from core.nodes.proc import start_time
from core.nouns import PULL_ENDED, DeploymentSpec, Pull
from core.paths import user_paths

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
REPO = "acme/tiny-GGUF"
TOKEN = "hf_MarkerMarkerMarkerMarker"


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HubDouble]:
    made = HubDouble()
    await made.begin()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield made
    finally:
        await made.end()


async def corral(*args: str, **env: str) -> tuple[int, str, str]:
    """A command and, of the daemons that are killed here, each start as a user's: no fork of one that is loaded."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "tui", *args, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **env},
    )  # fmt: skip
    async with asyncio.timeout(90):
        out, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), said.decode()


def left_over(*tiers: Path) -> list[str]:
    """What lies below the models' folder, and in other tiers, beside the objects."""
    own = (".corral-tier", "objects.json")
    found = [each for folder in (user_paths().models, *tiers) for each in folder.rglob("*")]
    return [str(each) for each in found if each.is_file() and "objects" not in each.parts and each.name not in own]


def copies(*tiers: Path) -> list[Path]:
    folders = [folder / "objects" for folder in (user_paths().models, *tiers)]
    return [each for folder in folders for each in folder.rglob("*") if each.is_file()]


async def test_a_person_looks_pulls_and_has_the_model(home: Path, hub: HubDouble) -> None:
    data = model(3_000_000, **{"general.file_type": 7})  # Q8_0, as its name says
    hub.repos[REPO] = {"tiny-Q8_0.gguf": data, "tiny-Q5_0.gguf": model(2_000_000), "tiny-F16.gguf": model(6_000_000)}
    hub.faults += [Fault(cut=1_000_000)]
    code, out, _ = await corral("models", "pull", f"hf:{REPO}", "--list")
    assert code == 0 and "> " in out and "Q8_0 is the best that fits" in out
    code, out, said = await corral("models", "pull", f"hf:{REPO}")
    assert code == 0 and out.startswith("pulled tiny: 2.9 MiB, licence apache-2.0\nnext: corral deploy tiny"), said
    assert "tried again" in said
    assert (
        json.loads((await corral("models", "show", "tiny", "--json"))[1])["sha256"] == hashlib.sha256(data).hexdigest()
    )
    code, out, _ = await corral("models", "pulls")
    assert code == 0 and "done" in out and "100 %" in out
    assert left_over() == []


async def test_what_arrived_says_in_which_tier_it_lies_and_what_comes_next(
    home: Path, hub: HubDouble, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("tier")
    place.chmod(0o700)
    code, _, said = await corral("tiers", "add", "slow", str(place), "--capacity", "1GiB", "--no-speed", "--default")
    assert code == 0, said
    for n, following in ((1, "corral deploy tiny"), (2, "corral models alias tiny live 2, or corral deploy tiny@2")):
        hub.repos[REPO] = {"tiny-Q8_0.gguf": model(300_000, bytes([n]), **{"general.file_type": 7})}
        code, out, said = await corral("models", "pull", f"hf:{REPO}")
        assert code == 0 and out.endswith(f", in slow\nnext: {following}\n"), out + said
    gone = place.rename(place.with_name("away"))
    try:
        code, out, _ = await corral("models", "verify")
        assert code == 0 and "done: 0 of 2 files" in out and out.count("was not read: the tier slow is not there") == 2
        assert "! tiny@1 is away: the tier slow is not there" in (await corral("models", "ls"))[1]
        code, _, said = await corral("deploy", "tiny")
        assert code == 1 and "the tier slow is not there" in said and "mount it (corral tiers check slow)" in said
    finally:
        gone.rename(place)
    code, out, said = await corral("models", "pull", f"hf:{REPO}", "--name", "twin")
    assert code == 0 and "stored already" in out, said
    code, _, said = await corral("models", "move", "twin", "--to", "home")
    assert code == 2 and "the same bytes: tiny@2. Go on?" in said and "--yes" in said
    code, out, _ = await corral("models", "move", "twin", "--to", "home", "--dry-run")
    assert code == 0 and "would go from slow to home; with it: tiny@2" in out
    code, out, said = await corral("models", "move", "twin", "--to", "home", "--yes")
    assert code == 0 and "moved twin@1, tiny@2 from slow to home" in out, said


async def test_pausing_resuming_cancelling_and_a_token_that_is_asked_for_anew(home: Path, hub: HubDouble) -> None:
    hub.repos[REPO] = {"tiny-Q4_0.gguf": model(3_000_000)}
    hub.gated, hub.token = {REPO}, TOKEN
    code, _, said = await corral("models", "pull", f"hf:{REPO}")
    assert code == 4 and "hf auth login" in said
    hub.on_bytes = lambda count: hub.gate.clear() if hub.sent > 1_000_000 else None
    _, out, _ = await corral("models", "pulls", "-q")
    (id,) = out.split()
    code, out, _ = await corral("models", "pulls", "resume", id, HF_TOKEN=TOKEN)
    assert code == 0, out
    client = await Client.connect(start=False)
    await _until(client, id, lambda pull: pull.bytes_done > 500_000)
    assert "paused" in (await corral("models", "pulls", "pause", id))[1]
    await client.shutdown(models=True)
    hub.on_bytes = lambda count: None
    hub.gate.set()
    code, _, said = await corral("models", "pulls", "resume", id)
    assert code == 4 and "needs a token" in said
    assert (await corral("models", "pulls", "resume", id, HF_TOKEN=TOKEN))[0] == 0
    client = await Client.connect(start=False)
    assert (await _until(client, id, lambda pull: pull.state in PULL_ENDED)).state == "done"
    for path in user_paths().root.rglob("*"):
        assert not path.is_file() or b"MarkerMarker" not in path.read_bytes(), path
    code, out, said = await corral("models", "pull", f"hf:{REPO}", "--name", "o", HF_TOKEN=TOKEN)
    assert code == 0 and "its bytes were stored already: no second copy is kept" in out, said
    assert "nothing is fetched" in said and len(copies()) == 1
    hub.gate.clear()
    hub.repos[REPO] = {"tiny-Q4_0.gguf": model(2_000_000, b"\2")}
    _, out, _ = await corral("models", "pull", f"hf:{REPO}", "--name", "n", "--detach", "-q", HF_TOKEN=TOKEN)
    assert "cancelled" in (await corral("models", "pulls", "cancel", out.strip()))[1]
    assert left_over() == []


async def test_what_it_is_to_be_deployed_as_is_the_next_daemons_after_a_kill(home: Path, hub: HubDouble) -> None:
    hub.repos[REPO] = {"tiny-Q8_0.gguf": model(3_000_000)}
    hub.on_bytes = lambda count: hub.gate.clear() if hub.sent > 1_000_000 else None
    how = ("--deploy", "chat", "--parallel", "2", "--ctx", "512")
    code, out, said = await corral("models", "pull", f"hf:{REPO}", *how, "--detach")
    assert code == 0 and "it is deployed as chat when it is here" in out, out + said
    client = await _client()
    (begun,) = await client.pulls.ls()
    await _until(client, begun.id, lambda pull: pull.bytes_done > 500_000)
    pid = (await client.status()).daemon.pid
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)
    client = await _client()
    code, out, _ = await corral("models", "pulls")
    assert code == 0 and f"{begun.id}: deployed as chat when it is here" in out
    hub.on_bytes = lambda count: None
    hub.gate.set()
    pull = await _until(client, begun.id, lambda pull: not pull.open)
    assert pull.state == "done" and pull.deploy is not None and pull.deploy.state == "done", pull
    (found,) = await client.deployments()
    assert (found.spec.name, found.spec.model, found.spec.ctx, found.spec.parallel) == ("chat", "tiny", 512, 2)
    (record,) = [each for each in await client.audit() if each.verb == "deployments.create"]
    assert record.outcome == "done" and record.object == "deployment:chat"
    code, out, said = await corral("models", "pull", f"hf:{REPO}", *how)
    assert code == 0 and "here already: tiny" in out and "chat is deployed just so already" in out, out + said
    assert [each.spec.name for each in await client.deployments()] == ["chat"]
    code, _, said = await corral("models", "pull", f"hf:{REPO}", "--name", "o", "--deploy", "chat")
    assert code == 1 and "exists" in said and "--replace" in said
    code, _, said = await corral("models", "pull", f"hf:{REPO}", "--name", "o", "--deploy", "o", "--threads", "99")
    assert code == 2 and "threads is 99" in said
    await client.remove_deployment("chat")


async def test_kill_9_at_a_handful_of_moments(home: Path, hub: HubDouble) -> None:
    with elsewhere(home) as fast:
        await _killed(hub, fast, rounds=6)


@pytest.mark.soak
@pytest.mark.timeout(7200)  # some 10 s a round, and more beside other work
async def test_kill_9_at_hundreds_of_moments(home: Path, hub: HubDouble) -> None:
    with elsewhere(home) as fast:
        await _killed(hub, fast, rounds=int(os.environ.get("CORRAL_KILL_ROUNDS", "300")))


async def _until(client: Client, id: str, when: object) -> Pull:
    async with asyncio.timeout(60):
        while not when(pull := await client.pulls.get(id)):  # type: ignore[operator]
            await asyncio.sleep(0.02)
    return pull


async def _killed(hub: HubDouble, fast: Path, rounds: int) -> None:
    """In each round one pull and one to three kills of the daemon, each at a random moment from the first request to
    the last byte stored: one good copy afterwards, and not a byte beside it, nor one that is promised; or none, where a
    person cancels it. Every other model lands in a tier on another file system. Now and then its bytes are pulled under
    another name too, and a kill meets that. Each is deployed once when it is stored, and what was cancelled is not."""
    seed = int(os.environ.get("CORRAL_KILL_SEED") or time.time())
    print(f"CORRAL_KILL_SEED={seed}")
    chance = random.Random(seed)
    await (await _client()).tiers.add("fast", str(fast), capacity=2 << 20)
    for n in range(rounds):
        await (await _client()).tiers.set(("home", "fast")[n % 2], landing=True)
        data = model(chance.randrange(100_000, 1_500_000), bytes([n % 250 + 1]))
        hub.repos[REPO] = {"tiny-Q4_0.gguf": data}
        hub.faults.clear()
        hub.faults += [Fault(slow_s=chance.choice([0, 0.0002])), *[Fault(cut=chance.randrange(1, 90_000))] * (n % 3)]
        begun, kills = None, list[str]()
        spec = DeploymentSpec(name=f"d{n}", model="m", ctx=256, replicas=0)  # nothing is started
        asks = {"name": "m", "deploy": {"spec": spec, "replace": False}}
        for _ in range(chance.randint(1, 3)):
            client = await _client()
            pid = (await client.status()).daemon.pid
            known = begun or await client.models() or [p for p in await client.pulls.ls() if p.state not in PULL_ENDED]
            asked = None if known else asyncio.create_task(client.pulls.begin(f"hf:{REPO}", **asks))
            after_s = chance.random() * (2.0 if asked else 0.7)
            await asyncio.sleep(after_s)
            os.kill(pid, signal.SIGKILL)
            kills.append(f"{'begun' if asked else 'going on'} {after_s:.2f} s")
            if asked is not None:
                begun = await _answer(asked)
            await _gone(pid)
        print(f"round {n} ({len(data)} bytes, {('home', 'fast')[n % 2]}): killed after {', '.join(kills)}", flush=True)
        client = await _client()
        pulls = [each for each in await client.pulls.ls() if each.state not in PULL_ENDED]
        if begun is None and not pulls and not await client.models():
            begun = await client.pulls.begin(f"hf:{REPO}", **asks)  # it was killed before it knew of it
        if pulls and chance.random() < 0.25:
            ended = await client.pulls.cancel(pulls[0].id)
            if ended.state == "cancelled":
                assert await client.models() == [] and copies(fast) == [] and left_over(fast) == [], f"round {n}"
                assert await _promised(client) == 0 and await client.deployments() == [], f"round {n}"
                continue
        for each in [*pulls, *([begun] if begun else [])]:
            ended = await _until(client, each.id, lambda pull: pull.state in (*PULL_ENDED, "paused", "needs token"))
            assert ended.state == "done", ended
        last = await _until(client, (await client.pulls.ls())[-1].id, lambda pull: not pull.open)
        assert last.deploy is not None and last.deploy.state == "done", last
        assert [each.spec.name for each in await client.deployments()] == [spec.name], f"round {n}"
        made = await client.audit(verb="deployments.create", object=f"deployment:{spec.name}")
        assert [each.outcome for each in made] == ["done"], f"round {n}"
        await client.remove_deployment(spec.name)
        (stored,) = await client.models()
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert stored.tier == ("home", "fast")[n % 2], f"round {n}"
        if chance.random() < 0.3:
            client = await _named_too(hub, chance.random() * 0.3)
        (copy,) = copies(fast)
        assert copy.read_bytes() == data, f"round {n}"
        assert left_over(fast) == [] and await _promised(client) == 0, f"round {n}"
        for each_model in await client.models():
            await client.remove_model(each_model.name)
        assert copies(fast) == []
    client = await _client()
    assert (await client.verify_audit()).ok
    await client.shutdown(models=True)


async def _named_too(hub: HubDouble, after_s: float) -> Client:
    """Pull what is stored under another name, and kill the daemon meanwhile: nothing is fetched. A client of the
    next."""
    client, sent = await _client(), hub.sent
    pid = (await client.status()).daemon.pid
    begun = await client.pulls.begin(f"hf:{REPO}", name="twin")
    await asyncio.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)
    client = await _client()
    ended = await _until(client, begun.id, lambda pull: pull.state in (*PULL_ENDED, "paused"))
    assert ended.state == "done" and hub.sent == sent, ended
    assert {model.name for model in await client.models()} == {"m", "twin"}
    return client


async def _gone(pid: int) -> None:
    """Wait for the end of a process that was killed; also one that goes while it is looked at has come to it."""
    began = start_time(pid)
    while began is not None and start_time(pid) == began:
        await asyncio.sleep(0.01)


async def _promised(client: Client) -> int:
    return sum(tier.reserved_bytes for tier in await client.tiers.ls())


async def _client() -> Client:
    """A client; the daemon is started by the command, whose child it is not."""
    try:
        return await Client.connect(start=False)
    except NoDaemon:
        code, _, said = await corral("models", "pulls")
        assert code == 0, said
        return await Client.connect(start=False)


async def _answer(asked: asyncio.Task[Pull]) -> Pull | None:
    """The pull, if its answer came before the daemon was killed."""
    try:
        return await asked
    except NoDaemon:
        return None


async def test_a_script_finds_the_fields_that_are_promised(home: Path, hub: HubDouble) -> None:
    check = runpy.run_path(str(Path(__file__).parents[1] / "cli/test_scripting.py"))["check"]
    hub.repos[REPO] = {"tiny-Q8_0.gguf": model(30_000), "tiny-Q5_0.gguf": model(20_000)}
    check("models pull --list", json.loads((await corral("models", "pull", f"hf:{REPO}", "--list", "--json"))[1]))
    check("models pull", json.loads((await corral("models", "pull", f"hf:{REPO}", "--deploy", "x", "--json"))[1]))
    check("models pull", json.loads((await corral("models", "pulls", "--json"))[1]))
