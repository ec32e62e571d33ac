"""One completion of an engine, timed as it comes: for measurements, which ask a replica directly."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from core import http
from core.engines import probe
from core.engines.base import Endpoint
from core.errors import Failed
from core.nouns import Noun

BODY_LIMIT = 1 << 20


class Timed(Noun, frozen=True, kw_only=True):
    """Seconds on a clock that nobody sets, from the request on where a name does not say otherwise."""

    began: float
    """On that clock."""
    prompt_tokens: int
    """Computed, without those that were kept of an earlier prompt."""
    tokens: int
    first_s: float
    """To the first event of the answer."""
    answer_s: float
    """From the first token to the last, by the engine's own clock; by the events where it does not say."""
    stamps: tuple[float, ...]
    """When each event came, on that clock: nearly one for each token."""


async def complete(
    endpoint: Endpoint, prompt: str, tokens: int, *, timeout: float, slot: int | None = None
) -> Timed:  # fmt: skip
    """Ask for `tokens` tokens after `prompt`, whatever ends it; of this one of llama.cpp's slots. Raises `Failed`."""
    body: dict[str, Any] = {
        "prompt": prompt, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True},
        "ignore_eos": True, "cache_prompt": False, "temperature": 0.8, "seed": 1,
    }  # fmt: skip
    if slot is not None:
        body["id_slot"] = slot
    try:
        async with asyncio.timeout(timeout):
            return await _ask(endpoint, msgspec.json.encode(body), tokens)
    except TimeoutError:
        raise Failed("the engine did not answer in time", f"{timeout:.0f} s for {tokens} tokens") from None
    except (OSError, ValueError, EOFError, TypeError, LookupError, AttributeError, msgspec.MsgspecError) as error:
        raise Failed("the engine did not answer", str(error) or type(error).__name__) from error


async def _ask(endpoint: Endpoint, body: bytes, asked: int) -> Timed:
    reader, writer = await probe.connect(endpoint)
    try:
        began = time.monotonic()
        fields = f"POST {endpoint.prefix}/v1/completions HTTP/1.1\r\nHost: {endpoint.host or 'localhost'}\r\n"
        fields += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        if endpoint.secret:
            fields += f"Authorization: Bearer {endpoint.secret}\r\n"
        writer.write(fields.encode() + b"\r\n" + body)
        response = http.Response(reader, writer)
        await response.start()
        if response.status != 200:
            said = (await response.read(BODY_LIMIT)).decode("utf-8", "replace")
            raise Failed("the engine refused a measurement's request", f"{response.status}: {said[:200]}")
        stamps: list[float] = []
        usage: dict[str, Any] = {}
        async for _, data in http.events(response):
            if not data.startswith("{"):
                continue
            piece = msgspec.json.decode(data, type=dict[str, Any])
            usage |= piece.get("usage") or {}
            usage |= piece.get("timings") or {}
            if piece.get("choices") and piece["choices"][0].get("text"):
                stamps.append(time.monotonic())
        if not stamps:
            stamps.append(time.monotonic())
        said_ms = usage.get("predicted_ms")
        return Timed(
            began=began,
            prompt_tokens=int(usage.get("prompt_n") or usage.get("prompt_tokens") or 0),
            tokens=int(usage.get("predicted_n") or usage.get("completion_tokens") or min(asked, len(stamps))),
            first_s=stamps[0] - began,
            answer_s=said_ms / 1000 if isinstance(said_ms, float | int) else stamps[-1] - stamps[0],
            stamps=tuple(stamps),
        )
    finally:
        writer.transport.abort()
