"""attach: any OpenAI-compatible server that somebody else runs; watched and routed to, never started or stopped."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from core.engines import probe
from core.engines.base import Abilities, Availability, Command, Endpoint, Engine, Failure, Health, LaunchPlan
from core.errors import Invalid
from core.gateway import apis
from core.nouns import Counters


class _Entry(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    """What /v1/models answers; Ollama sends null where it has no model."""

    data: list[_Entry] | None


_decode = msgspec.json.Decoder(_List).decode


class Attach(Engine):
    name = "attach"
    abilities = Abilities(
        starts=False, unix_socket=False, counters=False, alias=False, routes=tuple(api.path for api in apis.APIS)
    )  # fmt: skip

    def availability(self) -> Availability:
        return Availability(found=True, reason="it starts nothing: give a URL with --url")

    def command(self, plan: LaunchPlan) -> Command:
        raise Invalid("an attached server is never started", "Corral only watches it and routes to it")

    async def health(self, endpoint: Endpoint) -> Health:
        """`ready` or `lost`: nobody can say of a stranger whether it loads or is gone."""
        try:
            answer = await probe.get(endpoint, f"{endpoint.prefix}/v1/models")
        except TimeoutError:
            return Health(state="lost", reason="it does not answer within 2 s")
        except ConnectionRefusedError:
            return Health(state="lost", reason="it cannot be reached: nothing listens there")
        except (OSError, ValueError) as error:
            return Health(state="lost", reason=f"it cannot be reached: {error}")
        if answer.status in (401, 403):
            return Health(state="lost", reason=f"it asks for a key (/v1/models says {answer.status})", wants_key=True)
        if answer.status != 200:
            return Health(state="lost", reason=f"/v1/models says {answer.status}")
        try:
            models = _decode(answer.body).data
        except msgspec.DecodeError:
            return Health(state="lost", reason="it is no OpenAI-compatible server: /v1/models gives no list of models")
        return Health(state="ready") if models else Health(state="lost", reason="it serves no model")

    async def counters(self, endpoint: Endpoint) -> Counters | None:
        return None

    def explain(self, *, code: int | None, signal: int | None, log_tail: Sequence[str], was_ready: bool) -> Failure:
        return Failure(reason="the attached server is not ours")
