"""How many tokens an answer in one piece may have, whose server does not tell: by the bytes of its text."""

from __future__ import annotations

from typing import Any

import msgspec

from core.gateway.limits import BYTES_A_TOKEN

_HOLD = ("choices", "output", "content")
"""Where the APIs have an answer: Chat Completions and Completions, Responses, Messages."""
_TEXTS = frozenset({"text", "content", "reasoning_content", "reasoning", "thinking", "arguments", "refusal"})


def guess(body: bytes | bytearray) -> int:
    """0 for an answer that holds no text: embeddings and ranks have none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return 0
    left: list[Any] = [found[name] for name in _HOLD if name in found] if isinstance(found, dict) else []
    size = 0
    while left:
        each = left.pop()
        if isinstance(each, list):
            left.extend(each)
        elif isinstance(each, dict):
            for name, value in each.items():
                if isinstance(value, str):
                    size += len(value.encode("utf-8", "replace")) if name in _TEXTS else 0
                elif isinstance(value, list | dict):
                    left.append(value)
    return -(-size // BYTES_A_TOKEN)
