"""One pull's way to the network: who it may speak to, over which proxy, and to whom it says the token.

A name is resolved here and connected to at the addresses that were checked, for each connection and each redirect: a
name that means something else a moment later (DNS rebinding) gains nothing. An address that isn't the internet's own
(loopback, private, link-local and so on: the host's neighbours, a cloud's metadata) needs a permission.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from core.addresses import Look, look_up, public
from core.errors import CorralError, Failed, Invalid, NotAllowed, TimedOut

CONNECT_S = 15.0
ANSWER_S = 30.0
"""Until the head of an answer is there."""
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""OpenSSL's words for an answer that is none of TLS."""
UNTRUSTED = "its certificate is not one that this host trusts"
READ_S = 60.0
"""Without any byte of a body for so long, the connection is lost."""
REDIRECTS = 5
PROGRAM = "corral"
GOES_OFFLINE = (
    "without a network these work: a file, a folder or a share of this host (corral models import PATH), and what is"
    " stored already"
)


class NotReached(Failed):
    """The other side cannot be reached now: it may be another time."""


class Web:
    """Where one pull may go. `private`: its actor may have addresses that are not the internet's. `trusted` are hosts
    that the settings name. `token` is said to `origin` (scheme, host, port) and to nobody else."""

    def __init__(
        self, *, private: bool, trusted: Sequence[str] = (), token: str = "", origin: str = "",
        environ: Mapping[str, str] | None = None, look: Look = look_up, tls: Any = True,
    ) -> None:  # fmt: skip
        self._private, self._token, self._origin, self._look = private, token, origin, look
        self.hub = bool(origin)
        self.says_token = bool(token)
        self._tls = tls
        self._proxies = _proxies(environ or {})
        self._trusted = {*trusted, *(urlsplit(proxy).hostname or "" for proxy in self._proxies.values())}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _ready(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_Checked(self), use_dns_cache=False, force_close=True, limit=4)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, trust_env=False, raise_for_status=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=None, connect=None),
                headers={"User-Agent": PROGRAM, "Accept-Encoding": "identity"},
            )  # fmt: skip
        return self._session

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those that `host` may be spoken to at. Raises `NotAllowed`, OSError."""
        found = list(await self._look(host, port))
        if not found:
            raise OSError(f"{host} has no address")
        if host not in self._trusted and not self._private:
            for address in found:
                if not public(address):
                    raise NotAllowed(
                        f"{host} is at {address}, which is no address of the internet",
                        "pulling from a private, loopback or link-local address needs models.pull-private",
                        "ask an admin for that permission, or import the file from a folder or share",
                    )
        return found

    async def check(self, url: str) -> None:
        """Whether it may be asked. Raises `NotAllowed`, `Invalid`, `NotReached`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host:
            raise Invalid(f"the address leads to {parts.scheme}:, where nothing is pulled from")
        try:
            found = await self.addresses(host, parts.port or (443 if parts.scheme == "https" else 80))
        except OSError as error:
            if self.proxy(url):
                return  # only the proxy knows the names beyond itself
            raise _unreached(host, error) from None
        if parts.scheme == "http" and host not in self._trusted and any(public(each) for each in found):
            raise Invalid(
                f"{host} is asked without TLS", "anybody on the way could put another model in its place",
                "use its https address",
            )  # fmt: skip

    def proxy(self, url: str) -> str | None:
        """The proxy that `url` is asked over, as the daemon's environment has it."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if urllib.request.proxy_bypass_environment(host, dict(self._proxies)):  # type: ignore[attr-defined]
            return None
        return self._proxies.get(parts.scheme) or self._proxies.get("all")

    @contextlib.asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Answer]:
        """Ask for `url`, through redirects, each checked as the first. Raises `NotReached`, `NotAllowed`, `Invalid`,
        `TimedOut`."""
        passed: dict[str, str] = {}
        for _ in range(REDIRECTS + 1):
            await self.check(url)
            response = await self._ask(url, headers or {})
            # A hub says what a file is before it sends us to where it lies.
            passed.update({key.lower(): value for key, value in response.headers.items() if key.lower() in TOLD})
            target = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not target:
                break
            response.close()
            before, url = url, urljoin(url, target)
            if before.startswith("https:") and not url.startswith("https:"):
                raise Invalid(f"{_host(before)} leads to an address without TLS", todo="ask whoever runs it")
        else:
            raise Failed(f"{_host(url)} leads from one address to the next", f"{REDIRECTS} were followed")
        try:
            yield Answer(response, passed, _host(url))
        finally:
            response.close()

    async def _ask(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        said = dict(headers)
        if self._token and origin(url) == self._origin:
            said["Authorization"] = f"Bearer {self._token}"
        try:
            async with asyncio.timeout(CONNECT_S + ANSWER_S):
                return await self._ready().get(
                    url, headers=said, allow_redirects=False, proxy=self.proxy(url), ssl=self._tls
                )
        except TimeoutError:
            raise NotReached(f"{_host(url)} does not answer", f"nothing within {CONNECT_S + ANSWER_S:.0f} s") from None
        except (OSError, aiohttp.ClientError) as error:
            # Without its cause: the library's errors hold the request, and with it the token.
            raise _unreached(_host(url), error) from None
        except ValueError:
            raise Failed("the proxy cannot be used", "only http:// proxies can", "change HTTPS_PROXY") from None


TOLD = ("x-repo-commit", "x-linked-etag", "x-linked-size", "x-error-code")


class Answer:
    """The head of an answer, and its body in pieces. `told`: what a hub said of the file."""

    def __init__(self, response: aiohttp.ClientResponse, told: dict[str, str], host: str) -> None:
        self._response, self.told, self.host = response, told, host
        self.status = response.status

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    async def piece(self) -> bytes:
        """The next bytes, b"" at the end. Raises `NotReached`."""
        try:
            async with asyncio.timeout(READ_S):
                return await self._response.content.readany()
        except TimeoutError:
            raise NotReached(f"{self.host} sent nothing for {READ_S:.0f} s") from None
        except (OSError, aiohttp.ClientError, ValueError) as error:
            raise NotReached(f"the connection to {self.host} was cut", _kind(error)) from None


class _Checked(AbstractResolver):
    """What aiohttp connects to: the addresses that were checked, just now."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:  # fmt: skip
        found = await self._web.addresses(host, port)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in found
        ]  # fmt: skip

    async def close(self) -> None:
        return None


