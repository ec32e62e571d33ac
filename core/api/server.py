"""The aiohttp application: who calls, may they, decode, call the service, encode; errors in one shape."""

from __future__ import annotations

import logging
import math
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from core import program_version
from core.access import Gate
from core.access.grantrules import PLAIN
from core.access.permissions import PERMISSIONS
from core.api.peer import Names
from core.api.refusals import Refusals
from core.api.tried import tried
from core.errors import CorralError, Failed, Invalid, NotAllowed, NotFound, Unseen, VersionMismatch
from core.nouns import API_VERSION, Actor

log = logging.getLogger(__name__)

PREFIX = "/api/v1"
T = TypeVar("T")
Handler = Callable[["Call"], Awaitable[Any]]
BODY_LIMIT = 1 << 20
PING_S = 15.0
"""How often a stream says that it lives."""
LARGEST = 10**18
"""Of a whole query parameter: SQLite's integers end at 2^63."""
ANYBODY = "anybody"
"""In place of a permission: whoever reaches the socket may ask it."""
RULES = ("keys.", "access.", "limits.", "accounts.", "deployments.mark")
"""What begins so is about who may do what."""
ANY_VERSION = (f"{PREFIX}/status", f"{PREFIX}/shutdown")
"""What a program of another version must be able to ask: it ends this daemon to start its own."""


