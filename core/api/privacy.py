"""The routes about whose words are kept, how long, and who may look: the master key, rules, holds, forgetting, others'.

What others said is asked for with POST: the reason stands in the body, and a look is something that is done.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.server import Call, Server
from core.chats import Forgetting, Holds, Others, Rules, Vault
from core.chats.rules import OBJECT as RETENTION
from core.chats.vault import OBJECT as KEYS


class PassphraseBody(msgspec.Struct, forbid_unknown_fields=True):
    passphrase: str = ""

    def __repr__(self) -> str:
        return "PassphraseBody()"


class RuleBody(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    days: int | None
    """0: nothing is kept, None: for ever."""
    reason: str = ""


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    what: str
    """user:NAME, or a chat."""
    reason: str


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


class LookBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    user: str = ""
    chat: str = ""
    """One chat; else those of `user`."""
    titles: bool = False
    """Only which there are."""


def add_privacy(
    server: Server, vault: Vault, rules: Rules, holds: Holds, forgetting: Forgetting, others: Others
) -> None:
    async def key(call: Call) -> Any:
        return await vault.status()

    async def unlock(call: Call) -> Any:
        body = await call.body(PassphraseBody)
        return await vault.unlock(call.actor, call.request, body.passphrase)

    async def rekey(call: Call) -> Any:
        body = await call.body(PassphraseBody)
        return await vault.rekey(call.actor, call.request, body.passphrase)

    async def rule_list(call: Call) -> Any:
        return rules.ls()

    async def put_rule(call: Call) -> Any:
        body = await call.body(RuleBody)
        return await rules.put(call.actor, call.request, body.subject, body.days, body.reason)

    async def rm_rule(call: Call) -> Any:
        subject = call.text("subject", "") or ""
        await rules.rm(call.actor, call.request, subject, call.text("reason", "") or "")
        return {"removed": subject}

    async def hold_list(call: Call) -> Any:
        return await holds.ls(call.actor)

    async def hold(call: Call) -> Any:
        body = await call.body(HoldBody)
        return await holds.add(call.actor, call.request, body.what, body.reason)

    async def release(call: Call) -> Any:
        body = await call.body(ReasonBody)
        return await holds.release(call.actor, call.request, call.path("id"), body.reason)

    async def ahead(call: Call) -> Any:
        return await forgetting.ahead(call.actor, call.path("user"))

    async def forget(call: Call) -> Any:
        body = await call.body(ReasonBody)
        return await forgetting.forget(call.actor, call.request, call.path("user"), body.reason)

    async def look(call: Call) -> Any:
        body = await call.body(LookBody)
        if body.chat:
            return await others.one(call.actor, call.request, body.chat, body.reason)
        if body.titles:
            return await others.titles(call.actor, call.request, body.user, body.reason)
        return await others.all(call.actor, call.request, body.user, body.reason)

    server.add("GET", "/privacy/key", "daemon.read", key)
    server.add("POST", "/privacy/unlock", "chats.keys", unlock, on=KEYS)
    server.add("POST", "/privacy/rekey", "chats.keys", rekey, on=KEYS)
    server.add("GET", "/privacy/retention", "chats.own", rule_list, or_else="audit.read")
    server.add("PUT", "/privacy/retention", "chats.retention", put_rule, on=RETENTION)
    server.add("DELETE", "/privacy/retention", "chats.retention", rm_rule, on=RETENTION)
    server.add("GET", "/privacy/holds", "chats.hold", hold_list, or_else="audit.read")
    server.add("POST", "/privacy/holds", "chats.hold", hold, status=201)
    server.add("POST", "/privacy/holds/{id}/release", "chats.hold", release)
    server.add("GET", "/privacy/forget/{user}", "chats.forget", ahead, on="user:{user}")
    server.add("POST", "/privacy/forget/{user}", "chats.forget", forget, on="user:{user}")
    server.add("POST", "/privacy/others", "chats.read-others", look)
