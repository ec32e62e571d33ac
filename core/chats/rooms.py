"""What of a chat depends on now: the size of a slot of its deployment, and when it goes by the rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from core.chats.rules import DAY_S, Rules
from core.nouns import Actor, Chat, Deployment

PRIVATE_S = 3600.0
"""A private chat that nobody uses goes after so long."""


class Rooms:
    """`deployment` finds one by its name."""

    def __init__(self, rules: Rules, deployment: Callable[[str], Awaitable[Deployment | None]]) -> None:
        self._rules, self._deployment = rules, deployment

    async def of(self, actor: Actor, chat: Chat) -> Chat:
        return (await self.all(actor, [chat]))[0]

    async def all(self, actor: Actor, found: Sequence[Chat]) -> list[Chat]:
        """With the size of a slot now, each deployment looked at once, and the time at which a chat goes by the
        rules of now."""
        slots = {}
        for name in {chat.deployment for chat in found}:
            there = await self._deployment(name)
            slots[name] = there.spec.ctx // max(1, there.spec.parallel) if there else 0
        return [
            msgspec.structs.replace(
                chat, ctx_per_slot=slots[chat.deployment], goes_at=None if chat.held else self._goes_at(actor, chat)
            )
            for chat in found
        ]  # fmt: skip

    def _goes_at(self, actor: Actor, chat: Chat) -> float | None:
        if chat.private:
            return (chat.last_turn_at or chat.created_at) + PRIVATE_S
        days = self._rules.days(actor.uid, actor.name, actor.groups, chat.deployment)
        return None if days is None else (chat.last_turn_at or chat.created_at) + days * DAY_S
