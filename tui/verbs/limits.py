"""Limits of users, groups, teams, keys, models and deployments: set, see what is left, remove."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from core.nouns import LimitView
from tui.amounts import Whole
from tui.command import Nouns, named, options, run, with_options
from tui.limits import KINDS, UNLIMITED, UNSAID, rest, rests, told
from tui.lines import as_json, ask, listed, say, table, tell
from tui.plain import line
from tui.words import moment

PREFIXES = ("each:user", "each:key", "each:group:", "each:team:", "user:", "group:", "team:", "key:")


class Amount(click.ParamType[int]):
    """A whole number, `none` to take the limit away, `unlimited` to lift a default for each."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        words = {"none": 0, "unlimited": UNLIMITED}
        if str(value) in words:
            return words[str(value)]
        if re.fullmatch(r"[+-]?0+", str(value)):
            self.fail(
                "0 would be no limit, and not that nothing is let through: leave it out, or say `none`, for no limit;"
                " to let nothing through revoke the key, or deny deployments.use", param, ctx,
            )  # fmt: skip
        return Whole(1, 10**12).convert(value, param, ctx)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each kind of limit; None for one that is not said."""
    hours = "when it is served: 'mon-fri 08:00-18:00, sat 09:00-12:00 Europe/Berlin' (default zone: the host's); none"
    command = click.option("--hours", metavar="HOURS", help=hours)(command)
    for field, (_, words) in reversed(KINDS.items()):
        name = "--" + field.replace("_", "-")
        command = click.option(name, field, type=Amount(), help=f"{words}; none: no limit")(command)
    return command


def said(fields: dict[str, Any]) -> dict[str, Any]:
    """Of the values of `limit_options` those that were said."""
    found = {name: value for name, value in fields.items() if value is not None}
    if found.get("hours") == "none":
        found["hours"] = ""
    return found


def _subjects(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: what a subject may begin with, and the models and deployments that there are."""
    found = [each for each in PREFIXES if each.startswith(incomplete)]
    for kind in ("model", "deployment"):
        head = f"{kind}:"
        if head.startswith(incomplete) and not incomplete.startswith(head):
            found.append(head)
        elif incomplete.startswith(head):
            names = named(f"{kind}s")(context, parameter, incomplete.removeprefix(head))
            found += [head + name for name in names]
    return found


def _subject(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("subject", shell_complete=_subjects)(command)


def _ls() -> None:
    found: list[LimitView] = run(lambda client: client.limits.ls())

    def row(each: LimitView) -> tuple[str, ...]:
        limit = each.limit
        return (limit.subject, told(limit.limits), _left(each), limit.by, limit.reason) if limit is not None else ()

    listed(
        found,
        lambda each: each.limit.subject if each.limit is not None else "",
        ("SUBJECT", "LIMITS", "LEFT", "BY", "REASON"),
        row,
        empty="no limit is set: `corral limits set each:user --rpm 60`; those that owners set are in `corral keys ls`",
    )


def _left(view: LimitView) -> str:
    if view.left is None:
        return "?"
    if view.limit is not None and view.limit.subject.startswith("each:"):
        return "each his own"
    return rests(view.left) or "-"


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def limits(context: click.Context) -> None:
    """Who may use how much (alone: `ls`)."""
    if context.invoked_subcommand is None:
        _ls()


@limits.command("ls")
@with_options
def ls() -> None:
    """All limits that you may see, or that concern you, with what is left."""
    _ls()


@limits.command("show")
@_subject
@with_options
def show(subject: str) -> None:
    """One subject: what is set for it, and what is left of all that applies to it (user:alice, key:alice/ci)."""
    view = run(lambda client: client.limits.get(subject))
    if options().json:
        as_json(view)
        return
    limit = view.limit
    if limit is not None:
        why = f": {line(limit.reason)}" if limit.reason else ""
        say(f"{line(limit.subject)}: {line(told(limit.limits))}")
        say(f"set by {line(limit.by)} at {moment(limit.at)}{why}")
    else:
        say(f"nothing is set for {line(subject)} by name")
    if view.left is None:
        say(UNSAID)
    elif view.left:
        say()
        table(("WHOSE", "LEFT"), [(each.subject, rest(each)) for each in view.left])
    elif not subject.startswith("each:"):
        say("no limit applies")


@limits.command("set")
@_subject
@limit_options
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def set_limits(subject: str, reason: str, **fields: Any) -> None:
    """Set limits of SUBJECT; what is not named stays, and requests in flight are not ended.

    user:alice, group:staff, team:ml, key:alice/ci, model:tiny and deployment:chat count all that they mean together;
    each:user, each:key, each:group:staff and each:team:ml everyone by himself. All that apply hold at once. What is
    said of a user or key by name takes the place of what is said for each, also `unlimited`.
    """
    changes = said(fields)
    if not changes:
        raise click.UsageError("say what to limit, for example --rpm 60")
    limit = run(lambda client: client.limits.set(subject, changes, reason))
    tell(limit, f"{line(limit.subject)}: {line(told(limit.limits))}")


@limits.command("rm")
@_subject
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def rm(subject: str, reason: str) -> None:
    """Remove all limits of SUBJECT."""
    ask(f"Remove all limits of {line(subject)}?")
    limit = run(lambda client: client.limits.rm(subject, reason))
    tell(limit, f"{line(limit.subject)} has no limits of its own any more")
