"""The forms of Access: grant or deny with what it would give, explain a decision, define a role or a team, make a key,
set limits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import NotFound
from core.nouns import Decision, Difference, Limits
from tui.amounts import moment_ahead
from tui.beside import explained, kept
from tui.keywords import unmatched
from tui.limits import KINDS, UNLIMITED, rest
from tui.limits import told as limits_told
from tui.plain import plain
from tui.widgets.asking import Asking
from tui.widgets.form import Field, Form
from tui.words import moment

SHOWN = 12
"""Differences that a form shows one by one."""


def told(found: Sequence[Difference]) -> str:
    """What a change would give or take."""
    if not found:
        return "Nothing would change for anybody on what is there now"
    who, what = (max(len(text(each)) for each in found[:SHOWN]) for text in (_subject, _permission))
    lines = [
        f"{'gains' if each.after else 'loses'}  {_subject(each):{who}}  {_permission(each):{what}}  on {each.object}"
        for each in found[:SHOWN]
    ]
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} more")
    return "\n".join(lines)


def whole(text: str, what: str, wanted: str = "a whole number") -> int:
    """A limit as it was typed; 0 for an empty field, which is no limit. Raises ValueError, also for a 0 that was typed:
    it would be no limit, and reads as nothing at all."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 14):
        raise ValueError(f"{what} must be {wanted}, not {text!r}")
    if not int(text):
        raise ValueError(f"{what} of 0 would be no limit: leave it empty for none")
    return int(text)


def _subject(each: Difference) -> str:
    return str(each.subject)


def _permission(each: Difference) -> str:
    return each.permission


class OfAccess(Asking):
    """One that goes back to the Access screen when it is done."""

    REPLACED = True

    def leave(self, words: str) -> None:
        """Done: back to the screen, with a sentence on it."""
        self.app.pop_screen()
        self.corral.go("access", say=words)


class GrantForm(OfAccess):
    """Grant or deny."""

    HEADLINE = "Grant or deny: nobody gives what he does not hold himself"
    SENDS = "Grant"

    def __init__(self, subject: str = "") -> None:
        super().__init__()
        self.subject = subject

    def fields(self) -> list[Field]:
        return [
            Field("subject", "who", self.subject, "user:alice, group:staff, team:ml or account:ci"),
            Field("effect", "may", "may", "may, or not"),
            Field("what", "what", "", "a role (viewer, user, operator, ...) or deployments.st*"),
            Field("scope", "on", "*", "*, deployment:chat, model:phi-*"),
            Field("until", "until", "", "default: until it is revoked; 8h, 30d, 2027-01-31T18:00"),
            Field("reason", "reason", "", "stands in the audit trail"),
        ]

    def typed(self) -> dict[str, Any]:
        """The grant; raises ValueError."""
        if not self.value("subject"):
            raise ValueError("Say who: user:NAME, group:NAME, team:NAME or account:NAME")
        if not self.value("what"):
            raise ValueError("Say what: a role, a permission or a pattern")
        if self.value("effect") not in ("may", "not"):
            raise ValueError("`may` is may or not")
        until = self.value("until")
        return {
            "subject": self.value("subject"), "what": self.value("what"), "scope": self.value("scope") or "*",
            "deny": self.value("effect") == "not", "until": moment_ahead(until, time.time()) if until else None,
        }  # fmt: skip

    def question(self) -> Callable[[Any], Awaitable[str]]:
        fields = self.typed()

        async def ask(client: Any) -> str:
            until = f"Ends {moment(fields['until'])}\n" if fields["until"] is not None else ""
            return until + told(await client.access.simulate(**fields))

        return ask

    def action_send(self) -> None:
        try:
            fields = {**self.typed(), "reason": self.value("reason")}
        except ValueError as error:
            self.say(str(error))
            return
        self.corral.act(
            lambda client: client.access.grant(**fields), lambda made: self.leave(f"Grant {made.id} is in force")
        )


SEEN = ("model", "node", "account", "key", "limit")
"""Kinds of objects that are asked about by whether somebody may see them: to use is of deployments alone."""


