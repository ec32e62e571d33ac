"""Who may do what: grants with their ends, roles, teams, and what you yourself may do."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult

from core.nouns import Grant, Role, Team, Whoami
from tui.screens import FOLDER
from tui.screens.room import Line, Note, Room
from tui.widgets.table import Column, Row, Table
from tui.words import moment


def said(me: Whoami | None) -> str:
    """Who one is, in a sentence."""
    if me is None:
        return "Waiting for the daemon"
    if me.because:
        return f"You are {me.name}, {me.because}: you may do everything"
    if not me.holds:
        return f"You are {me.name} and may do nothing yet: ask an admin for a grant"
    roles = ", ".join(f"{each.what} on {each.scope}" for each in me.grants if each.effect == "allow")
    return f"You are {me.name}: {roles}"


class Access(Room):
    """Screen 8."""

    ROOM = "access"
    ASKS = frozenset({"new", "remove", "explain", "team", "role"})
    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "access.tcss"]

    def __init__(self) -> None:
        super().__init__()
        self.grants: dict[str, Grant] = {}
        self.roles: list[Role] = []
        self.teams: list[Team] = []

    def fill(self) -> ComposeResult:
        yield Note(id="me")
        yield Table(
            [
                Column("who", 16, fit=True), Column("may", 8, 1), Column("what", 14, fit=True),
                Column("on", 14, fit=True), Column("until", 15, 2), Column("by", 8, 4),
                Column("reason", 16, 3, flex=True), Column("grant", 9, 5),
            ],
            empty="No grant: n makes one", id="grants",
        )  # fmt: skip
        yield Line(id="detail")
        roles = Table(
            [Column("role, team", 14, fit=True), Column("", 8, 1), Column("is", 20, flex=True)],
            empty="Roles and teams are for those who may access.read", id="roles",
        )  # fmt: skip
        roles.can_focus = False
        yield roles

    def fold(self) -> None:
        self.query_one("#roles").display = self.app.size.height >= 20

    def table(self) -> Table:
        return self.query_one("#grants", Table)

    def draw(self, kinds: set[str]) -> None:
        me = self.corral.state.me
        self.query_one("#me", Note).set(said(me))
        if kinds & {"all", "reload"} and self.corral.client is not None:
            self._ask(me)
        grant = self.grants.get(self.table().key)
        self.query_one("#detail", Line).set(f"-- {self._about(grant)}" if grant is not None else "--")

    def _ask(self, me: Whoami | None) -> None:
        """Read roles and grants; one who may not read all of them sees his own."""
        if me is not None and not me.because and all(each.permission != "access.read" for each in me.holds):
            self._take((list(me.grants), [], []))
            return

        async def read(client: Any) -> tuple[list[Grant], list[Role], list[Team]]:
            access = client.access
            grants, roles, teams = await asyncio.gather(access.grants(), access.roles(), access.teams())
            return grants, roles, teams

        self.corral.act(read, self._take)

    def _take(self, found: tuple[list[Grant], list[Role], list[Team]]) -> None:
        grants, self.roles, self.teams = found
        self.grants = {each.id: each for each in grants}
        rows = sorted(grants, key=lambda each: (str(each.subject), each.effect, each.what))
        self.table().set_rows(
            [
                Row(g.id, (str(g.subject), "may" if g.effect == "allow" else "MAY NOT", g.what, g.scope,
                           moment(g.until) if g.until is not None else "-", g.by, g.reason, g.id))
                for g in rows
            ]
        )  # fmt: skip
        meant = [
            Row(f"role:{r.name}", (r.name, "role", r.words or ", ".join(r.allows)))
            for r in sorted(self.roles, key=lambda each: (not each.builtin, each.name))
        ]
        meant += [
            Row(f"team:{t.name}", (t.name, "team", ", ".join(map(str, t.members)) or "nobody")) for t in self.teams
        ]
        self.query_one("#roles", Table).set_rows(meant)
        self.draw({"grant"})
        self.mind_keys()

    def _about(self, grant: Grant) -> str:
        """What a grant means."""
        role = next((each for each in self.roles if each.name == grant.what), None)
        means = f": {', '.join(role.allows)}" if role is not None else ""
        return f"{grant.id} by {grant.by} since {moment(grant.at)}{means}"

    def on_table_moved(self, event: Table.Moved) -> None:
        self.draw({"grant"})
        self.mind_keys()

    async def on_table_opened(self, event: Table.Opened) -> None:
        self.corral.action_whole()

    def hindered(self, action: str) -> str:
        if action == "remove" and not self.table().key:
            return "No grant is selected"
        return super().hindered(action)

    def about(self, action: str) -> str:
        grant = self.grants.get(self.table().key)
        return f"access:{grant.subject}" if action == "remove" and grant is not None else ""

    # ------------------------------------------------------------------ verbs

    def action_new(self) -> None:
        from tui.screens.accessforms import GrantForm

        grant = self.grants.get(self.table().key)
        self.app.push_screen(GrantForm(str(grant.subject) if grant else ""))

    def action_remove(self) -> None:
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

        self.app.push_screen(ExplainForm())

    def action_team(self) -> None:
        from tui.screens.accessforms import TeamForm

        self.app.push_screen(TeamForm())

    def action_role(self) -> None:
        from tui.screens.accessforms import RoleForm

        self.app.push_screen(RoleForm())
