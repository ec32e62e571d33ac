"""What a hub has of a repository: asked by `hubchild.py`, checked here, with what to do where it cannot be had."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from core.catalog.pull.source import Hub
from core.catalog.pull.web import GOES_OFFLINE, NotReached, Web
from core.catalog.sample import installing
from core.errors import Failed, Invalid, NeedsToken, NotFound
from core.formats import PICKLES
from core.nouns import PullFile

PACKAGE = "huggingface-hub"
ANSWER_S = 60.0
ANSWER_BYTES = 16 << 20
PASSED = (
    "PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY",
    "https_proxy", "http_proxy", "all_proxy", "no_proxy",
)  # fmt: skip
"""All of the daemon's environment that it gets: a token in there is somebody else's."""
_SHA256 = re.compile("[0-9a-f]{64}")


class ListedFile(msgspec.Struct):
    name: str
    bytes: int
    sha256: str
    url: str


class Listing(msgspec.Struct):
    """A repository at one commit."""

    revision: str
    gated: bool
    private: bool
    licence: str
    files: list[ListedFile]
    architecture: str
    params: int
    types: str
    """Of its safetensors, where it has some."""

    @property
    def models(self) -> list[PullFile]:
        """Its GGUF files."""
        return [
            PullFile(name=each.name, bytes=each.bytes, sha256=each.sha256)
            for each in self.files
            if each.name.endswith(".gguf") and each.bytes > 0
        ]

    def url(self, name: str) -> str:
        return next(each.url for each in self.files if each.name == name)

    def others(self) -> str:
        """What it has in place of a GGUF, as a sentence."""
        kinds = {PurePosixPath(each.name).suffix.lower() for each in self.files}
        if ".safetensors" in kinds:
            said = f", {self.params / 1e9:.1f} billion parameters as {self.types}" if self.params and self.types else ""
            arch = f" ({self.architecture}{said})" if self.architecture else ""
            return f"it has safetensors{arch}: an engine that reads them can be attached (corral deploy NAME --url URL)"
        if kinds & set(PICKLES):
            return "it has pickles: reading one runs whatever code it holds, so that they are not taken"
        return f"it has {len(self.files)} files, none of them a model that is taken"


class _Fault(msgspec.Struct):
    error: str
    status: int = 0
    wait: int = 0
    why: str = ""


def lacking() -> str:
    """The command that installs huggingface-hub beside this Python; "" where it is there."""
    importlib.invalidate_caches()  # it may have been installed a moment ago
    return "" if importlib.util.find_spec("huggingface_hub") is not None else installing(PACKAGE)


async def ask(
    source: Hub, endpoint: str, token: str, web: Web, environ: Mapping[str, str], *, python: str = sys.executable
) -> Listing:  # fmt: skip
    """What the hub at `endpoint` has. Raises `Invalid` where huggingface-hub is not installed, `NotFound`,
    `NeedsToken`, `NotReached`, `NotAllowed`, `Failed`."""
    if command := lacking():
        raise Invalid(
            "repositories of a hub cannot be asked for", f"{PACKAGE} is not installed beside the daemon",
            f"{command}, or name the https address of the file",
        )  # fmt: skip
    question = msgspec.json.encode(
        {
            "endpoint": endpoint, "repo": source.repo, "revision": source.revision, "token": token,
            "addresses": await _addresses(endpoint, web),
        }
    )  # fmt: skip
    raw = await _run(question, python, environ)
    try:
        fault = msgspec.json.decode(raw, type=_Fault)
    except msgspec.ValidationError:
        fault = None
    except msgspec.MsgspecError as error:
        raise Failed("the hub's answer is not understood", str(error)[:200]) from None
    if fault is not None:
        raise _error(fault, source, endpoint, bool(token))
    try:
        return _checked(msgspec.json.decode(raw, type=Listing), endpoint)
    except msgspec.MsgspecError as error:
        raise Failed("the hub's answer is not understood", str(error)[:200]) from None


async def _addresses(endpoint: str, web: Web) -> dict[str, list[str]]:
    await web.check(endpoint)
    found = {}
    for url in filter(None, (endpoint, web.proxy(endpoint))):
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 80)
        with contextlib.suppress(OSError):  # behind a proxy its name may mean nothing here
            found[host] = await web.addresses(host, port)
    return found


async def _run(question: bytes, python: str, environ: Mapping[str, str]) -> bytes:
    env = {name: environ[name] for name in PASSED if name in environ}
    env |= {
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HOME": os.devnull,
        "DO_NOT_TRACK": "1",
    }  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        python, "-P", str(Path(__file__).with_name("hubchild.py")), cwd="/", env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=ANSWER_BYTES,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ANSWER_S):
            raw, _ = await child.communicate(question)
    except TimeoutError:
        raise NotReached("the hub does not answer", f"nothing within {ANSWER_S:.0f} s", GOES_OFFLINE) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if len(raw) > ANSWER_BYTES:
        raise Failed("the hub's answer is absurdly long")
    return raw


def _error(fault: _Fault, source: Hub, endpoint: str, told: bool) -> Exception:
    host, where = urlsplit(endpoint).hostname or "the hub", f"{endpoint}/{source.repo}"
    login = "log in (`hf auth login`, or HF_TOKEN) and say it again"
    match fault.error:
        case "gated":
            by = " by the token's account" if told else ""
            return NeedsToken(
                f"hf:{source.repo} is gated", f"its licence must be accepted{by}",
                f"accept it on {where}" + ("" if told else f", {login}"),
            )  # fmt: skip
        case "revision":
            said = f"hf:{source.repo} has no revision {source.revision!r}"
            return NotFound(said, todo="name a branch, tag or commit")
        case "missing":
            why = "there is none by that name, or it is private" + (" and this token is not let in" if told else "")
            return NotFound(f"no repository {source.repo!r} on {host}", why, "look at its spelling" if told else login)
        case "unreached":
            return NotReached(f"{host} cannot be reached", fault.why, GOES_OFFLINE)
    if fault.status in (401, 403):
        why = "the token is not let in" if told else "it wants a token"
        return NeedsToken(f"{host} does not say what hf:{source.repo} has", why, login)
    wait = f" after {fault.wait} s" if fault.wait else ""
    if fault.status == 429:
        why = "it answers 429" + ("" if wait else " and does not say for how long")
        return NotReached(f"{host} has been asked too often", why, f"ask again{wait or ' in some minutes'}")
    if fault.status >= 500:
        return NotReached(f"{host} cannot answer now", f"it answers {fault.status}", f"ask again{wait}")
    return Failed(f"{host} does not say what hf:{source.repo} has", f"it answers {fault.status}")


def _checked(found: Listing, endpoint: str) -> Listing:
    """What a hub says goes into names of files, addresses and tables. Raises `Failed`."""
    if not re.fullmatch(r"[0-9A-Za-z._-]{1,64}", found.revision):
        raise Failed("the hub names no commit", todo="is this a hub's address?")
    good = []
    for each in found.files:
        parts = each.name.split("/")
        odd = not each.name.isprintable() or len(each.name) > 400 or any(p in ("", ".", "..") for p in parts)
        if odd or not 0 <= each.bytes < 1 << 50 or not each.url.startswith(f"{endpoint}/"):
            continue
        good.append(msgspec.structs.replace(each, sha256=each.sha256 if _SHA256.fullmatch(each.sha256) else ""))
    licence = found.licence if found.licence.isprintable() else ""
    return msgspec.structs.replace(found, files=good, licence=licence[:100])
