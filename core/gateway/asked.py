"""What the gateway reads of a request's body, and the numbers in it that no request may have: an engine takes memory by
them, for every token, before it looks whether there is so much (one request with `top_logprobs` of 100,000 ended it,
and with it everybody else's answer)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.gateway.errors import Refusal

ITEMS = 10_000
"""Of the arrays of a request's schemas in all: an engine writes a grammar of them, element by element."""
COMPLETION_LOGPROBS = 5
"""What OpenAI's /v1/completions takes at most."""

Likely = Annotated[float, Meta(ge=-1, le=20)]
"""So many alternatives to each token: OpenAI's most. A float, because llama.cpp takes 1e5 for a whole number too."""
Answers = Annotated[float, Meta(ge=0, le=128)]
Grammar = Annotated[str, Meta(max_length=16 << 10)]
"""An engine follows its brackets on the stack: 100,000 ended it."""
Breakers = Annotated[list[str], Meta(max_length=16)]
"""Each is looked for in the whole vocabulary: a hundred took 80 MiB and seconds."""
Back = Annotated[float, Meta(ge=-1, le=1 << 17)]
"""So many tokens are looked back at: more than 128 Ki would be memory for nothing. -1: the whole context."""


_NOTHING = msgspec.Raw(b"")


class Options(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Asked(msgspec.Struct, frozen=True):
    """The fields that the gateway needs, and those whose numbers it bounds."""

    model: str
    stream: bool | None = None
    stream_options: Options | None = None
    return_progress: msgspec.Raw = _NOTHING
    max_tokens: float | None = None
    max_completion_tokens: float | None = None
    n_predict: float | None = None
    """llama.cpp's word for max_tokens, and there it wins."""
    logprobs: bool | Likely | None = None
    top_logprobs: Likely | None = None
    n_probs: Likely | None = None
    n: Answers | None = None
    n_cmpl: Answers | None = None
    best_of: Answers | None = None
    repeat_last_n: Back | None = None
    dry_penalty_last_n: Back | None = None
    dry_sequence_breakers: Breakers | None = None
    grammar: Grammar | None = None
    json_schema: msgspec.Raw = _NOTHING
    response_format: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING


_DECODE = msgspec.json.Decoder(Asked).decode


def read(path: str, body: bytes) -> Asked:
    """What a body asks for. Raises `Refusal` (400) for one that cannot be read or that asks for too much."""
    try:
        asked = _DECODE(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body cannot be read: {error}", "bad_request") from None
    except msgspec.DecodeError:
        raise Refusal(400, "the body cannot be read: it is not JSON", "bad_request") from None
    if asked.logprobs is not None and asked.logprobs > COMPLETION_LOGPROBS and path == "/v1/completions":
        raise Refusal(400, f"logprobs is at most {COMPLETION_LOGPROBS} here", "bad_request")
    for schema in (asked.json_schema, asked.response_format, asked.tools):
        if schema and _items(msgspec.json.decode(schema)) > ITEMS:
            raise Refusal(400, f"the arrays of a schema have at most {ITEMS} items in all", "bad_request")
    return asked


def _items(schema: object) -> float:
    """The sum of `minItems` and `maxItems` wherever they stand; without recursion, however deep it is."""
    found, left = 0.0, [schema]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left.extend(each.values())
            found += sum(abs(n) for key in ("minItems", "maxItems") if isinstance(n := each.get(key), int | float))
        elif isinstance(each, list):
            left.extend(each)
    return found