def origin(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"


def _unreached(host: str, error: BaseException) -> CorralError:
    if isinstance(error, TimeoutError):
        return TimedOut(f"{host} does not answer", f"nothing within {CONNECT_S:.0f} s", GOES_OFFLINE)
    if _plain(error):
        return NotReached(
            f"{host} does not speak TLS there", "the address says https, and what answers at its port is plain HTTP, or"
            " something else", "look at its port; a server of your own network may be named with http://, one of the"
            " internet may not",
        )  # fmt: skip
    return NotReached(f"{host} cannot be reached", _kind(error), GOES_OFFLINE)


def _plain(error: BaseException) -> bool:
    """Whether what answered a TLS greeting was no TLS."""
    found = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(found, ssl.SSLError) and (found.reason or "") in NO_TLS


def _kind(error: BaseException) -> str:
    """What an error of the network is, without what was said."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UNTRUSTED
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return UNTRUSTED
    if isinstance(error, ssl.SSLError):  # its number is OpenSSL's own, and means something else as the system's
        return "it breaks off TLS, or speaks another version of it"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closes the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what it answers is no HTTP"
    if isinstance(error, socket.gaierror):
        return "its name is not known: is there a network, or a proxy to be named?"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words name the address
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it ended before the file did"
    return type(error).__name__


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """By scheme, and `no` for what is asked without one; as programs on Unix read the environment."""
    found = {}
    for scheme in ("http", "https", "all", "no"):
        value = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        if value:
            found[scheme] = value if scheme == "no" or "://" in value else f"http://{value}"
    return found
