"""What several answers to one request come to: to several prompts, or `n` of each.

llama.cpp's server tells of each by itself: in a stream at the end of each; of all in one piece, of the first alone,
which is why it is asked for a stream then (`gathered`). Other servers tell of all together. A prompt is read once for
its `n` answers, and the first of them tells how much of it was cached.
"""

from __future__ import annotations

import msgspec

from core.gateway.apis import Api
from core.gateway.asked import Asked
from core.gateway.counting import Counts, count_of
from core.gateway.told import decode_choice, decode_event, decode_whole

UNHEARD = 3
"""Tokens that llama.cpp's server may make of an answer that is cut, and tell nobody of."""
_DONE = b"data: [DONE]"
_TIMINGS = b'"timings":'
"""Stands in what llama.cpp's server answers alone."""


class SeveralCounts(Counts):
    """Tokens of `answers` answers together, `each` of one prompt; `answer` is None until the last has ended.

    `most`: tokens that one may have, 0 where nobody says. `size`: bytes of the prompts where there are several: they
    have no more tokens.
    """

    __slots__ = ("_all", "_answers", "_made", "_most", "_prompts", "_size", "each")

    def __init__(
        self, stream: bool, cut: bool, cut_progress: bool, answers: int, each: int, most: int, size: int
    ) -> None:
        super().__init__(stream, cut, cut_progress)
        self._answers = answers
        self.each = each
        self._most = most
        self._size = size
        self._prompts: dict[int, tuple[int, int]] = {}
        """Tokens of each prompt, and how many of them were cached."""
        self._made: dict[int, int] = {}
        """Tokens of each answer that was told of."""
        self._all = 0
        """Those of which it was not said whose."""

    def part(self, data: bytes, last: bool) -> bytes:
        data = super().part(data, last)
        if self._stream and self.answer is None and (data.startswith(_DONE) or b"\n" + _DONE in data):
            self.answer = self._sum() or None
        return data

    def lost(self) -> None:
        """No more comes, and not all was told."""
        if self.events:
            self.events = max(self.events, self._sum()) + UNHEARD * self._answers

    def _sum(self) -> int:
        """Tokens that were told of."""
        return max(self._all, sum(self._made.values()))

    def _told(self, event: bytes) -> bool:
        if not event.startswith(b"data:"):
            return False
        try:
            found = decode_event(event[5:])
            index = decode_choice(found.choices[0]).index if found.choices else -1
        except msgspec.DecodeError:
            return False
        self._forget()
        progress = found.prompt_progress
        if progress is not None:
            self.events -= 1
            self.prompt, self.cached = count_of(progress.processed), count_of(progress.cache)
        else:
            self._take(found.usage, found.timings)
        if self.answer is not None:
            if index < 0:
                self._all += self.answer
            else:
                self._made[index] = self.answer
        if self.prompt is not None and (index < 0 or index % self.each == 0):
            self._prompts[max(index, 0) // self.each] = self.prompt, self.cached or 0
        self.answer = None
        if self._prompts:
            self.prompt = sum(prompt for prompt, _ in self._prompts.values())
            self.cached = sum(cached for _, cached in self._prompts.values())
        if progress is not None:
            return self._cut_progress
        return self._cut and found.choices is not None and not found.choices and found.usage is not None

    def _forget(self) -> None:
        """In a method of its own, as `_told` would be compiled for counts that stay None (decision 0012)."""
        self.prompt = self.cached = self.answer = None

    def _read(self, data: bytes | bytearray) -> None:
        super()._read(data)
        try:
            found = decode_whole(data)
        except msgspec.DecodeError:
            return
        others = (found.choices or [])[1:]
        if self.answer is None or found.timings is None or not others:
            return
        made = self.answer
        for each in others:  # a token is a byte at least
            size = memoryview(each).nbytes
            made += min(size, self._most) if self._most else size
        self._estimate(made)

    def _search(self) -> None:
        super()._search()
        if self.answer is not None and (_TIMINGS in self._end or _TIMINGS in (self._kept or b"")):
            self._estimate(self._answers * max(self._most, self.answer))

    def _estimate(self, made: int) -> None:
        """The engine told of the first answer alone: no more than this was made."""
        self.estimated = True
        self.answer = made
        self.prompt = max(self.prompt or 0, self._size)


def counts_of_several(
    api: Api, asked: Asked, ctx_per_slot: int, stream: bool = False, cut: bool = False, cut_progress: bool = False
) -> SeveralCounts:
    """What reads the answers of a request that wants several."""
    prompts, each = asked.several(api)
    size = memoryview(asked.prompt).nbytes if prompts > 1 else 0
    most = asked.answer() or ctx_per_slot
    obeyed = max(1, int(asked.n_cmpl or asked.n or 1))  # as llama.cpp's server chooses
    return SeveralCounts(stream, cut, cut_progress, prompts * each, obeyed, most, size)