class _NoHttp(logging.Filter):
    """aiohttp logs a traceback for bytes that are no HTTP; the socket of a shared daemon is open to everybody."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


NO_HTTP = _NoHttp()


class RouteRight(NamedTuple):
    """A route with the permission that it needs; `on` is the object, "" where the handler decides for each."""

    method: str
    path: str
    permission: str
    on: str
    or_else: str = ""


class Call:
    """One request: who (`actor`), its id, and its decoded parts."""

    def __init__(
        self, request: web.Request, actor: Actor, request_id: str, still: Callable[[], Awaitable[bool]]
    ) -> None:  # fmt: skip
        self.http = request
        self.actor = actor
        self.request = request_id
        self.still = still
        """Whether the host knows the caller by the same name as when he asked: for answers that last."""

    def path(self, name: str) -> str:
        return self.http.match_info[name]

    def text(self, name: str, default: str | None = None) -> str | None:
        """A query parameter."""
        return self.http.query.get(name, default)

    def number(self, name: str, default: float, low: float = 0, high: float = 1e12) -> float:
        """A numeric query parameter, within its range. Raises `Invalid`."""
        value = self.text(name)
        try:
            found = float(value) if value else default
        except ValueError:
            raise Invalid(f"{name}={value!r} is no number") from None
        if not math.isfinite(found):
            raise Invalid(f"{name}={value!r} is no number")
        return max(low, min(high, found))

    def whole(self, name: str, default: int, low: int = 0, high: int = LARGEST) -> int:
        """A whole query parameter, within its range. Raises `Invalid`."""
        value = self.text(name)
        if not value:
            return default
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            raise Invalid(f"{name}={value!r} is no whole number")
        return max(low, min(high, int(value)))

    async def body(self, type: type[T]) -> T:
        """The JSON body as a Struct; unknown fields and wrong types are `Invalid`."""
        raw = await self.http.read()
        try:
            return msgspec.json.decode(raw or b"{}", type=type)
        except msgspec.MsgspecError as error:
            raise Invalid("the request's body is wrong", str(error)) from error


class Server:
    """Routes are added by noun; `app` is what the daemon serves. `log_place`: where its log is, for people."""

    def __init__(self, gate: Gate, log_place: str, names: Names | None = None) -> None:
        self._gate = gate
        self._log_place = log_place
        self._names = names or Names()
        self.refusals = Refusals(gate)
        logging.getLogger("aiohttp.server").addFilter(NO_HTTP)
        self.rights: list[RouteRight] = []
        """What each route asks for; docs/access.md is made of it."""
        self._asked: dict[web.AbstractRoute, tuple[str, str]] = {}
        """Of each route its path and permission, for the records of refusals."""
        self.in_force: Callable[[], Awaitable[object]] | None = None
        """Awaited before a change of rules is answered: then it holds at the gateway too."""
        self.names: dict[str, Callable[[Call], Awaitable[list[str]]]] = {}
        """By kind, the names that a caller sees."""
        self.app = web.Application(client_max_size=BODY_LIMIT, middlewares=[self._outermost])

    def close(self) -> None:
        """After the last request."""
        self._names.close()

    def add(
        self, method: str, path: str, permission: str, handler: Handler, *, on: str = "", status: int = 200,
        or_else: str = "",
    ) -> None:  # fmt: skip
        """One route and its permission on the object `on` (`deployment:{name}` takes the name from the path). Without
        an object the actor must have the permission somewhere, and the handler asks for each thing that it touches or
        shows; `or_else` is another permission that will do. Deny by default: every route has a permission."""
        assert permission in PERMISSIONS or permission == ANYBODY, permission
        self.rights.append(RouteRight(method, path, permission, on, or_else))
        rules = method != "GET" and permission.startswith(RULES)

        async def serve(request: web.Request) -> web.StreamResponse:
            call = await self._call(request)
            try:
                if permission == ANYBODY:
                    pass  # it tells a stranger no more than what he is to Corral
                elif on:
                    self._gate.require(call.actor, permission, on.format_map(request.match_info))
                elif not (or_else and self._gate.anywhere(call.actor, or_else)):
                    self._gate.require_somewhere(call.actor, permission)
                answer = await handler(call)
                if rules and self.in_force is not None:
                    await self.in_force()
            except NotFound as error:
                await self._hint(call, error)
                raise
            if isinstance(answer, web.StreamResponse):
                return answer
            return web.Response(body=msgspec.json.encode(answer), content_type="application/json", status=status)

        self._asked[self.app.router.add_route(method, PREFIX + path, serve)] = path, permission

    async def _hint(self, call: Call, error: CorralError) -> None:
        """Name what there is of the kind that was not found, as far as the caller sees it, and the right that he lacks
        to see a model of that name, in the same words whether there is one or not: who may deploy under some names sees
        none by that."""
        kind, name = (error.details.get(each, "") for each in ("kind", "name"))
        names = self.names.get(kind)
        if names is None or error.why:
            return
        there, see, object = ", ".join(await names(call)), f"{kind}s.read", f"{kind}:{name}"
        error.why = f"there are: {there or 'none'}"
        if kind == "model" and PLAIN.fullmatch(name) and not self._gate.may(call.actor, see, object):
            lacking = f"{call.actor.name} lacks {see} on {object}, and would not see it"
            error.why = f"{error.why}; {lacking}" if there else lacking
            error.todo = f"ask an admin: `corral access grant {see} user:{call.actor.name} --scope {object}`"

    async def _call(self, request: web.Request) -> Call:
        transport = request.transport
        peer = transport.get_extra_info("socket") if transport else None
        if peer is None:
            raise Failed("the connection is gone")
        actor = await self._names.actor(peer, request.headers.get("Corral-Through", ""))
        said = request.headers.get("X-Request-Id", "")
        request_id = said if said.isascii() and said.isalnum() and 8 <= len(said) <= 64 else secrets.token_hex(8)

        async def still() -> bool:
            return await self._names.of(actor.uid) == actor.name

        return Call(request, actor, request_id, still)

    @web.middleware
    async def _outermost(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn every error into its JSON body, record refusals of strangers, check the interface's version."""
        try:
            spoken = request.headers.get("Corral-API", str(API_VERSION))
            if spoken != str(API_VERSION) and request.path not in ANY_VERSION:
                raise VersionMismatch(
                    "this terminal and the daemon speak different versions",
                    f"the daemon is {program_version()} with interface {API_VERSION}, the terminal speaks {spoken}",
                    "`corral shutdown` (models run on), then any verb",
                )
            response = await handler(request)
        except CorralError as error:
            if (isinstance(error, NotAllowed | Unseen) and not error.recorded) or _tricky(request):
                await self._record_refusal(request, error)
            response = _error(error)
        except web.HTTPException as error:
            if error.status in (404, 405):
                response = _error(Invalid(f"{request.method} {request.path}: no such route"), error.status)
            elif error.status == 413:
                response = _error(Invalid(f"what was sent is over {BODY_LIMIT >> 20} MiB", todo="shorten it"), 413)
            else:
                response = _error(Invalid(error.reason), error.status)
        except ConnectionResetError:
            raise
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))  # its message may hold what was said
            log.error("%s %s failed, %s:\n%s", request.method, request.path, type(error).__name__, where)
            response = _error(Failed("the daemon failed on this request", "this is a bug", f"see {self._log_place}"))
        if not response.prepared:
            response.headers["Corral-API"] = str(API_VERSION)
            response.headers["Corral-Version"] = program_version()
        return response

    async def _record_refusal(self, request: web.Request, error: CorralError) -> None:
        try:
            call = await self._call(request)
        except CorralError:
            return  # the connection is gone, and with it the word about who it was
        verb, route = f"{request.method.lower()}.refused", f"route:{request.path[:200]}"
        why = error.reason if isinstance(error, Unseen) else str(error)
        path, permission = self._asked.get(request.match_info.route, ("", ""))
        after = {"permission": permission, "tried": await tried(request, path)} if path else None
        await self.refusals.record(call.actor, verb, route, call.request, why, after)


def _tricky(request: web.Request) -> bool:
    """Has a name in the path what no name has, and what leads elsewhere where a name becomes part of one?"""
    return any(
        "/" in name or name in (".", "..") or not name.isprintable() for name in request.match_info.values()
    )  # fmt: skip


def _error(error: CorralError, status: int | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(error.body()), content_type="application/json", status=status or error.http
    )


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Begin a server-sent event stream."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Corral-API": str(API_VERSION)}
    )
    await response.prepare(request)
    return response
