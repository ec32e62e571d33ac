"""Teams: groups of Corral's own, which grants and service accounts may name."""

from __future__ import annotations

import click

from core.client import Client
from core.errors import NotAllowed
from core.nouns import GrantShown, Team
from tui.beside import kept
from tui.command import Nouns, note, options, run, with_options
from tui.lines import ask, listed, tell
from tui.plain import line
from tui.rights import lacks


def _teams() -> None:
    found: list[Team] = run(lambda client: client.access.teams())
    listed(
        found,
        lambda each: each.name,
        ("TEAM", "MEMBERS"),
        lambda each: (each.name, ", ".join(map(str, each.members)) or "-"),
        empty="there is no team: `corral access teams set NAME --member user:alice`",
    )


@click.group("teams", cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def teams(context: click.Context) -> None:
    """Groups of Corral's own: the same as `corral access teams ls`."""
    if context.invoked_subcommand is None:
        _teams()


@teams.command("ls")
@with_options
def teams_ls() -> None:
    """All teams and who is in them."""
    _teams()


@teams.command("set")
@click.argument("name")
@click.option("--member", "members", multiple=True, help="user:alice or group:staff; all of them are named")
@with_options
def teams_set(name: str, members: tuple[str, ...]) -> None:
    """Say who is in a team: those that are named, and nobody else. Of who is put out it tells what he keeps."""

    async def work(client: Client) -> tuple[Team, list[str]]:
        before = await _before(client)
        made = await client.access.put_team(name, members)
        if before is None:
            return made, []
        teams, grants = before
        had = next((team.members for team in teams if team.name == name), ())
        return made, kept([each for each in had if each not in made.members], name, grants, teams)

    made, left = run(work)
    tell(made, f"team {made.name}: {line(', '.join(map(str, made.members))) or 'nobody'}")
    for each in left:
        if not options().json and not options().quiet:
            note(line(each))


async def _before(client: Client) -> tuple[list[Team], list[GrantShown]] | None:
    """Teams and grants as they are; None to who may not see them: he is told nothing of them."""
    if lacks(await client.access.whoami(), "access.read", "access:all"):  # a refusal would stand in the trail
        return None
    return await client.access.teams(), await client.access.grants()


@teams.command("rm")
@click.argument("name")
@with_options
def teams_rm(name: str) -> None:
    """Remove a team that has no grants."""
    if run(lambda client: _removable(client, name)):  # else the daemon says why not, and there is nothing to ask
        ask(f"Remove the team {line(name)}?")
    run(lambda client: client.access.rm_team(name))
    tell({"removed": name}, f"team {line(name)} is removed")


async def _removable(client: Client, name: str) -> bool:
    """Whether it is a team that no grant names and that has no service accounts, as far as the caller sees."""
    try:
        teams, grants = await client.access.teams(), await client.access.grants()
        accounts = await client.accounts.ls()
    except NotAllowed:
        return True
    subjects = [grant.subject for grant in grants] + [account.owner for account in accounts]
    used = any((each.kind, each.name) == ("team", name) for each in subjects)
    return any(team.name == name for team in teams) and not used
