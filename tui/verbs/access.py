"""Who may do what: roles, grants, teams, and questions about them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from core.client import Client
from core.errors import Invalid, NotAllowed
from core.nouns import Difference, Grant, GrantShown, Held, Role
from tui.amounts import MomentAhead, Span
from tui.beside import Beside, beside, explained
from tui.command import Nouns, Spread, Told, note, options, run, with_options
from tui.limits import UNSAID, rest
from tui.lines import as_json, ask, listed, say, table, tell
from tui.plain import line
from tui.words import has_ended, moment, whom


@click.command("whoami")
@with_options
def whoami() -> None:
    """Who you are to the daemon, and what you may do."""
    me = run(lambda client: client.access.whoami())
    if options().json:
        as_json(me)
        return
    say(f"{line(me.name)} (uid {me.uid}), through {line(me.through)}")
    if me.groups:
        say(f"groups: {line(', '.join(me.groups))}")
    if me.gateway:
        say(f"programs: {line(me.gateway)}/v1, with an API key")
    if me.limits is None:
        say(f"limits: {UNSAID}")
    for each in me.limits or ():
        say(f"limit of {line(each.subject)}: {line(rest(each))}")
    if me.because:
        say(f"may do everything: {line(me.because)}")
        return
    if not me.holds:
        say("may do nothing yet: ask an admin, who uses `corral access grant`")
        return
    if not me.grants:
        say("holds no grant. As root on this host:")
        table(("MAY", "ON"), _merged(me.holds))
        return
    say("roles and permissions:")
    table(GRANT, [_row(each) for each in me.grants])
    say()
    table(("MAY", "ON"), _merged(me.holds))
    if me.denied:
        say()
        table(("MAY NOT", "ON"), _merged(me.denied))


def _merged(held: Sequence[Held]) -> list[tuple[str, str]]:
    """One line a permission, with all its scopes."""
    found: dict[str, list[str]] = {}
    for each in held:
        found.setdefault(each.permission, []).append(each.scope)
    return [(permission, ", ".join(dict.fromkeys(scopes))) for permission, scopes in found.items()]


class Access(Spread):
    ELSEWHERE = {"teams": "teams"}


@click.group(cls=Access)
def access() -> None:
    """Who may do what: roles, grants, teams."""


@access.command("permissions")
@with_options
def permissions() -> None:
    """All permissions there are, and on what."""
    found = run(lambda client: client.access.permissions())
    if options().json:
        as_json([{"name": name, "kind": kind, "words": words} for name, kind, words in found])
    else:
        table(("PERMISSION", "ON", "LETS ONE"), [(name, f"{kind}:...", words) for name, kind, words in found])


# ------------------------------------------------------------------------------------------------ grants


GRANT = ("GRANT", "WHAT", "TO", "ON", "UNTIL", "REASON")


def _row(grant: Grant) -> tuple[str, str, str, str, str, str]:
    what = grant.what if grant.effect == "allow" else f"not {grant.what}"
    until = moment(grant.until) + (", ended" if has_ended(grant) else "") if grant.until is not None else "-"
    return (grant.id, what, whom(grant), grant.scope, until, grant.reason)


@access.command("grants")
@click.option("--subject", help="only those for this one, e.g. user:alice")
@click.option("--all", "ended", is_flag=True, help="those that have ended too")
@with_options
def grants(subject: str | None, ended: bool) -> None:
    """The grants in force, oldest first."""

    async def work(client: Client) -> tuple[list[GrantShown], list[Beside]]:
        every = await client.access.grants()
        if options().json or options().quiet:
            return every, []
        return every, beside(every, await client.access.teams(), await client.access.roles())

    every, besides = run(work)
    there = [each for each in every if subject in (None, str(each.subject))]
    found = there if ended else [each for each in there if not has_ended(each)]
    none = f"no grant is in force, {len(there)} ended (`--all`)" if there else "there is no grant"
    empty = f"{none}: root alone, and in a daemon of his own its owner, may do something"
    listed(found, lambda each: each.id, GRANT, _row, empty=empty)
    for each in besides:
        if each.own in found:
            note(line(str(each)))


def _grant_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--reason", default="", help="why; it stands in the audit trail"),
        click.option("--until", type=MomentAhead(), help="ends by itself: 8h, 30d, 2027-01-31T18:00"),
        click.option("--scope", default="*", show_default=True, help="on what: deployment:chat, model:phi-*"),
        click.argument("subject"),
        click.argument("what"),
    ):
        command = option(command)
    return command


def _in_order(verb: str, what: str, subject: str) -> None:
    """Raises `UsageError` where the two changed places: that a role is nobody would help nobody."""
    if what.startswith(("user:", "group:", "team:", "account:")) and ":" not in subject:
        raise click.UsageError(f"what comes first, and then to whom: corral access {verb} {subject} {what}")


@access.command("grant")
@_grant_options
@with_options
def grant(what: str, subject: str, scope: str, until: float | None, reason: str) -> None:
    """Let SUBJECT (user:alice, group:staff, team:ml, account:ci) do WHAT: a role, or permissions like
    deployments.st*."""
    _in_order("grant", what, subject)
    made = run(lambda client: client.access.grant(what=what, subject=subject, scope=scope, until=until, reason=reason))
    tell(made, f"{made.subject} may {line(made.what)} on {line(made.scope)}: grant {made.id}")


@access.command("deny")
@_grant_options
@with_options
def deny(what: str, subject: str, scope: str, until: float | None, reason: str) -> None:
    """Forbid WHAT to SUBJECT, whatever else allows it."""
    _in_order("deny", what, subject)
    made = run(
        lambda client: client.access.grant(
            what=what, subject=subject, scope=scope, until=until, reason=reason, deny=True
        )
    )
    tell(made, f"{made.subject} may not {line(made.what)} on {line(made.scope)}: grant {made.id}")


@access.command("revoke")
@click.argument("grant")
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def revoke(grant: str, reason: str) -> None:
    """Take a grant back, by its id."""
    gone = run(lambda client: client.access.revoke(grant, reason))
    tell(gone, f"grant {gone.id} ({line(gone.what)} for {line(str(gone.subject))}) is revoked")


@access.command("break-glass")
@click.option("--reason", required=True, help="why; everybody is told, and it stands in the audit trail")
@click.option("--for", "seconds", type=Span(), default="1h", show_default=True, help="it ends by itself: 1m to 8h")
@click.option("--what", default="admin", show_default=True, help="a role, or permissions like audit.accept")
@click.option("--scope", default="*", show_default=True, help="on what: deployment:chat, model:phi-*")
@with_options
def break_glass(reason: str, seconds: float, what: str, scope: str) -> None:
    """In an emergency, as root of a shared daemon: take what you do not hold, for a while. It rings.

    It has a record of its own, a line at alert level in the sinks of the trail, and a warning in every console.
    """
    if run(_may_break_glass):  # else the daemon says why not, and there is nothing to ask
        ask(f"Break the glass and take {line(what)} on {line(scope)}? Everybody is told")
    made = run(lambda client: client.access.break_glass(reason=reason, what=what, scope=scope, seconds=seconds))
    until = moment(made.until) if made.until is not None else "-"
    tell(
        made,
        f"you hold {line(made.what)} on {line(made.scope)} until {until}; before that: corral access revoke {made.id}",
    )


async def _may_break_glass(client: Client) -> bool:
    """In a daemon of one's own there is no glass, and who holds it is told by his permissions in a shared one."""
    me = await client.access.whoami()
    return not me.because and any(each.permission == "access.break-glass" for each in me.holds)


