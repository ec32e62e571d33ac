"""What of a conversation is sent to the engine, and whether it fits a slot."""

from __future__ import annotations

from core.nouns import Chat, Turn

BYTES_A_TOKEN = 3
"""Where nobody counted; English has some 4, so this errs on the safe side."""
ANSWER_ROOM = 256
"""Cells kept for an answer whose length is not limited, at most a quarter of the slot."""


def messages(chat: Chat, turns: list[Turn], question: str) -> list[dict[str, str]]:
    """The conversation as the engine wants it."""
    told = [{"role": "system", "content": chat.options.system}] if chat.options.system else []
    for turn in turns:
        told.append({"role": "user", "content": turn.question})
        if turn.answer:
            told.append({"role": "assistant", "content": turn.answer})
    return [*told, {"role": "user", "content": question}]


def too_long(chat: Chat, question: str) -> str:
    """The sentence if the question by itself is far over what a slot takes, else empty. Near the limit the engine says,
    which counts and does not guess: text of less than two bytes a token is rare."""
    most, size = chat.ctx_per_slot, len(question.encode())
    if not most or size <= most * 8:
        return ""
    return f"it has some {size // BYTES_A_TOKEN} tokens, and a slot has {most}"


def overfull(chat: Chat, turns: list[Turn], question: str, *, counted: bool) -> str:
    """The sentence if `turns` and `question` will not fit a slot, else empty.

    `counted`: the engine's count after the last turn is of just these turns.
    """
    if not chat.ctx_per_slot:
        return ""
    used = turns[-1].context_tokens if counted and turns else None
    if used is None:
        text = sum(len(turn.question.encode()) + len(turn.answer.encode()) for turn in turns)
        used = (text + len(chat.options.system.encode())) // BYTES_A_TOKEN
    room = min(chat.options.max_tokens or ANSWER_ROOM, chat.ctx_per_slot // 4)
    need = used + len(question.encode()) // BYTES_A_TOKEN + room
    if need <= chat.ctx_per_slot:
        return ""
    return f"about {need} tokens are needed and a slot has {chat.ctx_per_slot}"


def fitting(chat: Chat, turns: list[Turn], question: str) -> list[Turn]:
    """The newest of `turns` that fit beside the question; none, if it alone fills the slot."""
    keep = turns
    while keep and overfull(chat, keep, question, counted=False):
        keep = keep[1:]
    return keep
