"""What the gateway answers itself: probes, models, the turns that the daemon comes back for, and what a route takes."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from core.gateway import following
from core.gateway.apis import ROUTES
from core.gateway.asker import PROBES, Asker
from core.gateway.core import Core
from core.gateway.errors import Refusal
from core.gateway.following import Following, Relayed
from core.gateway.framing import Request
from core.gateway.routes import Target, unknown

MODELS = b"/v1/models"
_NO_ROUTE = f"no such route; there are {', '.join(path.decode() for path in ROUTES)} and {MODELS.decode()}"


class Client(following.Client, Protocol):
    """Where an answer goes."""

    def json(self, status: int, body: bytes, headers: bytes = b"") -> None: ...
    def follows(self, answering: Following | Relayed) -> None: ...


def answer(core: Core, asker: Asker, client: Client, request: Request, path: bytes, query: bytes) -> None:
    """Answer what no engine is asked for. Raises `Refusal`."""
    if request.target == b"*":
        raise Refusal(405, "there are no options", "method", allow="GET, HEAD, POST")
    if path == MODELS or path.startswith(MODELS + b"/"):
        _models(core, asker, client, request, path[len(MODELS) + 1 :])
    elif path in PROBES:
        _probe(core, client, request, path)
    elif path.startswith(b"/corral/turns/"):
        _turns(core, asker, client, request, path[14:].decode("ascii", "replace"), query)
    else:
        raise Refusal(404, _NO_ROUTE, "not_found")


def other_method(client: Client, request: Request, allow: str, todo: str) -> None:
    """OPTIONS says what a route takes; anything else is 405. Raises `Refusal`."""
    allow += ", OPTIONS"
    if request.method != b"OPTIONS":
        raise Refusal(405, todo, "method", allow=allow)
    client.json(200, b"", f"Allow: {allow}\r\n".encode())


def _probe(core: Core, client: Client, request: Request, path: bytes) -> None:
    """For load balancers: it lives, and it knows what to route."""
    if request.method not in (b"GET", b"HEAD"):
        other_method(client, request, "GET, HEAD", "GET this")
        return
    table = core.table
    ready = path == b"/healthz" or (table.snapshot.n > 0 and not table.blocked)
    client.json(200 if ready else 503, b'{"status":"ok"}' if ready else b'{"status":"not ready"}')


def _models(core: Core, asker: Asker, client: Client, request: Request, name: bytes) -> None:
    """The deployments that whoever asks may use, or the one of this name."""
    if request.method not in (b"GET", b"HEAD"):
        other_method(client, request, "GET, HEAD", "GET this")
        return
    holder = request.holder
    if holder is not None and not holder.may_ask("models"):
        raise Refusal(403, f"the key {holder.key.name} may not ask /v1/models", "not_allowed")
    if core.table.subjects.any:
        request.meters = asker.whose(request)
    targets = core.table.targets
    if name:
        wanted = unquote_to_bytes(name).decode("utf-8", "replace")
        if wanted not in targets or not asker.may_use(request, wanted):
            raise unknown(wanted)
        client.json(200, msgspec.json.encode(_model(wanted, targets[wanted])))
        return
    rows = [_model(name, target) for name, target in sorted(targets.items()) if asker.may_use(request, name)]
    client.json(200, msgspec.json.encode({"object": "list", "data": rows}))


def _turns(core: Core, asker: Asker, client: Client, request: Request, id: str, query: bytes) -> None:
    """A turn from where its reader was, or its end."""
    if request.method not in (b"GET", b"DELETE"):
        raise Refusal(405, "GET or DELETE this", "method", allow="GET, DELETE")
    if asker.uid not in (core.owner, 0, os.getuid()):
        raise Refusal(403, "turns are the daemon's", "not_allowed")
    turn = core.turns.get(id)
    if turn is None:
        if core.elsewhere is None:
            raise Refusal(404, "no such turn", "not_found")
        client.follows(Relayed(core, core.elsewhere, client, request.method, request.target))
        return
    if request.method == b"DELETE":
        turn.stop()
        client.json(200, b"{}")
        return
    offset = query.removeprefix(b"offset=")
    there = turn.since(int(offset) if offset.isdigit() else 0)
    if there is None:
        raise Refusal(404, "the beginning of this turn is no longer kept", "not_found")
    client.begin(200, turn.content_type, None)
    ended = turn.ended is not None
    if not ended:
        client.follows(Following(turn, client))
    client.part(there, ended)


def _model(name: str, target: Target) -> dict[str, str | int]:
    """A deployment as OpenAI's clients read a model."""
    return {"id": name, "object": "model", "created": int(target.route.created_at), "owned_by": "corral"}
