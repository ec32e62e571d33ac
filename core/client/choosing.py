"""The calls about speed and choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from core.client.access import Caller
from core.client.catalog import model_path
from core.client.transport import begun
from core.nouns import Bench, BenchJob, DeploymentSpec, HostBench, Noun, Recommendation, Seen, Speed, Wishes


class HostSpeed(Noun, frozen=True, kw_only=True):
    """What was measured of a host, None if nothing was, and what was seen on it since."""

    host: HostBench | None
    seen: tuple[Seen, ...] = ()


class ChoosingCalls:
    """`client.choosing`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def speed(self, spec: DeploymentSpec, users: int = 0, prompt: int = 512) -> Speed:
        """What to expect of a deployment; `users` 0: as many as it has slots."""
        return await self._client.call("POST", "/speed", Speed, {"spec": spec, "users": users, "prompt": prompt})

    async def recommend(self, wishes: Wishes) -> Recommendation:
        """Which model to take."""
        return await self._client.call("POST", "/recommend", Recommendation, wishes)

    async def measure_node(self, node: str, *, force: bool = False) -> BenchJob:
        """Begin to measure a host; `job` tells how far it is. Cancelled meanwhile, so is the measurement. `force` keeps
        what cannot be believed, too."""
        return await self._begun(f"/nodes/{quote(node, safe='')}/bench{'?force=1' if force else ''}", None)

    async def node(self, node: str) -> HostSpeed:
        return await self._client.call("GET", f"/nodes/{quote(node, safe='')}/bench", HostSpeed)

    async def measure_model(
        self, model: str, *, threads: Sequence[int] = (), parallel: Sequence[int] = (1, 2, 4),
        ctx: Sequence[int] = (512,), engine: str = "xllamacpp", cache_type: str = "f16",
    ) -> BenchJob:  # fmt: skip
        """Begin to measure a model at each of these points. Cancelled meanwhile, so is the measurement."""
        body: dict[str, Any] = {"threads": threads, "parallel": parallel, "ctx": ctx, "engine": engine,
                                "cache_type": cache_type}  # fmt: skip
        return await self._begun(model_path(model, "/bench"), body)

    async def _begun(self, path: str, body: Any) -> BenchJob:
        return await begun(self._client.call("POST", path, BenchJob, body), lambda job: self.cancel(job.id))

    async def benches(self, model: str) -> list[Bench]:
        """Measured curves of a model, newest first."""
        return await self._client.call("GET", model_path(model, "/bench"), list[Bench])

    async def jobs(self) -> list[BenchJob]:
        """Measurements that this daemon knows of, the oldest first."""
        return await self._client.call("GET", "/measurements", list[BenchJob])

    async def job(self, id: str) -> BenchJob:
        return await self._client.call("GET", f"/measurements/{quote(id, safe='')}", BenchJob)

    async def cancel(self, id: str) -> BenchJob:
        """End a measurement; nothing of it is kept."""
        return await self._client.call("DELETE", f"/measurements/{quote(id, safe='')}", BenchJob, timeout=60)
