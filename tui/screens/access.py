"""Who may do what and how much: grants with their ends, API keys, limits, service accounts, teams, roles, and you."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult

from core.nouns import Grant, Key, LimitView, Role, ServiceAccount, Subject, Team, Whoami
from tui.beside import beside
from tui.limits import UNSAID, rests, told
from tui.rights import lacks, none
from tui.screens import FOLDER
from tui.screens.room import Line, Note, Room
from tui.widgets.table import Column, Row, Table
from tui.words import age, gone, has_ended, moment, plural

Found = tuple[list[Grant], list[Role], list[Team], list[Key], list[ServiceAccount], list[LimitView]]


def said(me: Whoami | None) -> str:
    """Who one is, in a sentence."""
    if me is None:
        return "Waiting for the daemon"
    if me.because:
        return f"You are {me.name}, {me.because}: you may do everything"
    if not me.holds:
        return f"You are {me.name} and may do nothing yet: ask an admin for a grant"
    if not me.grants:
        return f"You are {me.name}, root on this host: you read; `corral access break-glass` is for emergencies"
    roles = ", ".join(f"{each.what} on {each.scope}" for each in me.grants if each.effect == "allow")
    return f"You are {me.name}: {roles}"


def _may(grant: Grant) -> str:
    return "GLASS" if grant.glass else "may" if grant.effect == "allow" else "MAY NOT"


def _until(grant: Grant) -> str:
    if grant.until is None:
        return "-"
    return "ended" if has_ended(grant) else moment(grant.until)


def about_key(key: Key) -> str:
    """What a key may and when it was used."""
    used = "never used" if key.used_at is None else f"used {age(key.used_at)} from {key.used_from}"
    on = ", ".join(key.deployments)
    return f"{key.state}, {key.owner}, on {on}, {told(key.limits) or 'no limits'}, {used.replace('now', 'just now')}"


def _lasts(key: Key) -> bool:
    return key.state not in ("revoked", "expired")


def about_limit(view: LimitView) -> str:
    """What is limited and what is left of it."""
    if view.limit is None:
        return ""
    words = told(view.limit.limits)
    if view.left is None:
        return f"{words}; {UNSAID}"
    if view.limit.subject.startswith("each:"):
        return f"{words}, each his own"
    left = rests(view.left)
    return f"{words}; left: {left}" if left else words


def about_account(account: ServiceAccount) -> str:
    """Whose it is, whether it works, and what it is for."""
    why = f" by {account.disabled_by}: {account.disabled_for or 'no reason given'}" if account.disabled_at else ""
    return f"{account.state}{why}, {account.owner}" + (f", {account.words}" if account.words else "")


class Access(Room):
    """Screen 8: grants above; keys, limits, service accounts, teams and roles below; tab goes from one table to the
    other."""

    ROOM = "access"
    ASKS = frozenset({
        "new", "remove", "explain", "team", "role", "key", "account", "limit", "keep", "hold", "forget",
    })  # fmt: skip
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "access.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self.grants: dict[str, Grant] = {}
        self.roles: list[Role] = []
        self.teams: list[Team] = []
        self.keys_there: dict[str, Key] = {}
        self.accounts: dict[str, ServiceAccount] = {}
        self.limits_there: dict[str, LimitView] = {}
        """By subject."""
        self.with_ended = False
        """Grants that have ended are shown too."""

    def fill(self) -> ComposeResult:
        yield Note(id="me")
        yield Table(
            [
                Column("who", 16, fit=True), Column("may", 8, 1), Column("what", 14, fit=True),
                Column("on", 14, fit=True), Column("until", 15, 2), Column("by", 8, 4),
                Column("reason", 16, 3, flex=True), Column("grant", 9, 5),
            ],
            id="grants",
        )  # fmt: skip
        yield Line(id="detail")
        yield Table(
            [Column("name", 14, fit=True), Column("kind", 7, 1), Column("is", 20, flex=True)],
            id="roles",
        )  # fmt: skip

    def fold(self) -> None:
        self.query_one("#roles").display = self.app.size.height >= 20

    def table(self) -> Table:
        return self.query_one("#grants", Table)

    def draw(self, kinds: set[str]) -> None:
        me = self.corral.state.me
        self.query_one("#me", Note).set(said(me))
        self.table().none(none(me, "No grant", "n makes one", "access.grant"))
        self.query_one("#roles", Table).none(none(me, "No key", "a makes one", "keys.own"))
        if kinds & {"all", "reload"} and self.corral.client is not None:
            self._ask(me)
        grant = self.grants.get(self.table().key)
        self.query_one("#detail", Line).set(f"-- {self._about(grant)}" if grant is not None else "--")

    def _ask(self, me: Whoami | None) -> None:
        """Read roles and grants; one who may not read all of them sees his own."""
        all_of_it = not lacks(me, "access.read", "access:all")  # what is refused would stand in the trail
        keys = not (lacks(me, "keys.own") and lacks(me, "keys.read"))
        accounts = not (lacks(me, "accounts.own") and lacks(me, "accounts.read"))

        async def read(client: Any) -> Found:
            mine = await client.keys.ls() if keys else []
            programs = await client.accounts.ls() if accounts else []
            limits = await client.limits.ls()
            if not all_of_it:
                return list(me.grants) if me else [], [], [], mine, programs, limits
            access = client.access
            grants, roles, teams = await asyncio.gather(access.grants(), access.roles(), access.teams())
            return grants, roles, teams, mine, programs, limits

        self.corral.act(read, self._take)

    def _take(self, found: Found) -> None:
        grants, self.roles, self.teams, keys, accounts, limits = found
        self.accounts = {each.name: each for each in accounts}
        self.limits_there = {each.limit.subject: each for each in limits if each.limit is not None}
        self.keys_there = {each.id: each for each in keys}
        self.grants = {each.id: each for each in grants}
        self._show_grants()
        meant = [
            Row(f"key:{k.id}", (k.name, "key", about_key(k)), dim=k.state != "active")
            for k in sorted(keys, key=lambda each: (each.state != "active", each.name))
        ]
        meant += [
            Row(f"account:{a.name}", (a.name, "account", about_account(a)), dim=a.state != "active")
            for a in sorted(accounts, key=lambda each: each.name)
        ]
        meant += [
            Row(f"limit:{subject}", (subject, "limit", about_limit(view)))
            for subject, view in sorted(self.limits_there.items())
        ]
        meant += [
            Row(f"team:{t.name}", (t.name, "team", ", ".join(map(str, t.members)) or "nobody")) for t in self.teams
        ]
        meant += [
            Row(f"role:{r.name}", (r.name, "role", r.words or ", ".join(r.allows)))
            for r in sorted(self.roles, key=lambda each: (each.builtin, each.name))
        ]
        self.query_one("#roles", Table).set_rows(meant)
        self.draw({"grant"})
        self.mind_keys()

    def _show_grants(self) -> None:
        """Those in force; on request those that have ended, dimmed, too."""
        shown = [each for each in self.grants.values() if self.with_ended or not has_ended(each)]
        self.table().set_rows(
            [
                Row(
                    g.id,
                    (str(g.subject), _may(g), g.what, g.scope, _until(g), g.by, g.reason, g.id),
                    dim=has_ended(g) or bool(gone(g)),
                )
                for g in sorted(shown, key=lambda each: (str(each.subject), each.effect, each.what))
            ]
        )

    def _about(self, grant: Grant) -> str:
        """What a grant means."""
        role = next((each for each in self.roles if each.name == grant.what), None)
        means = f": {', '.join(role.allows)}" if role is not None else ""
        found = beside([*self.grants.values()], self.teams, self.roles)
        also = "".join(f"; {each}" for each in found if each.own == grant)
        nobody = f"holds for nobody: {gone(grant)}; " if gone(grant) else ""
        return f"{nobody}{grant.id} by {grant.by} since {moment(grant.at)}{also}{means}"

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"grant"})
        self.mind_keys()

    async def on_table_opened(self, event: Table.Opened) -> None:
        self.corral.action_whole()

    def chosen_key(self) -> Key | None:
        """The key under the cursor of the lower table, if that has the focus."""
        below = self.query_one("#roles", Table)
        return self.keys_there.get(below.key.removeprefix("key:")) if below.has_focus else None

    def chosen_account(self) -> ServiceAccount | None:
        """The service account under the cursor of the lower table, if that has the focus."""
        below = self.query_one("#roles", Table)
        kind, _, name = below.key.partition(":")
        return self.accounts.get(name) if below.has_focus and kind == "account" else None

    def chosen_limit(self) -> str:
        """The subject of the limit under the cursor of the lower table, if that has the focus; else ""."""
        below = self.query_one("#roles", Table)
        subject = below.key.removeprefix("limit:") if below.key.startswith("limit:") else ""
        return subject if below.has_focus and subject in self.limits_there else ""

    def hindered(self, action: str) -> str:
        if action == "remove" and (subject := self.chosen_limit()) and self.corral.client is not None:
            return lacks(self.corral.state.me, "limits.set", f"limit:{subject.replace(':', '/')}")
        if action == "remove":
            key = self.chosen_key()
            if key is not None:
                return (
                    f"{key.name} was revoked" if key.state == "revoked" else self._not_mine("keys", key.owner, key.name)
                )
            account = self.chosen_account()
            if account is not None:
                return self._not_mine("accounts", account.owner, account.name)
            if self.query_one("#roles", Table).has_focus:
                return "Teams and roles are removed by `corral access teams rm` and `roles rm`; keys and accounts by x"
            if not self.table().key:
                return "No grant is selected"
        if action == "account" and (account := self.chosen_account()) is not None:
            return self._not_mine("accounts", account.owner, account.name)
        return super().hindered(action)

    def _not_mine(self, noun: str, owner: Subject, name: str) -> str:
        """Why the one at the terminal may not change this key or account; "" where he may, or a team may decide it."""
        me = self.corral.state.me
        if me is None or owner.kind != "user":
            return ""
        if (owner.id, owner.name) == (me.uid, me.name):
            return lacks(me, f"{noun}.own")
        object = f"key:{owner.name}/{name}" if noun == "keys" else f"account:{name}"
        return lacks(me, f"{noun}.manage", object)

    def about(self, action: str) -> str:
        if action == "keep":
            return "chat:retention"
        if action in ("hold", "forget"):
            return self._user()
        grant = self.grants.get(self.table().key)
        return f"access:{grant.subject}" if action == "remove" and grant is not None else ""

    def _user(self) -> str:
        """user:NAME of the row under the cursor; "" where it is about somebody else."""
        subject = self.chosen_limit() or self._whom()
        return subject if subject.startswith("user:") else ""

    # ------------------------------------------------------------------ verbs

    def action_new(self) -> None:
        from tui.screens.accessforms import GrantForm

        self.app.push_screen(GrantForm(self._whom()))

    def action_key(self) -> None:
        from tui.screens.accessforms import KeyForm

        self.app.push_screen(KeyForm())

    def action_account(self) -> None:
        """Make a service account; on one, turn its keys away or let them work again."""
        from tui.screens.accessforms import AccountForm

        account = self.chosen_account()
        if account is None:
            self.app.push_screen(AccountForm())
            return
        name = account.name
        if account.disabled_at is None:
            self.confirmed(
                f"Disable {name}? Programs that use its keys are refused until it is enabled",
                lambda client: client.accounts.disable(name),
            )
        else:
            self.confirmed(
                f"Enable {name}? Its keys work again; {account.disabled_by} disabled it",
                lambda client: client.accounts.enable(name),
            )

    def action_ended(self) -> None:
        """Show the grants that have ended, or hide them again."""
        self.with_ended = not self.with_ended
        self._show_grants()
        count = sum(has_ended(each) for each in self.grants.values())
        there = f"{count} ended {plural(count, 'grant')} {'shown, dimmed' if self.with_ended else 'left out'}"
        self.say(there if count else "No grant has ended")

    def _whom(self) -> str:
        """Whom the cursor is on, as grants name him: `account:ci`; "" where it is on nobody."""
        below = self.query_one("#roles", Table)
        if below.has_focus:
            return below.key if below.key.startswith(("account:", "team:")) else ""
        grant = self.grants.get(self.table().key)
        return str(grant.subject) if grant is not None else ""

    def _limited(self) -> str:
        """Whose limits `l` is about: what the cursor is on, as limits name it; "" where nothing is meant by itself. A
        service account has none: what its keys and its owner have hold it."""
        below = self.query_one("#roles", Table)
        if not below.has_focus:
            grant = self.grants.get(self.table().key)
            return str(grant.subject) if grant is not None and grant.subject.kind != "account" else ""
        key, account, (kind, _, name) = self.chosen_key(), self.chosen_account(), below.key.partition(":")
        if account is not None:
            his = [each for each in self.keys_there.values() if each.owner == account.subject and _lasts(each)]
            key = his[0] if len(his) == 1 else None
        if key is not None:
            return f"key:{key.owner.name}/{key.name}"
        return f"team:{name}" if kind == "team" else self.chosen_limit()

    def action_limit(self) -> None:
        from tui.screens.accessforms import LimitForm

        subject = self._limited()
        there = self.limits_there.get(subject)
        self.app.push_screen(LimitForm(subject, there.limit.limits if there and there.limit else None))

    def action_remove(self) -> None:
        if subject := self.chosen_limit():
            self.confirmed(f"Remove all limits of {subject}?", lambda client: client.limits.rm(subject))
            return
        key = self.chosen_key()
        if key is not None:
            id = key.id
            self.confirmed(
                f"Revoke the key {key.name} of {key.owner}? Programs that use it are refused from now on",
                lambda client: client.keys.revoke(id),
            )
            return
        account = self.chosen_account()
        if account is not None:
            name = account.name
            self.confirmed(
                f"Remove the service account {name} of {account.owner}? Its keys are revoked for good",
                lambda client: client.accounts.rm(name),
            )
            return
        grant = self.grants.get(self.table().key)
        if grant is None:
            return
        id, verb = grant.id, "may no longer" if grant.effect == "allow" else "is no longer denied"

        def asked(found: Any) -> None:
            lost = f" {len(found)} decisions change" if found else " Nobody's decisions change"
            self.confirmed(
                f"Revoke {id}: {grant.subject} {verb} {grant.what} on {grant.scope}.{lost}",
                lambda client: client.access.revoke(id),
            )

        self.corral.act(lambda client: client.access.simulate(revoke=id), asked)

    def action_explain(self) -> None:
        from tui.screens.accessforms import ExplainForm

        kind, _, name = self._whom().partition(":")
        who = {"user": name, "account": f"account:{name}"}.get(kind, "")
        grant = self.grants.get(self.table().key) if who and not self.query_one("#roles", Table).has_focus else None
        self.app.push_screen(ExplainForm(who, "" if grant is None or "*" in grant.scope else grant.scope))

    def action_keep(self) -> None:
        from tui.screens.keepforms import Keep

        subject = self.chosen_limit() or self._whom()
        self.app.push_screen(Keep(subject if subject.startswith(("user:", "group:", "deployment:")) else ""))

    def action_hold(self) -> None:
        from tui.screens.keepforms import HoldForm

        self.app.push_screen(HoldForm(self._user()))

    def action_forget(self) -> None:
        from tui.screens.keepforms import Forget

        self.app.push_screen(Forget(self._user().removeprefix("user:")))

    def action_team(self) -> None:
        from tui.screens.accessforms import TeamForm

        self.app.push_screen(TeamForm())

    def action_role(self) -> None:
        from tui.screens.accessforms import RoleForm

        self.app.push_screen(RoleForm())
