"""Reading usage out of an engine's answer, and cutting the usage event out where the client did not ask for it."""

from __future__ import annotations

import json
from typing import ClassVar

import msgspec

from core.gateway.apis import Api
from core.gateway.guess import guess
from core.gateway.told import Timings, Told, Usage, decode_answer, decode_event, decode_told

KEEP = 1 << 20
"""Bytes of an answer that are searched for usage, and of one event that is held back."""


TAIL = 4 << 10
"""Of a longer answer this much of its end is searched too: some engines say its usage first, others last."""
MOST = 1 << 40
"""No count is larger."""
_USAGE = b'"usage":'
"""In a string it would be escaped, so it is never what an answer says."""


class Counts:
    """Tokens of one answer; None where the engine did not say. `events` counts pieces of a stream that are answer.

    `cut`, `cut_progress`: the usage at the end of a stream, the progress at its beginning, are for us alone.
    """

    __slots__ = (
        "_cut", "_cut_progress", "_end", "_held", "_kept", "_stream", "answer", "cached", "estimated", "events",
        "guess", "prompt",
    )  # fmt: skip
    _tells: ClassVar[bytes] = b'"prompt_'
    """Stands in every event that tells counts, here as prompt_tokens or prompt_n. One search a read is a tenth of its
    cost."""

    def __init__(self, stream: bool, cut: bool, cut_progress: bool = False) -> None:
        self.prompt: int | None = None
        self.cached: int | None = None
        self.answer: int | None = None
        self.events = 0
        self.estimated = False
        """`answer` is no less than what was made, and may be more."""
        self.guess = 0
        """Tokens of an answer in one piece whose server tells no usage, by its text."""
        self._stream = stream
        self._cut = cut
        self._cut_progress = cut_progress
        self._held = b""
        self._kept: bytearray | None = None
        self._end = b""

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
            else:
                self._end = (self._end + data)[-TAIL:]
                if last:
                    self._search()
            return data
        if self._held:
            data = self._held + data
        if last or data.endswith(b"\n\n"):
            whole, self._held = data, b""
        else:
            whole, self._held = self._split(data)
        self.events += self._pieces(whole)
        at = whole.find(self._tells)
        return whole if at < 0 else self._events(whole, at)

    def lost(self) -> None:
        """No more of it comes."""

    @staticmethod
    def _pieces(whole: bytes) -> int:
        """Events that are answer. A piece begins a line; in an answer that speaks of events the same bytes stand
        within one."""
        return whole.count(b"\ndata: {") + whole.startswith(b"data: {")

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
            cut = self._told(event)
            kept.append(whole[done : start if cut else end])
            done = end
            at = whole.find(self._tells, done)
        return b"".join((*kept, whole[done:]))

    def _told(self, event: bytes) -> bool:
        """Take the counts of one event; returns whether the client shall not have it: we asked for it, and it tells
        nothing else (there is usage in it and no choice, or how much of the prompt was read)."""
        if not event.startswith(b"data:"):
            return False
        try:
            found = decode_event(event[5:])
        except msgspec.DecodeError:
            return False
        if found.prompt_progress is not None:
            self.events -= 1
            self.prompt = count_of(found.prompt_progress.processed)
            self.cached = count_of(found.prompt_progress.cache)
            return self._cut_progress
        self._take(found.usage, found.timings)
        return self._cut and found.choices is not None and not found.choices and found.usage is not None

    def _read(self, data: bytes | bytearray) -> None:
        """Take the counts of a whole answer."""
        try:
            found = decode_answer(data)
        except msgspec.DecodeError:
            return
        self._take(found.usage, found.timings)
        if self.prompt is None and self.answer is None:
            self.guess = guess(data)

    def _search(self) -> None:
        """Take the usage of an answer that is too long to be kept: a hundred embeddings are."""
        kept = self._kept or b""
        for part in ((bytes(kept[-TAIL:]) + self._end)[-TAIL:], bytes(kept[:TAIL])):
            at = part.rfind(_USAGE)
            if at < 0:
                continue
            try:
                found, _ = json.JSONDecoder().raw_decode(part[at + len(_USAGE) :].decode("utf-8", "replace").lstrip())
                self._take(msgspec.convert(found, Usage), None)
            except (ValueError, RecursionError):
                continue
            return

    def _take(self, usage: Usage | None, timings: Timings | None) -> None:
        if timings is not None and (prompt := count_of(timings.prompt_n)) is not None:
            self.cached = count_of(timings.cache_n)
            self.prompt = prompt + (self.cached or 0)
            self.answer = count_of(timings.predicted_n)
        if usage is None:
            return
        prompt, answer = count_of(usage.prompt_tokens), count_of(usage.completion_tokens)
        if prompt is None and answer is None:
            prompt = count_of(usage.total_tokens)  # of what only reads, some servers say no more
        if prompt is not None:
            self.prompt = prompt
            self.answer = answer if answer is not None else self.answer
            if usage.prompt_tokens_details is not None:
                self.cached = count_of(usage.prompt_tokens_details.cached_tokens)


