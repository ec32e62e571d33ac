"""A question with its answer and figures, and how much of the context a conversation takes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from core.nouns import Chat, ChatOptions, Turn
from tui.plain import line, plain
from tui.widgets.answer import Answer
from tui.words import counted

IN_FLIGHT = ("waiting", "streaming")
ANSWER_ROOM = 256
"""Tokens that the daemon keeps for an answer without a limit of its own, at most a quarter of the context."""


def figures(turn: Turn) -> str:
    """One answer's figures on a line, and which key goes on from here."""
    if turn.state in IN_FLIGHT:
        return "answering; s stops it (in the field: esc, then s)"
    cut = turn.finish == "length"  # the engine's word for a limit that was reached
    words = ["cut off by max tokens or context" if cut else turn.state + (f" ({turn.finish})" if turn.finish else "")]
    if turn.ttft_ms is not None:
        words.append(f"first token {turn.ttft_ms:.0f} ms")
    if turn.tokens_per_second is not None:
        words.append(f"{turn.tokens_per_second:.1f} tok/s")
    if tokens := counted(turn.prompt_tokens, turn.answer_tokens, "tok"):
        words.append(tokens)
    if turn.reason:
        words.append(turn.reason)
    if can_go_on(turn):
        words.append("o goes on")
    return line(", ".join(words))


def can_go_on(turn: Turn) -> bool:
    """The answer is there in part."""
    return turn.state in ("cut", "stopped", "failed") or (turn.state == "done" and turn.finish == "length")


class TurnView(Vertical):
    """A question, its answer and its figures."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn

    def compose(self) -> ComposeResult:
        yield Static("> " + plain(self.turn.question), classes="question", markup=False)
        yield Answer(self.turn.answer, whole=self.turn.state not in IN_FLIGHT)
        yield Static(figures(self.turn), classes="figures", markup=False)

    async def grow(self, text: str) -> None:
        """The answer so far."""
        await self.query_one(Answer).show(text, whole=False)

    async def end(self, turn: Turn) -> None:
        """The answer is over."""
        self.turn = turn
        await self.query_one(Answer).show(turn.answer, whole=True)
        self.foot(figures(turn))

    def foot(self, words: str) -> None:
        """Put words where the figures will be."""
        self.query_one(".figures", Static).update(words)


def settings(options: ChatOptions) -> str:
    """What differs from the engine's own defaults, on a line."""
    given = {name: value for name, value in msgspec.structs.asdict(options).items() if value not in (None, "")}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items()) or "the engine's defaults"


def filled(turns: Sequence[Turn], growing: str) -> tuple[int, bool]:
    """Tokens of the context that the conversation takes, and whether they are guessed in part: the engine counts at the
    end of an answer, so what came after its last count (a stopped answer, `growing`) is taken as three bytes each."""
    used, since = 0, ""
    for turn in turns:
        if turn.context_tokens:
            used, since = turn.context_tokens, ""
        else:
            since += turn.question + turn.answer
    since += growing.removeprefix(turns[-1].answer) if turns else ""
    return used + len(since.encode()) // 3, bool(since)


def crowded(chat: Chat, turns: Sequence[Turn], question: str) -> str:
    """Why the context asks for a choice now, "" where it doesn't: it cut the last answer, or `question` (some three
    bytes a token) and an answer would not fit. The daemon decides anew, by the same measure, when one asks."""
    room = chat.ctx_per_slot
    if not room or not turns or chat.on_full == "forget-oldest" or turns[-1].state in IN_FLIGHT:
        return ""
    used, last = filled(turns, "")[0], turns[-1]
    answer = min(chat.options.max_tokens or ANSWER_ROOM, room // 4)
    if last.finish == "length" and used >= room - 1:
        return f"The context is full ({min(used, room)} of {room} tokens): it cut this answer"
    if used + len(question.encode()) // 3 + answer > room:
        return f"The context is nearly full ({min(used, room)} of {room} tokens): the next question will not fit"
    return ""
