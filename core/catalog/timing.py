"""What a running engine does in a second: prompts read and answers made, alone and several at once."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from core.engines.base import Endpoint
from core.engines.load import Timed, complete
from core.nouns import Noun

TIMEOUT_S = 600.0
WORD = "word "


class Rates(Noun, frozen=True, kw_only=True):
    """Of one round."""

    filled: int
    """Tokens of the prompt, of each conversation."""
    prefill: float
    """Tokens a second of a prompt that nothing else runs beside."""
    ttft_s: float
    each: float
    """Tokens a second of each conversation while all of them are answered."""
    last_s: float = 0.0
    """Until the last one of them had its first token, all asked at the same moment."""


class Meter:
    """Of one engine. Its prompts all begin otherwise, so that none is kept of another."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._asked = 0
        self._per_word = 1.0

    async def warm(self) -> None:
        """Touch its buffers, and learn how many tokens a word is."""
        await self._ask(8, 4)
        few, many = await self._ask(16, 1), await self._ask(48, 1)
        if many.prompt_tokens > few.prompt_tokens:
            self._per_word = (many.prompt_tokens - few.prompt_tokens) / 32

    async def prompt(self, tokens: int) -> Timed:
        """Read a prompt of nearly so many tokens, and make one."""
        return await self._ask(self._words(tokens), 1)

    async def decode(self, users: int, filled: int, tokens: int, *, side_by_side: bool = False) -> list[Timed]:
        """Answers of `tokens` tokens to `users` conversations at once with nearly `filled` tokens each. `side_by_side`
        takes the first slots of an engine that has more: llama.cpp computes those that are no neighbours in steps of
        their own, which is as if they were one after the other and says nothing of so many at once."""
        words = self._words(filled)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(words, tokens, n if side_by_side else None)) for n in range(users)]
        return [task.result() for task in tasks]

    async def round(self, users: int, filled: int, tokens: int) -> Rates:
        """One prompt alone, then all at once."""
        alone = await self.prompt(filled)
        together = await self.decode(users, filled, tokens)
        return Rates(
            filled=alone.prompt_tokens or filled, ttft_s=alone.first_s,
            prefill=(alone.prompt_tokens or filled) / max(1e-6, alone.first_s), each=each_rate(together),
            last_s=max(each.first_s for each in together),
        )  # fmt: skip

    def _words(self, tokens: int) -> int:
        return max(1, round(tokens / self._per_word))

    async def _ask(self, words: int, tokens: int, slot: int | None = None) -> Timed:
        self._asked += 1
        prompt = f"{self._asked} {WORD * words}".rstrip()
        return await complete(self._endpoint, prompt, tokens, timeout=self._timeout_s, slot=slot)


def each_rate(answers: Sequence[Timed]) -> float:
    """Tokens a second of each, while all of them were answered: from the last one's first token to the first one's
    last. Where that is too short (a slow prompt beside short answers) it is each one's own time."""
    begin, end = max(each.stamps[0] for each in answers), min(each.stamps[-1] for each in answers)
    within = [sum(begin < stamp <= end for stamp in each.stamps) for each in answers]
    if len(answers) > 1 and min(within) >= 4:
        scale = [each.tokens / max(1, len(each.stamps)) for each in answers]
        return statistics.mean(count * part / (end - begin) for count, part in zip(within, scale, strict=True))
    return 1 / mean if (mean := step_s(answers)) else 0.0


def step_s(answers: Sequence[Timed]) -> float:
    """Seconds a token, by each one's own time; 0 where they were too short to be timed."""
    own = [each.answer_s / (each.tokens - 1) for each in answers if each.tokens > 1 and each.answer_s > 0]
    return statistics.mean(own) if own else 0.0
