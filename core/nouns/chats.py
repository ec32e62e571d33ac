"""Chats: sessions, their turns, and how they are asked."""

from __future__ import annotations

from typing import Literal

from core.nouns.base import Noun


class ChatOptions(Noun, frozen=True, kw_only=True):
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class Turn(Noun, frozen=True, kw_only=True):
    """One question and its answer. States: waiting, streaming, done, stopped, cut (the replica died), failed."""

    id: str
    chat: str
    n: int
    question: str
    answer: str
    state: str
    reason: str = ""
    asked_at: float
    ttft_ms: float | None = None
    total_ms: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    finish: str = ""
    """As the engine said: stop, length."""
    context_tokens: int | None = None
    """How many cells of the slot this conversation fills after the answer."""


class Chat(Noun, frozen=True, kw_only=True):
    id: str
    title: str
    deployment: str
    options: ChatOptions
    owner: str
    created_at: float
    updated_at: float
    turns: int = 0
    ctx_per_slot: int = 0
    context_tokens: int = 0
    on_full: Literal["ask", "forget-oldest"] = "ask"
    last_turn_at: float | None = None
    """When its last question was asked; None if there was none."""
    goes_at: float | None = None
    """When it will be deleted for good, if nothing is asked before; None: it is kept."""


class ChatDetail(Noun, frozen=True, kw_only=True):
    chat: Chat
    messages: tuple[Turn, ...]
