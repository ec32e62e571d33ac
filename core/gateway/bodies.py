"""What is changed in a body on its way to an engine: little, and where it can be, without reading all of it."""

from __future__ import annotations

import msgspec

from core.gateway.asked import Asked


def with_usage(body: bytes, asked: Asked) -> bytes:
    """The body with stream_options.include_usage, else unchanged."""
    if b'"stream_options"' not in body:
        return body.rstrip()[:-1] + b',"stream_options":{"include_usage":true}}'
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    options = msgspec.json.decode(fields.get("stream_options", msgspec.Raw(b"null"))) or {}
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
    return msgspec.json.encode(fields)


def with_progress(body: bytes) -> bytes:
    """The body asking how much of the prompt was read."""
    if b'"return_progress"' not in body:
        return body.rstrip()[:-1] + b',"return_progress":true}'
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["return_progress"] = msgspec.Raw(b"true")
    return msgspec.json.encode(fields)


def with_model(body: bytes, model: str) -> bytes:
    """The body asking for another model, else as it was."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)
