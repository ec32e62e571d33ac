"""Who asks on a connection, and what he may: the user at its other end, or the key that each request brings."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import httptools

from core.gateway.admission import look
from core.gateway.apis import ROUTES, Api, shape_of
from core.gateway.core import Core
from core.gateway.crowd import place
from core.gateway.errors import Refusal
from core.gateway.framing import Request
from core.gateway.keys import LOCAL, Holder, taken_away
from core.gateway.limits import Meter
from core.peer import peer

PROBES = (b"/healthz", b"/readyz")
"""What a load balancer may ask without a key."""
NEEDS_KEY = b"WWW-Authenticate: Bearer\r\n"


class Asker:
    """Whoever is at the other end of one connection."""

    __slots__ = ("_core", "_holds", "groups", "source", "uid")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._holds = ""
        """As one of which key's it is counted as a connection."""
        self.source = LOCAL
        self.uid = -1
        self.groups = frozenset[int]()

    def meet(self, transport: asyncio.BaseTransport) -> str:
        """See who it is; under which name he is counted as a connection, "" for who is not."""
        end = transport.get_extra_info("socket")
        if end.family != socket.AF_UNIX:
            self.source = transport.get_extra_info("peername")[0]
            return place(self.source)
        with contextlib.suppress(OSError):
            _, self.uid, self.groups = peer(end)
        return f"uid:{self.uid}" if self.uid not in (self._core.owner, 0) else ""

    @property
    def known(self) -> bool:
        """Has it asked something that not everybody may?"""
        return bool(self._holds) or self.source == LOCAL

    def gone(self) -> None:
        """The connection is no longer one of its key's."""
        if self._holds:
            self._core.holders.leave(self._holds)

    def may(self, request: Request) -> None:
        """Raises `Refusal` for who may ask nothing at all. A key decides, wherever it comes from; a bad one never falls
        back to who is at the other end."""
        if request.key:
            keys, holder = self._core.table.keys, request.holder
            if holder is None or not keys.again(holder, self.source):
                request.holder = holder = keys.find(request.key, self.source)
            if holder.key.id != self._holds:
                self._hold(holder)
            if request.actor or request.turn or request.groups is not None:
                key = holder.key.uid, holder.key.id
                raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed", key=key)
            return
        if self.source != LOCAL:
            if request.target in PROBES or _path(request.target) in PROBES:
                return
            how = "x-api-key: KEY" if shape_of(request.target) == "messages" else "Authorization: Bearer KEY"
            raise Refusal(401, f"an API key is needed: {how}", "invalid_api_key", headers=NEEDS_KEY)
        if request.actor or request.turn or request.groups is not None:
            if self.uid in (self._core.owner, 0):
                return  # the daemon has looked at the rights of the one on whose behalf it asks
            raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed")
        if not self._core.table.users.some(self.uid, self.groups):
            raise Refusal(403, f"uid {self.uid} may not use this gateway", "not_allowed")

    def begin(self, request: Request) -> None:
        """Raises `Refusal` for a request that is refused whatever its body says, before that is taken: its route, its
        owner's rights, hours and what is counted."""
        api = ROUTES.get(request.target.partition(b"?")[0])
        if api is None:
            return
        may_ask(request.holder, api)
        table, holder = self._core.table, request.holder
        if holder is not None and not holder.may_some(table.keys.now()):
            key = holder.key.uid, holder.key.id
            raise Refusal(403, f"the key {holder.key.name} may use no deployment", "not_allowed", key=key)
        if table.subjects.any and (meters := self.whose(request)):
            look(table.subjects, meters, api.costs)

    def called(self, request: Request) -> str:
        """As whose its body is counted."""
        if request.holder is not None:
            return f"the key {request.holder.key.name} of {request.holder.key.owner}"
        return place(self.source) if self.source != LOCAL else f"uid {self.uid_of(request)}"

    def _hold(self, holder: Holder) -> None:
        """Count this connection as one of the key's, and as none any more of the key before. Raises `Refusal`."""
        core, most = self._core, self._core.table.limits.connections_per_key
        if not core.holders.enter(holder.key.id, most):
            raise Refusal(
                429, f"the key {holder.key.name} has {most} connections open: close one", "too_many_connections",
                headers=b"Retry-After: 1\r\n",
            )  # fmt: skip
        if self._holds:
            core.holders.leave(self._holds)
        self._holds = holder.key.id

    def may_use(self, request: Request, deployment: str) -> bool:
        """By the keys and rules of now."""
        return self.barred(request, deployment) is None

    def barred(self, request: Request, deployment: str) -> Refusal | None:
        """Why `deployment` may not be used for it any more by the keys and rules of now; None: it may."""
        table = self._core.table
        if request.holder is not None:
            return table.keys.barred(request.holder, request.key, self.source, deployment)
        if on_behalf(request) or table.users.may(self.uid, self.groups, deployment):
            return None
        return taken_away(deployment)

    def uid_of(self, request: Request) -> int:
        """On whose behalf it is asked."""
        if request.holder is not None:
            return request.holder.key.uid
        said = request.actor.partition(":")[0]
        return int(said) if said.isascii() and said.isdigit() else self.uid

    def limiting(self, request: Request, deployment: str) -> tuple[Meter, ...]:
        """What limits apply: those of whoever asks, and those of the deployment."""
        if not self._core.table.subjects.any:
            return ()
        return self.whose(request) + self._core.table.target(deployment).meters

    def whose(self, request: Request) -> tuple[Meter, ...]:
        """The limits of the key and its owner, or of the person."""
        if request.holder is not None:
            return request.holder.meters
        groups = self.groups if request.groups is None else request.groups
        return self._core.table.subjects.of_person(self.uid_of(request), groups)


def may_ask(holder: Holder | None, api: Api) -> None:
    """Raises `Refusal` for a key that is not for this route."""
    if holder is not None and not holder.may_ask(api.scope):
        raise Refusal(403, f"the key {holder.key.name} may not ask {api.path}", "not_allowed")


def on_behalf(request: Request) -> bool:
    """Does the daemon ask for somebody whose rights it has looked at? `Asker.may` lets nobody else say so."""
    return bool(request.actor or request.turn)


def _path(target: bytes) -> bytes | None:
    """Of a whole URL, or one with a query; None for what is no URL, which is refused where it is served."""
    try:
        url: Any = httptools.parse_url(target)  # its stub does not say that a part may be None
    except httptools.HttpParserError:
        return None
    path: bytes | None = url.path
    return path