class ExplainForm(OfAccess):
    """Yes or no, and by which grant."""

    HEADLINE = "Explain a decision"
    SENDS = "Explain"

    def __init__(self, user: str = "", object: str = "") -> None:
        super().__init__()
        self.user, self.object = user, object
        kind = object.partition(":")[0]
        self.permission = f"{kind}s.read" if kind in SEEN else "deployments.use"

    def fields(self) -> list[Field]:
        return [
            Field("user", "user", self.user, "a user of this host, or account:ci"),
            Field("permission", "may", self.permission, "a permission"),
            Field("object", "on", self.object, "deployment:chat, model:tiny, audit:chain"),
        ]

    def question(self) -> Callable[[Any], Awaitable[str]]:
        user, permission, object = (self.value(each) for each in ("user", "permission", "object"))
        if not (user and permission and object):
            raise ValueError("Name a user, a permission and an object")

        async def ask(client: Any) -> str:
            decision: Decision = await client.access.explain(user, permission, object)
            return f"{'YES' if decision.allowed else 'NO'}: {explained(decision)}"

        return ask

    def action_send(self) -> None:
        self._ask()


class TeamForm(OfAccess):
    """Who is in a team."""

    HEADLINE = "Define a team: those that are named are in it, and nobody else"
    SENDS = "Define"

    def fields(self) -> list[Field]:
        return [
            Field("name", "team", "", "a-z, 0-9, _ and -"),
            Field("members", "members", "", "user:alice group:staff ..."),
        ]

    def question(self) -> Callable[[Any], Awaitable[str]]:
        name, members = self.value("name"), self.value("members").split()
        if not name:
            raise ValueError("Name the team")

        async def ask(client: Any) -> str:
            teams = await client.access.teams()
            team = next((each for each in teams if each.name == name), None)
            if team is None:
                return f"A new team of {len(members)}"
            joins = sorted(set(members) - {str(each) for each in team.members})
            leaves = sorted((each for each in team.members if str(each) not in members), key=str)
            lines = [f"joins  {each}" for each in joins] + [f"leaves  {each}" for each in leaves]
            lines += kept(leaves, name, await client.access.grants() if leaves else (), teams)
            return "\n".join(lines) or "As it is"

        return ask

    def action_send(self) -> None:
        name, members = self.value("name"), self.value("members").split()
        self.corral.act(
            lambda client: client.access.put_team(name, members),
            lambda made: self.leave(f"Team {made.name} is defined"),
        )


class RoleForm(OfAccess):
    """What a role allows."""

    HEADLINE = "Define a role of your own, or define it anew for all who have it"
    SENDS = "Define"

    def fields(self) -> list[Field]:
        return [
            Field("name", "role", "", "a-z, 0-9, _ and -"),
            Field("allows", "allows", "", "deployments.read deployments.st* models.*"),
            Field("words", "in words", "", "what it is for"),
        ]

    def question(self) -> Callable[[Any], Awaitable[str]]:
        name, allows = self.value("name"), self.value("allows").split()
        if not name or not allows:
            raise ValueError("Name the role, and at least one permission")

        async def ask(client: Any) -> str:
            return told(await client.access.simulate(role={"name": name, "allows": allows}))

        return ask

    def action_send(self) -> None:
        name, allows, words = self.value("name"), self.value("allows").split(), self.value("words")
        self.corral.act(
            lambda client: client.access.put_role(name, allows, words),
            lambda made: self.leave(f"Role {made.name} is defined"),
        )


class AccountForm(OfAccess):
    """A service account."""

    HEADLINE = "Make a service account: a program that has keys, and never may more than its owner"
    SENDS = "Make"

    def fields(self) -> list[Field]:
        return [
            Field("name", "name", "", "of the program, for example ci"),
            Field("owner", "owner", "", "default: you; team:ml outlives the people in it"),
            Field("words", "for", "", "what it is for"),
        ]

    def question(self) -> Callable[[Any], Awaitable[str]]:
        name, owner = self.value("name"), self.value("owner") or "you"
        if not name:
            raise ValueError("Name it after the program")

        async def ask(client: Any) -> str:
            if any(each.name == name for each in await client.accounts.ls()):
                return f"There is a service account {name} already"
            return f"It may nothing until something is granted to account:{name}, and never more than {owner} may then"

        return ask

    def action_send(self) -> None:
        name, owner, words = (self.value(each) for each in ("name", "owner", "words"))
        self.corral.act(
            lambda client: client.accounts.create(name, owner=owner, words=words),
            lambda made: self.leave(f"Service account {made.name} is made: grant it something with n"),
        )