# ------------------------------------------------------------------------------------------------ questions


@access.command("matrix")
@click.option("--subject", help="only this one, e.g. group:staff")
@with_options
def matrix(subject: str | None) -> None:
    """Who holds which permission on what, by which grant."""
    found = [each for each in run(lambda client: client.access.matrix()) if subject in (None, each.subject)]
    if options().json:
        as_json(found)
        return
    rows = [
        (each.subject, each.permission if each.effect == "allow" else f"not {each.permission}", each.scope, each.grant)
        for each in found
    ]
    if rows:
        table(("WHO", "PERMISSION", "ON", "GRANT"), rows)
    else:
        whom = line(subject) if subject else "anybody"
        say(f"no grant gives {whom} anything: root alone, and in a daemon of his own its owner, may do something")


@access.command("explain")
@click.argument("who", metavar="USER")
@click.argument("permission")
@click.argument("object")
@with_options
def explain(who: str, permission: str, object: str) -> None:
    """May USER (or account:NAME) do PERMISSION on OBJECT (deployment:chat)? Yes or no and by which grant; exit 4 for
    no."""
    decision = run(lambda client: client.access.explain(who, permission, object))
    if options().json:
        as_json(decision)
    else:
        say(f"{'yes' if decision.allowed else 'no'}: {line(explained(decision))}")
    if not decision.allowed:
        raise click.exceptions.Exit(4)


@access.group("simulate", cls=Nouns)
def simulate() -> None:
    """What a change would give or take from whom; nothing is changed."""


def _differences(found: Sequence[Difference]) -> None:
    if options().json:
        as_json(found)
    elif not found:
        say("nothing would change for anybody")
    else:
        rows = [
            ("gains" if each.after else "loses", each.subject, each.permission, each.object, each.why) for each in found
        ]
        table(("", "WHO", "PERMISSION", "ON", "BECAUSE"), rows)


