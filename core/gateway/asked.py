"""What the gateway reads of a request's body, and the numbers in it that no request may have: an engine takes memory by
them, for every token, before it looks whether there is so much (one request with `top_logprobs` of 100,000 ended it,
and with it everybody else's answer)."""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Annotated

import msgspec
from msgspec import Meta

from core.gateway.apis import COUNTED_BYTES, Api
from core.gateway.errors import Refusal
from core.gateway.misread import misread

ITEMS = 10_000
"""Of the arrays of a request's schemas in all: an engine writes a grammar of them, element by element."""
PROMPTS = 128
"""Of a request to complete: each is one of its own for the engine, and all are waited for. 3,000 ended a replica."""
INPUTS = 2048
"""Of a request for embeddings (OpenAI's most), and documents of one to rank."""
CHOICES = 48
"""Of a grammar's parts that may be left out: with each the ways through it multiply. 64 in a row took 0.6 s a token
with the sample, 128 held up everybody else for longer than anybody waits; schemas do not."""
DEPTH = 512
"""Brackets within brackets. Without it the interpreter's recursion would decide: 1,000 with Python 3.11, ten times that
with 3.13."""

Likely = Annotated[float, Meta(ge=-1, le=20)]
"""So many alternatives to each token: OpenAI's most. A float, because llama.cpp takes 1e5 for a whole number too."""
Tokens = Annotated[float, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
"""An engine's 32 bits. A count of 300 digits would be reserved, and could not be written down for a key's day."""
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
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    n_predict: Tokens | None = None
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
    text: msgspec.Raw = _NOTHING
    output_format: msgspec.Raw = _NOTHING
    output_config: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    documents: msgspec.Raw = _NOTHING

    def bounds(self) -> list[int]:
        """What it says of how long an answer may be, in tokens. Which of several counts is the engine's to say."""
        every = (self.max_tokens, self.max_completion_tokens, self.max_output_tokens, self.n_predict)
        return [int(bound) for bound in every if bound is not None]

    def answer(self) -> int | None:
        """The most tokens that an answer may have by what is asked; None: it does not say."""
        if self.max_completion_tokens is None and self.max_output_tokens is None and self.n_predict is None:
            bound = self.max_tokens  # alone, as it mostly is
            return int(bound) if bound is not None and bound >= 0 else None
        said = self.bounds()
        return max(said) if min(said) >= 0 else None

    def several(self, api: Api) -> tuple[int, int]:
        """How many prompts it has, and how many answers it wants of each. Of several counts the largest: which one an
        engine obeys is its own affair."""
        if not api.options:
            return 1, 1
        each = max(1, *(int(n or 1) for n in (self.n, self.n_cmpl, self.best_of)))
        return (_prompts(self.prompt) if api.prompts else 1), each

    def schemas(self) -> tuple[msgspec.Raw, ...]:
        """What may hold schemas; nothing where none of it is there."""
        if not (
            self.json_schema or self.response_format or self.tools or self.text or self.output_format
            or self.output_config
        ):  # fmt: skip
            return ()
        return self.json_schema, self.response_format, self.tools, self.text, self.output_format, self.output_config


_DECODE = msgspec.json.Decoder(Asked).decode
_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read(api: Api, body: bytes) -> Asked:
    """What a body asks for. Raises `Refusal` (400, 413) for one that cannot be read or that asks for too much."""
    if not api.costs and len(body) > COUNTED_BYTES:
        raise Refusal(413, f"a body has at most {COUNTED_BYTES} bytes here", "body_too_large")
    if len(body) > DEPTH and body.count(b"[") + body.count(b"{") > DEPTH and _depth(body) > DEPTH:
        raise Refusal(
            400, f"the body is nested too deeply: {DEPTH} brackets within each other are the most", "bad_request"
        )
    try:
        if not body.isascii():
            body.decode()  # the reader looks at no text that it skips, and an engine would answer 500
        asked = _DECODE(body)
        items = max(map(_items, schemas)) if (schemas := asked.schemas()) else 0
    except msgspec.ValidationError as error:
        raise misread(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "the body cannot be read: it is not JSON", "bad_request") from None
    if asked.logprobs is not None and asked.logprobs > api.logprobs:
        raise Refusal(400, f"logprobs is at most {api.logprobs} here", "bad_request", param="logprobs")
    if api.shape == "responses" and max(asked.n or 0, asked.n_cmpl or 0) > 1:
        why = f"{api.path} gives one answer, and has no n: send several requests"
        raise Refusal(400, why, "bad_request", param="n")
    if len(body) > 3 * PROMPTS:  # what is shorter holds no more
        _count("prompt", asked.prompt, PROMPTS)
        _count("input", asked.input, INPUTS)
        _count("documents", asked.documents, INPUTS)
    if asked.grammar and (count := sum(map(asked.grammar.count, ("?", "*", "{0")))) > CHOICES:
        why = f"grammar has {count} parts that may be left out (`?`, `*`, `{{0`) and may have {CHOICES}"
        raise Refusal(400, f"{why}: json_schema has no such limit", "bad_request", param="grammar")
    if items > ITEMS:
        raise Refusal(400, f"the arrays of a schema have at most {ITEMS} items in all", "bad_request")
    return asked


_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")
_OTHERS = bytes(set(range(256)) - set(b"[{]}"))


def _depth(body: bytes) -> int:
    """How deep a JSON text is nested; of what is no JSON nothing is said."""
    return max(accumulate(array("b", _TEXT.sub(b"", body).translate(_STEPS, _OTHERS))), default=0)


def _prompts(prompt: msgspec.Raw) -> int:
    """How many prompts stand there, as llama.cpp's server counts them: a list in which numbers stand is one of tokens,
    some of them told as texts."""
    if bytes(memoryview(prompt)[:1]) != b"[":
        return 1
    begins = [bytes(memoryview(each)[:1]) for each in _LIST(prompt)]
    if all(first in _OF_TOKENS for first in begins) and any(first != b'"' for first in begins):
        return 1
    return max(1, len(begins))


_OF_TOKENS = frozenset((b'"', b"-", *(b"%d" % digit for digit in range(10))))


def _count(name: str, texts: msgspec.Raw, most: int) -> None:
    """Raises `Refusal` for a list of more than `most` texts or lists of tokens. A list of numbers is one text."""
    if not texts or bytes(memoryview(texts)[:1]) != b"[":
        return
    count = sum(bytes(memoryview(each)[:1]) in (b'"', b"[", b"{") for each in _LIST(texts))
    if count > most:
        why = f"{name} has {count} entries and may have {most}: send several requests"
        raise Refusal(400, why, "bad_request", param=name)


def _items(schema: msgspec.Raw) -> float:
    """The sum of `minItems` and `maxItems` wherever they stand; without recursion, however deep it is."""
    found, left = 0.0, [msgspec.json.decode(schema)] if schema else []
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left.extend(each.values())
            found += sum(
                min(abs(n), ITEMS + 1)
                for key in ("minItems", "maxItems")
                if isinstance(n := each.get(key), int | float)
            )
        elif isinstance(each, list):
            left.extend(each)
    return found
