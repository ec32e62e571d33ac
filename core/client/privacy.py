"""The calls about whose words are kept, how long, and who may look."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.nouns import ChatKey, Forgotten, Hold, OthersChats, RetentionRule

PASSPHRASE_S = 60.0
"""Several who try one take turns."""


class PrivacyCalls:
    """`client.privacy`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def key(self) -> ChatKey:
        return await self._client.call("GET", "/privacy/key", ChatKey)

    async def unlock(self, passphrase: str) -> ChatKey:
        body = {"passphrase": passphrase}
        return await self._client.call("POST", "/privacy/unlock", ChatKey, body, timeout=PASSPHRASE_S)

    async def rekey(self, passphrase: str = "") -> ChatKey:
        """`passphrase`: the new one, where corral.toml says that it is one."""
        body = {"passphrase": passphrase}
        return await self._client.call("POST", "/privacy/rekey", ChatKey, body, timeout=PASSPHRASE_S)

    async def retention(self) -> list[RetentionRule]:
        return await self._client.call("GET", "/privacy/retention", list[RetentionRule])

    async def retain(self, subject: str, days: int | None, reason: str = "") -> RetentionRule:
        """`days`: 0 keeps nothing, None keeps."""
        body = {"subject": subject, "days": days, "reason": reason}
        return await self._client.call("PUT", "/privacy/retention", RetentionRule, body)

    async def drop_rule(self, subject: str, reason: str = "") -> None:
        query = urlencode({"subject": subject, "reason": reason})
        await self._client.call("DELETE", f"/privacy/retention?{query}", dict)

    async def holds(self) -> list[Hold]:
        return await self._client.call("GET", "/privacy/holds", list[Hold])

    async def hold(self, what: str, reason: str) -> Hold:
        """`what`: user:NAME, or a chat."""
        return await self._client.call("POST", "/privacy/holds", Hold, {"what": what, "reason": reason})

    async def release(self, id: str, reason: str) -> Hold:
        return await self._client.call("POST", f"/privacy/holds/{quote(id, safe='')}/release", Hold, {"reason": reason})

    async def ahead(self, user: str) -> Forgotten:
        """What forgetting this user would take away."""
        return await self._client.call("GET", f"/privacy/forget/{quote(user, safe='')}", Forgotten)

    async def forget(self, user: str, reason: str) -> Forgotten:
        return await self._client.call("POST", f"/privacy/forget/{quote(user, safe='')}", Forgotten, {"reason": reason})

    async def others(self, reason: str, *, user: str = "", chat: str = "", titles: bool = False) -> OthersChats:
        """What another one said: one chat, or those of a user. The look is recorded with the reason."""
        body = {"reason": reason, "user": user, "chat": chat, "titles": titles}
        return await self._client.call("POST", "/privacy/others", OthersChats, body)
