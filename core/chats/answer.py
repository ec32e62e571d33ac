"""One answer as it grows: the raw events of the engine become text and figures."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from core.nouns import Turn

_BLANK = re.compile(rb"\r?\n\r?\n")
"""What ends an event; llama-cpp-python and others send CRLF."""
EVENT_LIMIT = 4 << 20
ANSWER_LIMIT = 4 << 20


class Answer:
    """Fed with raw bytes from any offset on; whole events are taken, the rest waits. `raw` counts bytes taken."""

    def __init__(self, turn: Turn, raw: int, *, clock_ms: float) -> None:
        self.turn = turn
        self.raw = raw
        self.ended = False
        self.error = ""
        self._began = clock_ms
        self._rest = b""
        self._events = 0

    def feed(self, data: bytes, now_ms: float) -> str:
        """Take bytes; the text that they add. Raises ValueError if it grows without bounds."""
        self._rest += data
        added = ""
        while (found := _BLANK.search(self._rest)) is not None:
            block, self._rest = self._rest[: found.start()], self._rest[found.end() :]
            self.raw += found.end()
            for line in block.splitlines():
                if line.startswith(b"data:"):
                    added += self._event(line[5:].strip(), now_ms)
        if len(self._rest) > EVENT_LIMIT or len(self.turn.answer) + len(added) > ANSWER_LIMIT:
            raise ValueError("the answer is too large")
        if added:
            fields: dict[str, Any] = {"answer": self.turn.answer + added, "state": "streaming"}
            if self.turn.ttft_ms is None:
                fields["ttft_ms"] = round(now_ms - self._began, 1)
            self.turn = msgspec.structs.replace(self.turn, **fields)
        return added

    def _event(self, data: bytes, now_ms: float) -> str:
        if data == b"[DONE]":
            self.ended = True
            return ""
        try:
            event = msgspec.json.decode(data)
        except msgspec.MsgspecError:
            return ""
        if not isinstance(event, dict):
            return ""
        if isinstance(event.get("error"), dict):
            self.error = str(event["error"].get("message", "the engine failed"))[:500]
            return ""
        self._figures(event)
        text = ""
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict):
                continue
            delta = choice.get("delta")
            piece = delta.get("content") if isinstance(delta, dict) else None
            if isinstance(piece, str):
                text += piece
                self._events += bool(piece)
            if choice.get("finish_reason"):
                self.turn = msgspec.structs.replace(self.turn, finish=str(choice["finish_reason"])[:40])
        return text

    def _figures(self, event: dict[str, Any]) -> None:
        timings, usage = event.get("timings"), event.get("usage")
        fields: dict[str, Any] = {}
        if isinstance(timings, dict):
            cached, new, made = (_count(timings.get(key)) for key in ("cache_n", "prompt_n", "predicted_n"))
            speed = timings.get("predicted_per_second")
            fields = {
                "prompt_tokens": cached + new,
                "cached_tokens": cached,
                "answer_tokens": made,
                "context_tokens": cached + new + made,
            }
            if isinstance(speed, int | float) and 0 <= speed < 1e9:
                fields["tokens_per_second"] = round(float(speed), 1)
        elif isinstance(usage, dict):
            prompt, made = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
            fields = {"prompt_tokens": prompt, "answer_tokens": made, "context_tokens": prompt + made}
        if fields:
            self.turn = msgspec.structs.replace(self.turn, **fields)

    def finish(self, state: str, reason: str, now_ms: float) -> Turn:
        """The turn at its end; tokens are counted by events where the engine did not say."""
        fields: dict[str, Any] = {"state": state, "reason": reason, "total_ms": round(now_ms - self._began, 1)}
        if self.turn.answer_tokens is None and self._events:
            fields["answer_tokens"] = self._events
        if self.turn.tokens_per_second is None and self.turn.ttft_ms is not None and self._events > 1:
            seconds = (now_ms - self._began - self.turn.ttft_ms) / 1000
            if seconds > 0:
                fields["tokens_per_second"] = round(self._events / seconds, 1)
        self.turn = msgspec.structs.replace(self.turn, **fields)
        return self.turn


def _count(value: object) -> int:
    """A count as an engine says it; 0 for what is none (an attached server may send anything)."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0