class KeyForm(Form):
    """A key of one's own. Its secret is shown once, to be copied."""

    REPLACED = True
    HEADLINE = "Make an API key; it never may more than its owner"
    SENDS = "Make"
    LIMITS = ("rpm", "tpm", "concurrency", "daily_tokens")

    def fields(self) -> list[Field]:
        return [
            Field("name", "name", "", "of the program, for example ci"),
            Field("owner", "owner", "", "default: you; account:ci or team:ml"),
            Field("deployments", "deployments", "*", "names, a star at the end: team-a-* chat"),
            Field("rpm", "requests/min", "", "default: no limit"),
            Field("tpm", "tokens/min", "", "in and out; default: no limit"),
            Field("concurrency", "at once", "", "default: no limit"),
            Field("daily_tokens", "tokens/day", "", "in and out; default: no limit"),
            Field("until", "expires", "", "default: never; 30d, 2027-01-31T18:00"),
        ]

    def typed(self) -> dict[str, Any]:
        """The key; raises ValueError."""
        limits = {}
        for field in self.LIMITS:
            text = self.value(field)
            limits[field] = whole(text, field)
        if not self.value("name"):
            raise ValueError("Name it after the program that will use it")
        until = self.value("until")
        return {
            "name": self.value("name"), "owner": self.value("owner"),
            "deployments": self.value("deployments").split(), "limits": limits,
            "until": moment_ahead(until, time.time()) if until else None,
        }  # fmt: skip

    def weigh(self) -> None:
        try:
            fields = self.typed()
        except ValueError as error:
            self.show(plain(error))
            return
        status = self.corral.state.status
        base = f"Programs use it at {status.gateway}/v1. " if status is not None and status.gateway else ""
        ends = f" until {moment(fields['until'])}" if fields["until"] is not None else ""
        lost = unmatched(fields["deployments"], [each.spec.name for each in self.corral.state.deployments.values()])
        lines = [f"{base}It may use {', '.join(fields['deployments']) or 'nothing'}{ends}", lost]
        self.show(plain("\n".join(each for each in lines if each)))

    def action_send(self) -> None:
        from tui.screens.whole import Whole

        try:
            fields = self.typed()
        except ValueError as error:
            self.say(str(error))
            return

        def made(key: Any) -> None:
            self.app.pop_screen()
            self.app.push_screen(Whole(f"{key.key}\n\nThis is key {key.name}. It is shown this once; y copies it."))

        self.corral.act(lambda client: client.keys.create(**fields), made)


class LimitForm(OfAccess):
    """What a subject may use; what it may now stands in the fields."""

    HEADLINE = "Set limits: all that apply to a request hold at once"
    SENDS = "Set"

    def __init__(self, subject: str = "", limits: Limits | None = None) -> None:
        super().__init__()
        self.subject, self.limits = subject, limits or Limits()

    def fields(self) -> list[Field]:
        whom = "each:user, each:key, each:group:staff, user:alice, group:staff, key:alice/ci, deployment:chat ..."
        amounts = [
            Field(field, few, self._shown(field), f"{words}; empty: no limit") for field, (few, words) in KINDS.items()
        ]
        return [
            Field("subject", "whose", self.subject, whom),
            *amounts,
            Field("hours", "hours", self.limits.hours, "mon-fri 08:00-18:00, sat 09:00-12:00; empty: always"),
            Field("reason", "reason", "", "stands in the audit trail"),
        ]

    def _shown(self, field: str) -> str:
        amount = getattr(self.limits, field)
        return "unlimited" if amount == UNLIMITED else str(amount or "")

    def typed(self) -> tuple[str, dict[str, Any]]:
        """Whose limits, and all of them; raises ValueError."""
        subject = self.value("subject")
        if not subject:
            raise ValueError("Say whose: for example each:user, group:staff or deployment:chat")
        limits: dict[str, Any] = {"hours": self.value("hours")}
        for field, (few, _) in KINDS.items():
            text = self.value(field)
            limits[field] = UNLIMITED if text == "unlimited" else whole(text, few, "a whole number or `unlimited`")
        return subject, limits

    def question(self) -> Callable[[Any], Awaitable[str]]:
        subject, wanted = self.typed()
        then = limits_told(Limits(**wanted)) or "nothing: x on its row removes limits"

        async def ask(client: Any) -> str:
            try:
                view = await client.limits.get(subject)
            except NotFound as error:
                if not error.what.startswith("no limit is set"):
                    raise
                return f"Now no limit is set for it\nThen {then}"
            now = limits_told(view.limit.limits) if view.limit is not None else "nothing by name"
            left = [f"{each.subject} has {rest(each)}" for each in view.left or ()]
            return "\n".join([f"Now {now}", f"Then {then}", *left[:SHOWN]])

        return ask

    def action_send(self) -> None:
        try:
            subject, limits = self.typed()
        except ValueError as error:
            self.say(str(error))
            return
        reason = self.value("reason")
        self.corral.act(
            lambda client: client.limits.set(subject, limits, reason),
            lambda made: self.leave(f"Limits of {made.subject} are in force"),
        )