@simulate.command("grant")
@_grant_options
@with_options
def simulate_grant(what: str, subject: str, scope: str, until: float | None, reason: str) -> None:
    """As `corral access grant`."""
    _differences(run(lambda client: client.access.simulate(what=what, subject=subject, scope=scope, until=until)))


@simulate.command("deny")
@_grant_options
@with_options
def simulate_deny(what: str, subject: str, scope: str, until: float | None, reason: str) -> None:
    """As `corral access deny`."""
    _differences(
        run(lambda client: client.access.simulate(what=what, subject=subject, scope=scope, until=until, deny=True))
    )


@simulate.command("revoke")
@click.argument("grant")
@with_options
def simulate_revoke(grant: str) -> None:
    """As `corral access revoke`."""
    _differences(run(lambda client: client.access.simulate(revoke=grant)))


@simulate.command("role")
@click.argument("name")
@click.option("--allow", "allows", multiple=True, required=True, help="a permission, or a pattern like models.*")
@with_options
def simulate_role(name: str, allows: tuple[str, ...]) -> None:
    """As `corral access roles set`."""
    _differences(run(lambda client: client.access.simulate(role={"name": name, "allows": list(allows)})))


# ------------------------------------------------------------------------------------------------ roles


def _roles() -> None:
    found: list[Role] = run(lambda client: client.access.roles())

    def row(each: Role) -> tuple[str, ...]:
        return (each.name, "built in" if each.builtin else "own", each.words or "-", ", ".join(each.allows))

    listed(found, lambda each: each.name, ("ROLE", "", "IN WORDS", "ALLOWS"), row)


@access.group("roles", cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def roles(context: click.Context) -> None:
    """Named sets of permissions: the same as `corral access roles ls`."""
    if context.invoked_subcommand is None:
        _roles()


@roles.command("ls")
@with_options
def roles_ls() -> None:
    """All roles, the built-in ones first."""
    _roles()


@roles.command("set")
@click.argument("name")
@click.option("--allow", "allows", multiple=True, required=True, help="a permission, or a pattern like models.*")
@click.option("--words", default="", help="what it is for")
@with_options
def roles_set(name: str, allows: tuple[str, ...], words: str) -> None:
    """Define a role of your own, or define it anew for all who have it."""
    made = run(lambda client: client.access.put_role(name, allows, words))
    tell(made, f"role {made.name}: {line(', '.join(made.allows))}")


@roles.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_options
def roles_import(file: Path) -> None:
    """Define roles from a TOML file: [NAME] with allows = ["models.*"] and words = "..."."""
    wanted = _read_roles(file)
    made = run(lambda client: client.access.put_roles(wanted))
    tell(made, f"defined: {line(', '.join(role.name for role in made))}")


def _read_roles(file: Path) -> list[Role]:
    """The roles of a file."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Told(Invalid(f"{file} was not read", str(error))) from error
    wanted = []
    for name, fields in found.items():
        allows = fields.get("allows") if isinstance(fields, dict) else None
        words = fields.get("words", "") if isinstance(fields, dict) else ""
        unknown = sorted(set(fields) - {"allows", "words"}) if isinstance(fields, dict) else []
        texts = isinstance(allows, list) and all(isinstance(each, str) for each in allows) and isinstance(words, str)
        if not isinstance(allows, list) or not texts or unknown:
            why = f"unknown: {', '.join(unknown)}" if unknown else "allows is a list of texts, words a text"
            raise Told(Invalid(f"[{name}] of {file} is no role", why, 'for example allows = ["models.*"]'))
        wanted.append(Role(name=name, allows=tuple(allows), words=words))
    if not wanted:
        raise Told(Invalid(f"{file} has no role in it", todo='write [NAME] and allows = ["models.*"]'))
    return wanted


@roles.command("rm")
@click.argument("name")
@with_options
def roles_rm(name: str) -> None:
    """Remove a role that no grant names."""
    if run(lambda client: _removable(client, name)):  # else the daemon says why not, and there is nothing to ask
        ask(f"Remove the role {line(name)}?")
    run(lambda client: client.access.rm_role(name))
    tell({"removed": name}, f"role {line(name)} is removed")


async def _removable(client: Client, name: str) -> bool:
    """Whether it is a role of one's own that no grant names, as far as the caller sees."""
    try:
        roles, grants = await client.access.roles(), await client.access.grants()
    except NotAllowed:
        return True
    own = any(role.name == name and not role.builtin for role in roles)
    return own and all(grant.what != name for grant in grants)
