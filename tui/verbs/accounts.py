"""Service accounts: programs with a name of their own, which act through API keys."""

from __future__ import annotations

from typing import Any

import click

from core.nouns import AccountDetail, ServiceAccount
from tui.command import Nouns, options, run, with_options
from tui.lines import as_json, ask, listed, say, table, tell
from tui.plain import line
from tui.words import has_ended, moment


def _ls() -> None:
    found: list[ServiceAccount] = run(lambda client: client.accounts.ls())
    listed(
        found,
        lambda each: each.name,
        ("ACCOUNT", "OWNER", "STATE", "FOR"),
        lambda each: (each.name, str(each.owner), each.state, each.words or "-"),
        empty="there is no service account: `corral accounts create NAME`",
    )


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def accounts(context: click.Context) -> None:
    """Service accounts for programs (alone: `ls`)."""
    if context.invoked_subcommand is None:
        _ls()


@accounts.command("ls")
@with_options
def ls() -> None:
    """Your service accounts, and those that you may see."""
    _ls()


@accounts.command("show")
@click.argument("name")
@with_options
def show(name: str) -> None:
    """One account: its owner, its grants and keys, and what it may use now."""
    found: AccountDetail = run(lambda client: client.accounts.get(name))
    if options().json:
        as_json(found)
        return
    account = found.account
    rows = [("account", line(account.name)), ("owner", line(str(account.owner))), ("state", _state(found))]
    if account.words:
        rows.append(("for", line(account.words)))
    rows += [
        ("made", f"{moment(account.created_at)} by {line(account.created_by)}"),
        ("may use", line(", ".join(found.uses)) or "nothing now"),
    ]
    if found.barred:
        rows.append(("may not", line(", ".join(found.barred))))
    for label, value in rows:
        say(f"{label:12} {value}")
    if grants := [each for each in found.grants if not has_ended(each)]:
        say()
        table(
            ("GRANT", "WHAT", "ON", "UNTIL"),
            [
                (g.id, g.what if g.effect == "allow" else f"not {g.what}", g.scope,
                 moment(g.until) if g.until is not None else "-")
                for g in grants
            ],
        )  # fmt: skip
    else:
        say(f"nothing is granted to it: corral access grant deployments.use account:{line(account.name)} --scope ...")
    if found.keys:
        say()
        table(("KEY", "BEGINS", "STATE", "DEPLOYMENTS"),
              [(k.name, k.begins + "...", k.state, ", ".join(k.deployments)) for k in found.keys])  # fmt: skip
    else:
        say(f"it has no key: corral keys create NAME --owner account:{line(account.name)}")


def _state(found: AccountDetail) -> str:
    account = found.account
    if account.disabled_at is None:
        return account.state
    why = f": {line(account.disabled_for)}" if account.disabled_for else ""
    return f"disabled {moment(account.disabled_at)} by {line(account.disabled_by)}{why}"


@accounts.command("create")
@click.argument("name")
@click.option("--owner", default="", help="user:alice or team:ml; default: you")
@click.option("--for", "words", default="", help="what it is for")
@with_options
def create(name: str, owner: str, words: str) -> None:
    """Make one. It may nothing until something is granted to it, and never more than its owner."""
    made = run(lambda client: client.accounts.create(name, owner=owner, words=words))
    tell(made, f"service account {made.name} of {line(str(made.owner))}; now grant it something: "
               f"corral access grant deployments.use account:{made.name} --scope deployment:...")  # fmt: skip


_REASON = click.option("--reason", default="", help="why; it stands in the audit trail")


@accounts.command("disable")
@click.argument("name")
@_REASON
@with_options
def disable(name: str, reason: str) -> None:
    """Turn its keys away at once, with the answers that are being made for them, until `enable`."""
    ask(f"Disable {line(name)}? Programs that use its keys are refused from now on")
    made: Any = run(lambda client: client.accounts.disable(name, reason))
    tell(made, f"{made.name} is disabled")


@accounts.command("enable")
@click.argument("name")
@_REASON
@with_options
def enable(name: str, reason: str) -> None:
    """Let its keys work again."""
    made: Any = run(lambda client: client.accounts.enable(name, reason))
    tell(made, f"{made.name} is {made.state}")


@accounts.command("rm")
@click.argument("name")
@_REASON
@with_options
def rm(name: str, reason: str) -> None:
    """Remove it: its keys are revoked for good, its grants go with it."""
    ask(f"Remove {line(name)}? Its keys are revoked for good")
    run(lambda client: client.accounts.rm(name, reason))
    tell({"removed": name}, f"{line(name)} is removed, its keys are revoked")
