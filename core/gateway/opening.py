"""The first event of a stream, where an engine left it out.

llama.cpp tells it with the first token, and not at all where that is only the beginning of a character (an emoji has
several): the official clients of Responses and Messages then raise, though the rest is whole.
"""

from __future__ import annotations

import time

import msgspec

from core.gateway.apis import Shape

_NAMES: dict[Shape, bytes] = {"messages": b"event: message_start", "responses": b"event: response.created"}
_ERROR = b"event: error"


def opened(shape: Shape, model: str, id: str, data: bytes) -> bytes | None:
    """The beginning of a stream with its first event; None while `data`, which are whole events, has none at all."""
    name = _NAMES[shape]
    at = data.find(b"event:")
    if at < 0:
        return None
    if data.startswith((name, _ERROR), at):
        return data
    told = _message(model, id) if shape == "messages" else _response(model, id)
    return data[:at] + name + b"\ndata: " + msgspec.json.encode(told) + b"\n\n" + data[at:]


def _message(model: str, id: str) -> object:
    return {
        "type": "message_start",
        "message": {
            "id": f"msg_{id}", "type": "message", "role": "assistant", "content": [], "model": model,
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    }  # fmt: skip


def _response(model: str, id: str) -> object:
    return {
        "type": "response.created",
        "response": {
            "id": f"resp_{id}", "object": "response", "created_at": int(time.time()), "status": "in_progress",
            "model": model, "output": [],
        },
    }  # fmt: skip
