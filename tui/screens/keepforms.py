"""Forms about how long what was said is kept: retention, legal hold, and forgetting a user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from core.nouns import Hold, RetentionRule
from tui.plain import line
from tui.rights import lacks
from tui.widgets.asking import Asking
from tui.widgets.form import Field
from tui.words import kept, moment

LONGEST = 36500
"""Days."""
DEFAULT = "default"


class _About(Asking):
    """About the chats of `subject`, with a reason."""

    NEEDS_REASON: ClassVar[bool] = True

    def __init__(self, subject: str = "") -> None:
        super().__init__()
        self.subject = subject

    def typed(self) -> Any:
        """What is meant. Raises ValueError with what is wrong or missing."""
        raise NotImplementedError

    def send(self, meant: Any, reason: str) -> None:
        """Do it."""
        raise NotImplementedError

    def action_send(self) -> None:
        try:
            meant = self.typed()
        except ValueError as error:
            self.say(str(error))
            return
        reason = self.value("reason")
        if self.NEEDS_REASON and not reason:
            self.say("A reason is needed: it stands in the audit trail")
        else:
            self.send(meant, reason)


class Keep(_About):
    """How long the chats of a user, of a group or with a deployment are kept."""

    HEADLINE = "How long chats are kept: the strictest rule wins, legal hold wins over all"
    NEEDS_REASON = False

    def fields(self) -> list[Field]:
        return [
            Field("subject", "for", self.subject, "user:NAME, group:NAME or deployment:NAME"),
            Field("days", "kept", "", "days, none, keep, or default (no rule)"),
            Field("reason", "reason", "", "stands in the audit trail"),
        ]

    def typed(self) -> tuple[str, int | None, bool]:
        """Whom it is for, the days (0: nothing, None: for ever) and whether the rule goes. Raises ValueError."""
        if why := lacks(self.corral.state.me, "chats.retention", "chat:retention"):
            raise ValueError(why)
        subject, text = self.value("subject"), self.value("days").lower()
        kind, _, name = subject.partition(":")
        if kind not in ("user", "group", "deployment") or not name:
            raise ValueError("Say whose: user:NAME, group:NAME or deployment:NAME")
        if text in ("none", "keep", DEFAULT):
            return subject, 0 if text == "none" else None, text == DEFAULT
        if not text.isdecimal() or not 1 <= int(text) <= LONGEST:
            raise ValueError(f"Say how long: 1 to {LONGEST} days, none, keep, or {DEFAULT} to take the rule back")
        return subject, int(text), False

    def question(self) -> Callable[[Any], Awaitable[str]]:
        try:
            subject, days, back = self.typed()
            would = f"{subject}: {'no rule' if back else kept(days)}"
            if days == 0 and not back:
                would += ". What there is goes within the hour, new chats are private"
        except ValueError as error:
            subject, would = "", str(error)

        async def ask(client: Any) -> str:
            return "\n".join([would, "", *_rules(await client.privacy.retention(), subject)])

        return ask

    def send(self, meant: tuple[str, int | None, bool], reason: str) -> None:
        subject, days, back = meant

        async def work(client: Any) -> None:
            if back:
                await client.privacy.drop_rule(subject, reason)
            else:
                await client.privacy.retain(subject, days, reason)

        if days == 0 and not back:
            question = f"Keep nothing for {subject}? What there is goes within the hour"
            self.confirmed(question, work, then=lambda _: self.app.pop_screen())
        else:
            self.corral.act(work, lambda _: self.app.pop_screen())


def _rules(found: list[RetentionRule], subject: str) -> list[str]:
    """Those in force, that of `subject` first."""
    if not found:
        return ["No rules: [chats] keep_days of corral.toml counts for all"]
    found = sorted(found, key=lambda each: f"{each.kind}:{each.name}" != subject)
    why = [f" because {each.reason}" if each.reason else "" for each in found]
    return ["Now:"] + [
        line(f"  {each.kind}:{each.name} {kept(each.days)}, by {each.by}{reason}")
        for each, reason in zip(found, why, strict=True)
    ]


class HoldForm(_About):
    """Legal hold of a user or a chat: set where there is none, lifted where there is one."""

    HEADLINE = "Legal hold: nothing of a user's chats, or of one chat, is deleted"
    SENDS = "Set or lift"

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._there: list[Hold] = []

    def fields(self) -> list[Field]:
        return [
            Field("what", "of", self.subject, "user:NAME, or the id of a chat"),
            Field("reason", "reason", "", "why; it stands in the audit trail"),
        ]

    def typed(self) -> str:
        """user:NAME or chat:ID. Raises ValueError."""
        text = self.value("what")
        kind, _, name = text.rpartition(":")
        if not name or kind not in ("", "user", "chat"):
            raise ValueError("Say whose: user:NAME, or the id of a chat")
        object = f"user:{name}" if kind == "user" else ""
        if why := lacks(self.corral.state.me, "chats.hold", object):
            raise ValueError(why)
        return f"{kind or 'chat'}:{name}"

    def held(self, what: str) -> Hold | None:
        """The hold that is on it now."""
        return next((each for each in self._there if f"{each.kind}:{each.name}" == what), None)

    def question(self) -> Callable[[Any], Awaitable[str]]:
        what = self.typed()

        async def ask(client: Any) -> str:
            self._there = await client.privacy.holds()
            return self._told(what)

        return ask

    def _told(self, what: str) -> str:
        others = [line(f"  {h.kind}:{h.name} by {h.by}, because {h.reason}") for h in self._there]
        hold = self.held(what)
        if hold is not None:
            would = f"{what} is held by {hold.by} since {moment(hold.at)}, because {hold.reason}: sending LIFTS that"
        else:
            would = f"Sets a legal hold on {what}: retention, its owner and forgetting delete nothing of it"
        if not self.value("reason"):
            would += ". A reason is needed"
        listed = ["Under legal hold:", *others] if others else ["Nothing is under legal hold"]
        return "\n".join([line(would), "", *listed])

    def send(self, meant: str, reason: str) -> None:
        self.corral.act(lambda client: client.privacy.holds(), lambda found: self._send(meant, reason, found))

    def _send(self, what: str, reason: str, found: list[Hold]) -> None:
        """By what is so now: somebody else may have set or lifted it while this was typed."""
        meant, self._there = self.held(what), found
        hold = self.held(what)
        if (hold is None) != (meant is None):
            self.show(self._told(what))
            self.say("That has changed meanwhile: look, and send again")
        elif hold is None:
            self.corral.act(lambda client: client.privacy.hold(what, reason), lambda _: self.app.pop_screen())
        else:
            id = hold.id
            self.confirmed(
                f"Lift the legal hold {id} on {what}? Retention, its owner and forgetting may delete again",
                lambda client: client.privacy.release(id, reason),
                then=lambda _: self.app.pop_screen(),
            )


class Forget(_About):
    """Delete all that a user said, and destroy his key."""

    HEADLINE = "Forget a user: all that he said, and the key of it. It cannot be undone"
    SENDS = "Forget"

    def fields(self) -> list[Field]:
        return [
            Field("user", "user", self.subject, "also one who has left the host"),
            Field("reason", "reason", "", "why; it stands in the audit trail"),
        ]

    def typed(self) -> str:
        """Whom. Raises ValueError."""
        user = self.value("user")
        if not user:
            raise ValueError("Say whom")
        if why := lacks(self.corral.state.me, "chats.forget", f"user:{user}"):
            raise ValueError(why)
        return user

    def question(self) -> Callable[[Any], Awaitable[str]]:
        user = self.typed()

        async def ask(client: Any) -> str:
            return _ahead(await client.privacy.ahead(user)) + ("" if self.value("reason") else ". A reason is needed")

        return ask

    def send(self, meant: str, reason: str) -> None:
        def sure(ahead: Any) -> None:
            self.confirmed(
                f"{_ahead(ahead)}. It cannot be undone",
                lambda client: client.privacy.forget(meant, reason),
                typed=meant,
                then=lambda _: self.app.pop_screen(),
            )

        self.corral.act(lambda client: client.privacy.ahead(meant), sure)


def _ahead(found: Any) -> str:
    return line(f"Forget {found.user}: {found.chats} chats with {found.turns} questions, and the key")
