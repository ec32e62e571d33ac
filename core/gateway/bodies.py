"""What is changed in a body on its way to an engine: little, and where it can be, without reading all of it."""

from __future__ import annotations

import msgspec

from core.gateway.asked import Asked
from core.gateway.errors import Refusal


def with_usage(body: bytes, asked: Asked) -> bytes:
    """The body with stream_options.include_usage, else unchanged."""
    if b'"stream_options"' not in body:
        return body.rstrip()[:-1] + b',"stream_options":{"include_usage":true}}'
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    options = msgspec.json.decode(fields.get("stream_options", msgspec.Raw(b"null"))) or {}
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
    return msgspec.json.encode(fields)


def with_progress(body: bytes, mark: int) -> bytes:
    """The body asking how much of the prompt was read, with a mark by which the engine's list of slots tells which one
    has it (`rest`): `n_discard` means something where a context is shifted, which no engine of ours does."""
    if b'"return_progress"' not in body and b'"n_discard"' not in body:
        return body.rstrip()[:-1] + b',"return_progress":true,"n_discard":%d}' % mark
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["return_progress"], fields["n_discard"] = msgspec.Raw(b"true"), msgspec.Raw(b"%d" % mark)
    return msgspec.json.encode(fields)


def as_stream(body: bytes) -> bytes:
    """The body asking for a stream."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields.pop("stream_options", None)
    return msgspec.json.encode({**fields, "stream": True})


def unambiguous(body: bytes, model: str) -> bytes:
    """The body for a server of somebody else, asking for `model`, with each name in it once: of one that stood there
    twice the last, by which the gateway went. Raises `Refusal` for a name that differs from one of ours in its case
    alone: decoders that do not tell the two apart (Go's) would go by it, past rights and limits."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name in fields:
        if name not in _OURS and (ours := _FOLDED.get(name.casefold())) is not None:
            raise Refusal(400, f"the body has {name[:100]!r}: this field is called {ours!r}", "bad_request")
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


_OURS = frozenset(Asked.__struct_fields__)
_FOLDED = {name.casefold(): name for name in _OURS}
