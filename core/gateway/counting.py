"""Reading usage out of an engine's answer, and cutting the usage event out where the client did not ask for it."""

from __future__ import annotations

import msgspec

KEEP = 1 << 20
"""Bytes of an answer that are searched for usage, and of one event that is held back."""


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Timings(msgspec.Struct, frozen=True):
    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class _Progress(msgspec.Struct, frozen=True):
    processed: int | None = None
    cache: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    usage: _Usage | None = None
    timings: _Timings | None = None


class _Event(_Answer, frozen=True):
    choices: list[msgspec.Raw] | None = None
    prompt_progress: _Progress | None = None


MOST = 1 << 40
"""No count is larger."""
_TELLS = b'"prompt_'
"""Stands in every event that tells counts, as prompt_tokens or prompt_n. One search a read is a tenth of its cost."""
_DECODE_ANSWER = msgspec.json.Decoder(_Answer).decode
_DECODE_EVENT = msgspec.json.Decoder(_Event).decode


class Counts:
    """Tokens of one answer; None where the engine did not say. `events` counts pieces of a stream that are answer.

    `cut`, `cut_progress`: the usage at the end of a stream, the progress at its beginning, are for us alone.
    """

    __slots__ = ("_cut", "_cut_progress", "_held", "_kept", "_stream", "answer", "cached", "events", "prompt")

    def __init__(self, stream: bool, cut: bool, cut_progress: bool = False) -> None:
        self.prompt: int | None = None
        self.cached: int | None = None
        self.answer: int | None = None
        self.events = 0
        self._stream = stream
        self._cut = cut
        self._cut_progress = cut_progress
        self._held = b""
        self._kept: bytearray | None = None

    def part(self, data: bytes, last: bool) -> bytes:
        """Take a part of the answer; returns what the client shall have of it."""
        if not self._stream:
            if self._kept is None:
                if last:  # whole in one part, as most are
                    self._read(data)
                    return data
                self._kept = bytearray()
            if len(self._kept) <= KEEP:
                self._kept += data
                if last:
                    self._read(self._kept)
            return data
        if self._held:
            data = self._held + data
        if last or data.endswith(b"\n\n"):
            whole, self._held = data, b""
        else:
            whole, self._held = self._split(data)
        # A piece begins a line; in an answer that speaks of events the same bytes stand within one.
        self.events += whole.count(b"\ndata: {") + whole.startswith(b"data: {")
        at = whole.find(_TELLS)
        return whole if at < 0 else self._events(whole, at)

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Whole events, and the beginning of the next one; what is too long to be held back counts as whole."""
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:
            end = len(data) if len(data) > KEEP else 0
        return data[:end], data[end:]

    def _events(self, whole: bytes, at: int) -> bytes:
        """Read the events that tell counts, the first one around `at`, and cut out those that only the gateway asked
        for."""
        mark = b"\r\n\r\n" if b"\r\n\r\n" in whole else b"\n\n"
        kept, done = [], 0
        while at >= 0:
            start = whole.rfind(mark, done, at)
            start = done if start < 0 else start + len(mark)
            end = whole.find(mark, at)
            end = len(whole) if end < 0 else end + len(mark)
            event = whole[start:end]
            cut = event.startswith(b"data:") and self._read_event(event[5:])
            kept.append(whole[done : start if cut else end])
            done = end
            at = whole.find(_TELLS, done)
        return b"".join((*kept, whole[done:]))

    def _read_event(self, data: bytes) -> bool:
        """Take the counts of one event; returns whether the client shall not have it: we asked for it, and it tells
        nothing else (there is usage in it and no choice, or how much of the prompt was read)."""
        try:
            found = _DECODE_EVENT(data)
        except msgspec.DecodeError:
            return False
        if found.prompt_progress is not None:
            self.events -= 1
            self.prompt = _count(found.prompt_progress.processed)
            self.cached = _count(found.prompt_progress.cache)
            return self._cut_progress
        self._take(found)
        return self._cut and found.choices is not None and not found.choices and found.usage is not None

    def _read(self, data: bytes | bytearray) -> None:
        """Take the counts of a whole answer."""
        try:
            self._take(_DECODE_ANSWER(data))
        except msgspec.DecodeError:
            return

    def _take(self, found: _Answer) -> None:
        usage, timings = found.usage, found.timings
        if timings is not None and (prompt := _count(timings.prompt_n)) is not None:
            self.cached = _count(timings.cache_n)
            self.prompt = prompt + (self.cached or 0)
            self.answer = _count(timings.predicted_n)
        if usage is not None and (prompt := _count(usage.prompt_tokens)) is not None:
            self.prompt = prompt
            answer = _count(usage.completion_tokens)
            self.answer = answer if answer is not None else self.answer
            if usage.prompt_tokens_details is not None:
                self.cached = _count(usage.prompt_tokens_details.cached_tokens)


def _count(said: int | None) -> int | None:
    """A count, or None for what can be none: an attached server may say anything, and nobody's bill shrinks by it."""
    return said if said is not None and 0 <= said < MOST else None
