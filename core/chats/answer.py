"""One answer as it grows: the raw events of the engine become text and figures."""

from __future__ import annotations

from typing import Any

import msgspec

from core.nouns import Turn


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
        """Take bytes; the text that they add."""
        self._rest += data
        added = ""
        while (at := self._rest.find(b"\n\n")) >= 0:
            block, self._rest = self._rest[:at], self._rest[at + 2 :]
            self.raw += at + 2
            for line in block.split(b"\n"):
                if line.startswith(b"data:"):
                    added += self._event(line[5:].strip(), now_ms)
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
        for choice in event.get("choices") or []:
            piece = (choice.get("delta") or {}).get("content")
            if isinstance(piece, str):
                text += piece
                self._events += bool(piece)
            if choice.get("finish_reason"):
                self.turn = msgspec.structs.replace(self.turn, finish=str(choice["finish_reason"]))
        return text

    def _figures(self, event: dict[str, Any]) -> None:
        timings, usage = event.get("timings"), event.get("usage")
        fields: dict[str, Any] = {}
        if isinstance(timings, dict):
            cached, new = int(timings.get("cache_n", 0)), int(timings.get("prompt_n", 0))
            made = int(timings.get("predicted_n", 0))
            fields = {
                "prompt_tokens": cached + new,
                "cached_tokens": cached,
                "answer_tokens": made,
                "tokens_per_second": round(float(timings.get("predicted_per_second", 0)), 1),
                "context_tokens": cached + new + made,
            }
        elif isinstance(usage, dict):
            prompt, made = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
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