class ResponsesCounts(Counts):
    """Of OpenAI's Responses: a piece is an event whose name ends in `.delta`; usage comes with the last event."""

    __slots__ = ()
    _tells = _USAGE

    @staticmethod
    def _pieces(whole: bytes) -> int:
        return whole.count(b".delta\ndata:") + whole.count(b".delta\r\ndata:")

    def _told(self, event: bytes) -> bool:
        found = _event(event)
        if found is not None:
            said = found.response if found.response is not None else found
            self._take(said.usage, None)
        return False

    def _take(self, usage: Usage | None, timings: Timings | None) -> None:
        if usage is None or (prompt := count_of(usage.input_tokens)) is None:
            return
        self.prompt, self.answer = prompt, count_of(usage.output_tokens)
        if usage.input_tokens_details is not None:
            self.cached = count_of(usage.input_tokens_details.cached_tokens)


class MessagesCounts(Counts):
    """Of Anthropic's Messages: input that was cached is told apart from the rest; a stream tells of the prompt first,
    and of the answer at its end."""

    __slots__ = ()
    _tells = _USAGE

    @staticmethod
    def _pieces(whole: bytes) -> int:
        return whole.count(b"content_block_delta\ndata:") + whole.count(b"content_block_delta\r\ndata:")

    def _told(self, event: bytes) -> bool:
        found = _event(event)
        if found is None:
            return False
        if found.message is not None:
            self._take_prompt(found.message.usage)  # its output_tokens are what was made by then: nothing, or one
        elif found.usage is not None:
            self._take_prompt(found.usage)
            self.answer = count_of(found.usage.output_tokens)
        return False

    def _take(self, usage: Usage | None, timings: Timings | None) -> None:
        if usage is not None:
            self._take_prompt(usage)
            self.answer = count_of(usage.output_tokens)

    def _take_prompt(self, usage: Usage | None) -> None:
        if usage is None or (new := count_of(usage.input_tokens)) is None:
            return
        read = count_of(usage.cache_read_input_tokens)
        if read is not None or self.cached is None:
            self.cached = read
        self.prompt = new + (self.cached or 0) + (count_of(usage.cache_creation_input_tokens) or 0)


class NoCounts(Counts):
    """Of what costs no token: nothing was read and nothing made, and that is known."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(False, False)
        self.prompt = self.answer = 0

    def part(self, data: bytes, last: bool) -> bytes:
        return data


def counts_of(api: Api, stream: bool = False, cut: bool = False, cut_progress: bool = False) -> Counts:
    """What reads the answers of an API."""
    if not api.costs:
        return NoCounts()
    if api.shape == "openai":
        return Counts(stream, cut, cut_progress)
    return (MessagesCounts if api.shape == "messages" else ResponsesCounts)(stream, False)


def _event(event: bytes) -> Told | None:
    """What an event of several lines says."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            try:
                return decode_told(line[5:])
            except msgspec.DecodeError:
                return None
    return None


def count_of(said: int | None) -> int | None:
    """A count, or None for what can be none: an attached server may say anything, and nobody's bill shrinks by it."""
    return said if said is not None and 0 <= said < MOST else None
