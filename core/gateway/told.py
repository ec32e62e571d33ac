"""What the gateway reads of an engine's answer: the counts that it tells.

Apart from `counting`, which is compiled where a build is (decision 0012), as no Struct can be.
"""

from __future__ import annotations

import msgspec


class Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Of any API: the first three are OpenAI's, `input_tokens` and what follows are of Responses and Messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Timings(msgspec.Struct, frozen=True):
    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class Progress(msgspec.Struct, frozen=True):
    processed: int | None = None
    cache: int | None = None


class Answer(msgspec.Struct, frozen=True):
    usage: Usage | None = None
    timings: Timings | None = None


class Whole(Answer, frozen=True):
    choices: list[msgspec.Raw] | None = None


class Event(Whole, frozen=True):
    prompt_progress: Progress | None = None


class Choice(msgspec.Struct, frozen=True):
    index: int = 0


class Told(msgspec.Struct, frozen=True):
    """An event of Responses or Messages: of `message_start` the usage is the message's, of `response.completed` the
    response's, of `message_delta` its own."""

    usage: Usage | None = None
    message: Answer | None = None
    response: Answer | None = None


decode_answer = msgspec.json.Decoder(Answer).decode
decode_whole = msgspec.json.Decoder(Whole).decode
decode_choice = msgspec.json.Decoder(Choice).decode
decode_told = msgspec.json.Decoder(Told).decode
decode_event = msgspec.json.Decoder(Event).decode
