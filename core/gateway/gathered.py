"""Several answers of which a client wants all in one piece, out of the stream that the engine was asked for: of such a
piece llama.cpp's server tells what the first alone has cost."""

from __future__ import annotations

from typing import Any

import msgspec

from core.gateway.counting import Counts

_DONE = b"data: [DONE]"
LOST = b'{"error":{"message":"the engine ended before all answers had","type":"server_error"}}'


class _Probabilities(msgspec.Struct, frozen=True):
    content: list[msgspec.Raw] | None = None


class _Piece(msgspec.Struct, frozen=True):
    index: int = 0
    text: str = ""
    delta: dict[str, Any] = {}
    logprobs: _Probabilities | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, frozen=True):
    choices: list[_Piece] = []
    error: msgspec.Raw = msgspec.Raw(b"")
    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None


class _Code(msgspec.Struct, frozen=True):
    code: int = 500


_DECODE = msgspec.json.Decoder(_Event).decode


class _Answer:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.message: dict[str, Any] = {"role": "assistant", "content": None}
        self.content: list[msgspec.Raw] | None = None
        """Of its logprobs, where they were asked for."""
        self.reason: str | None = None

    def add(self, piece: _Piece) -> None:
        self.text.append(piece.text)
        _merge(self.message, piece.delta)
        if piece.logprobs is not None:
            self.content = (self.content or []) + (piece.logprobs.content or [])
        self.reason = piece.finish_reason or self.reason


class Gathered:
    """What came so far of one request to /v1/completions, or with `chat` to /v1/chat/completions."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._answers: dict[int, _Answer] = {}
        self._first = _Event()
        self._error = b""
        self._done = False

    def part(self, data: bytes) -> None:
        """Take whole events."""
        for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
            if event.startswith(_DONE):
                self._done = True
            if not event.startswith(b"data: {"):
                continue
            try:
                found = _DECODE(event[6:])
            except msgspec.DecodeError:
                continue
            if found.error and not self._error:
                self._error = event[6:]
            self._first = self._first if self._first.id else found
            for piece in found.choices:
                self._answers.setdefault(piece.index, _Answer()).add(piece)

    def whole(self, counts: Counts) -> tuple[int, bytes]:
        """Status and body of all together; where not all have ended, the engine's error."""
        if self._error or not self._done:
            return self._failed()
        choices = [self._choice(index, answer) for index, answer in sorted(self._answers.items())]
        prompt, made, first = counts.prompt or 0, counts.answer or counts.events, self._first
        usage = {
            "completion_tokens": made,
            "prompt_tokens": prompt,
            "total_tokens": prompt + made,
            "prompt_tokens_details": {"cached_tokens": counts.cached or 0},
        }
        body = {
            "choices": choices,
            "created": first.created,
            "model": first.model,
            "system_fingerprint": first.system_fingerprint,
            "object": "chat.completion" if self._chat else "text_completion",
            "usage": usage,
            "id": first.id,
        }
        return 200, msgspec.json.encode(body)

    def _choice(self, index: int, answer: _Answer) -> dict[str, Any]:
        logprobs = {"content": answer.content} if answer.content is not None else None
        if not self._chat:
            text = "".join(answer.text)
            return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": answer.reason}
        found = {"finish_reason": answer.reason, "index": index, "message": answer.message}
        return {**found, "logprobs": logprobs} if logprobs is not None else found

    def _failed(self) -> tuple[int, bytes]:
        try:
            code = msgspec.json.decode(self._error, type=dict[str, _Code])["error"].code
        except (msgspec.DecodeError, KeyError):
            code = 500
        return code if 400 <= code < 600 else 500, self._error or LOST


def _merge(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Put a piece of a message to what there is: texts are put together, calls found by their index."""
    for key, value in delta.items():
        had = message.get(key)
        if key == "tool_calls" and isinstance(value, list):
            calls = message.setdefault(key, [])
            for call in (each for each in value if isinstance(each, dict)):
                at = call.pop("index", len(calls))
                while len(calls) <= at < len(calls) + 1:
                    calls.append({})
                if isinstance(at, int) and 0 <= at < len(calls):
                    _merge(calls[at], call)
        elif isinstance(value, dict):
            _merge(message.setdefault(key, {}), value)
        elif key != "role" and isinstance(had, str) and isinstance(value, str):
            message[key] = had + value
        elif value is not None:
            message[key] = value
