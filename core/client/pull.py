"""The calls about pulls; and the hub's token, which this program reads where the hub's own tools keep it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.client.access import Caller
from core.client.transport import begun
from core.errors import Invalid
from core.nouns import Pull, PullPlan

FIND_S = 180.0
"""A hub may take its time to say what it has, and a server to send a header."""
TOKEN_BYTES = 4096


def hub_token(environ: Mapping[str, str] = os.environ) -> str:
    """HF_TOKEN, else the file that HF_TOKEN_PATH names, else `token` in the hub's folder; "" if there is none. Raises
    `Invalid` for a file that is there and cannot be read."""
    said = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if said.strip():
        return said.strip()
    path = _token_file(environ)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return file.read(TOKEN_BYTES).decode("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        raise Invalid(f"{path} holds no token", "it is not text", "log in anew (`hf auth login`)") from None
    except OSError as error:
        raise Invalid(f"{path} cannot be read", error.strerror or "", "mend its mode, or set HF_TOKEN") from None


def _token_file(environ: Mapping[str, str]) -> Path:
    if environ.get("HF_TOKEN_PATH"):
        return Path(environ["HF_TOKEN_PATH"]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "token"
    cache = environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path("~/.cache").expanduser()) / "huggingface/token"


class PullCalls:
    """`client.pulls`. Of a hub's repository the token goes along, over the socket."""

    def __init__(self, client: Caller, environ: Mapping[str, str] = os.environ) -> None:
        self._client, self._environ = client, environ

    async def ls(self) -> list[Pull]:
        return await self._client.call("GET", "/pulls", list[Pull])

    async def get(self, id: str) -> Pull:
        return await self._client.call("GET", _path(id), Pull)

    async def plan(self, source: str, ctx: int = 0) -> PullPlan:
        """What a source has, what of it fits, and what would be chosen; nothing is stored."""
        body = {"source": source, "ctx": ctx, **self._hub(source)}
        return await self._client.call("POST", "/pulls/plan", PullPlan, body, timeout=FIND_S)

    async def begin(self, source: str, **fields: Any) -> Pull:
        """Begin to pull; of `name`, `ctx`, `limit`, `sha256`, `options`, `projector`, `deploy` (`spec`, `replace`) what
        is meant. Cancelled before the daemon has named it, it is cancelled there too."""
        body = {"source": source, **self._hub(source), **fields}
        asked = self._client.call("POST", "/pulls", Pull, body, timeout=FIND_S)
        return await begun(asked, lambda pull: self.cancel(pull.id))

    async def pause(self, id: str) -> Pull:
        return await self._client.call("POST", f"{_path(id)}/pause", Pull, timeout=60)

    async def resume(self, id: str, source: str = "", limit: int | None = None) -> Pull:
        """Go on, with the token if it is a hub's."""
        pull = await self.get(id)
        body: dict[str, Any] = {"limit": limit} if limit is not None else {}
        if source:
            body["source"] = source
        elif pull.source.startswith("hf:") and (token := hub_token(self._environ)):
            body["token"] = token
        return await self._client.call("POST", f"{_path(id)}/resume", Pull, body)

    async def cancel(self, id: str) -> Pull:
        return await self._client.call("DELETE", _path(id), Pull, timeout=60)

    async def undeploy(self, id: str) -> Pull:
        """Leave it undeployed when it is here."""
        return await self._client.call("DELETE", f"{_path(id)}/deploy", Pull)

    def _hub(self, source: str) -> dict[str, str]:
        """What a hub needs: its address and our token, where they are set. A web server is told neither."""
        if not source.startswith(("hf:", "https://huggingface.co/", "https://hf.co/")):
            return {}
        told = {"token": hub_token(self._environ), "hub": self._environ.get("HF_ENDPOINT", "").strip()}
        return {key: value for key, value in told.items() if value}


def _path(id: str) -> str:
    if not id:
        raise Invalid("a name is empty", todo="`corral models pulls` shows the ids")
    return f"/pulls/{quote(id, safe='', errors='surrogateescape')}"
