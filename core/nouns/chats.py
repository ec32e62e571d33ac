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
    """One question and its answer. States: waiting, streaming, done, stopped, cut (the replica died), failed, unkept
    (its deployment was marked as sensitive: it was ended, and no more of it is stored)."""

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
    owner_uid: int = -1
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
    private: bool = False
    """It is in the daemon's memory alone, and gone with it, or an hour after it was used last."""
    held: bool = False
    """It is under legal hold: nothing of it is deleted."""


class ChatDetail(Noun, frozen=True, kw_only=True):
    chat: Chat
    messages: tuple[Turn, ...]


class ChatKey(Noun, frozen=True, kw_only=True):
    """How the chats are sealed. States: open, locked, new (a passphrase is still to be chosen)."""

    state: str
    id: str
    """Of the master key."""
    place: str
    """Where it is, or is looked for."""
    passphrase: bool
    users: int
    """Who have a key of their own."""
    plain: int
    """Chats of before they were sealed that are still to be."""
    why: str = ""
    todo: str = ""
    wanted: str = "file"
    """`passphrase` or `file`, as corral.toml says; where it is not so yet, `rekey` goes over to it."""


class Hold(Noun, frozen=True, kw_only=True):
    """A legal hold: nothing of this user's chats, or of this chat, is deleted."""

    id: str
    kind: Literal["user", "chat"]
    name: str
    """Of the user, or the chat's id."""
    uid: int = -1
    """Of the user."""
    reason: str
    by: str
    at: float


class RetentionRule(Noun, frozen=True, kw_only=True):
    """How long chats are kept: `days` after the last turn, 0: nothing is kept, None: they are kept."""

    kind: Literal["user", "group", "deployment"]
    name: str
    number: int = -1
    """Uid or gid."""
    days: int | None
    reason: str
    by: str
    at: float


class Forgotten(Noun, frozen=True, kw_only=True):
    """What forgetting a user took away."""

    user: str
    chats: int
    turns: int
    keys: int


class OthersChats(Noun, frozen=True, kw_only=True):
    """A recorded look into what another one said."""

    user: str
    reason: str
    chats: tuple[ChatDetail, ...]
