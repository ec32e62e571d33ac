"""Two who ask at once: a model is removed while it is deployed."""

import asyncio
from pathlib import Path

import pytest
from command import corral

from core.client import Client
from core.errors import Conflict, CorralError, NotFound
from core.nouns import DeploymentSpec

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


async def test_a_model_is_removed_or_deployed_and_never_both(home: Path, sample: Path) -> None:
    corral("models", "sample", "--name", "m")
    outcomes = set()
    for turn in range(8):
        client = await Client.connect()
        spec = DeploymentSpec(name="d", model="m", ctx=512)
        calls = [client.deploy(spec), client.remove_model("m")]
        done = await asyncio.gather(*(calls if turn % 2 else reversed(calls)), return_exceptions=True)
        refused = [one for one in done if isinstance(one, CorralError)]
        assert len(refused) == 1 and isinstance(refused[0], NotFound | Conflict), done
        there = {model.name for model in await client.models()}
        wanted = {deployment.spec.model for deployment in await client.deployments()}
        assert wanted <= there
        outcomes.add(bool(wanted))
        if wanted:
            await client.remove_deployment("d")
        else:
            job = await client.import_sample("m")
            while job.state not in ("done", "failed"):
                await asyncio.sleep(0.02)
                job = await client.import_job(job.id)
    assert outcomes
