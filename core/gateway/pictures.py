"""Pictures and sound in a request to a deployment that takes them: where they come from, and what they count for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from core.gateway.errors import Refusal
from core.gateway.limits import BYTES_A_TOKEN

TOKENS = 1024
"""What one is taken for where tokens are reserved: towers make 64 to 4096 of one, whatever its bytes are. The engine's
own count settles it."""
_HOLDERS = (
    "image_url", "input_image", "image", "source", "input_audio", "audio_url", "audio", "input_video", "video_url",
    "video", "file",
)  # fmt: skip
_WITHIN = ("url", "data", "file_data", "file_url")
_FETCHED = ("http", "file:", "ftp")
"""How an address begins, of which llama.cpp fetches those of `http`."""


class _Said(msgspec.Struct):
    messages: Any = None
    input: Any = None
    prompt: Any = None


_DECODE = msgspec.json.Decoder(_Said).decode


def size(body: bytes) -> int:
    """Bytes that the prompt of a request counts for: its text, and `TOKENS` for each picture. Raises `Refusal` for a
    picture that somebody would have to fetch: whoever may ask could reach through the engine what only this host does.
    """
    said, count, taken = _DECODE(body), 0, 0
    for text in _media([said.messages, said.input, said.prompt]):
        begins = text[:64].lower()
        if begins.startswith(_FETCHED) or "://" in begins:
            raise Refusal(
                400, "pictures and sound are not fetched from anywhere: send them in the request itself, as"
                " data:image/png;base64,…", "media_not_fetched", param="url",
            )  # fmt: skip
        count, taken = count + 1, taken + len(text)
    return len(body) - taken + count * TOKENS * BYTES_A_TOKEN


def _media(left: list[Any]) -> Iterator[str]:
    """What is said of each picture: its bytes in base64, or its address. Not what a tool was called with, which is the
    model's own word and nobody's to fetch."""
    while left:
        each = left.pop()
        if isinstance(each, list):
            left.extend(each)
        if not isinstance(each, dict):
            continue
        left += (each.get("content"), each.get("output"))
        yield from (text for text in _listed(each.get("multimodal_data")) if isinstance(text, str))
        for key in _HOLDERS:
            held = each.get(key)
            for text in (held.get(name) for name in _WITHIN) if isinstance(held, dict) else (held,):
                if isinstance(text, str):
                    yield text


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
