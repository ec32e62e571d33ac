"""API keys for programs: make, see, limit, rotate, revoke; whose a leaked one is."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from core.errors import Invalid
from core.nouns import ENDPOINTS, FoundKey, Key, NewKey
from tui.amounts import MomentAhead, Span
from tui.command import Nouns, Told, note, options, run, with_options
from tui.keywords import unmatched
from tui.limits import told
from tui.lines import as_json, ask, say, table, tell
from tui.plain import line
from tui.rights import lacks
from tui.verbs.limits import limit_options, said
from tui.words import age, moment


def _ls() -> None:
    found = run(lambda client: client.keys.ls())
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found:
            if each.state == "active":
                say(each.name)
    elif found:
        rows = [
            (k.name, str(k.owner), k.begins + "...", k.state, ", ".join(k.deployments), told(k.limits) or "-", _used(k))
            for k in found
        ]
        table(("KEY", "OWNER", "BEGINS", "STATE", "DEPLOYMENTS", "LIMITS", "USED"), rows)
    else:
        say("there is no key: `corral keys create NAME`")


def _used(key: Key) -> str:
    if key.used_at is None:
        return "never"
    ago = age(key.used_at)
    return f"{ago}{'' if ago == 'now' else ' ago'} from {key.used_from}"


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def keys(context: click.Context) -> None:
    """API keys for programs: the same as `corral keys ls`."""
    if context.invoked_subcommand is None:
        _ls()


@keys.command("ls")
@with_options
def ls() -> None:
    """Your keys, and those that you may see, with what they may and when they were used."""
    _ls()


@keys.command("show")
@click.argument("name")
@with_options
def show(name: str) -> None:
    """One key: by name, OWNER/NAME or id. Its secret is shown by nothing."""
    _show(run(lambda client: client.keys.get(name)))


def _show(key: Key) -> None:
    if options().json:
        as_json(key)
        return
    rows = [
        ("key", f"{line(key.name)} ({key.id}), begins with {line(key.begins)}"), ("owner", str(key.owner)),
        ("state", key.state), ("deployments", ", ".join(key.deployments)),
        ("endpoints", ", ".join(key.endpoints) or "all"), ("from", ", ".join(key.sources) or "everywhere"),
        ("limits", told(key.limits) or "-"), ("ends", moment(key.until) if key.until is not None else "never"),
        ("made", f"{moment(key.created_at)} by {key.created_by}"), ("used", _used(key)),
    ]  # fmt: skip
    if key.rotated_at is not None:
        rows.append(("rotated", moment(key.rotated_at) + _old(key, time.time())))
    for name, value in rows:
        say(f"{name:12} {line(value)}")


def _old(key: Key, now: float) -> str:
    """What the secret before the last rotation opens, at the end of a line."""
    if key.old_until is None:
        return ""
    until = min(key.old_until, math.inf if key.until is None else key.until)
    return f", the old secret {'works' if now < until else 'worked'} until {moment(until)}"


def in_force(key: Key) -> str:
    """All that holds a key, in a line."""
    parts = [f"deployments {', '.join(key.deployments)}", told(key.limits) or "no limits"]
    if key.endpoints:
        parts.append(f"endpoints {', '.join(key.endpoints)}")
    if key.sources:
        parts.append(f"from {', '.join(key.sources)}")
    if key.until is not None:
        parts.append(f"until {moment(key.until)}")
    return line("; ".join(parts))


NONE = "none"
NEVER = math.inf


def _endpoints(context: click.Context, option: click.Parameter, typed: str) -> list[str]:
    return [endpoint for endpoint in ENDPOINTS if endpoint.startswith(typed)]


class _Ends(MomentAhead):
    """A time ahead, or NEVER for `none`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NEVER if value == NONE else super().convert(value, param, ctx)


def _models(context: click.Context, option: click.Parameter, typed: tuple[str, ...]) -> tuple[str, ...]:
    """`none` and `all` are words of other options, and no deployments."""
    for word in typed:
        if word in (NONE, "all"):
            todo = (
                "leave --models out for all" if word == "all" else "a key that may use nothing is not made: revoke it"
            )
            raise click.BadParameter(f"{word!r} is no name of deployments here; {todo}", context, option)
    return typed


def _listed(said: tuple[str, ...]) -> tuple[str, ...]:
    return () if said == (NONE,) else said


async def _unmatched(client: Any, patterns: tuple[str, ...]) -> str:
    """What to say of patterns that match no deployment that whoever asks sees; "" where all do."""
    if not patterns or lacks(await client.access.whoami(), "deployments.read"):  # a refusal would stand in the trail
        return ""
    return unmatched(patterns, [each.spec.name for each in await client.deployments()])


def _warned(lost: str) -> None:
    """Say it on standard error; scripts and `-q` are spared."""
    if lost and not options().json and not options().quiet:
        note(lost)


def _scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--from",
            "sources",
            multiple=True,
            help="a network it may come from: 10.1.0.0/16, or local: the Unix socket (repeat for more); none",
        ),
        click.option("--expires", "until", type=_Ends(), help="ends by itself: 30d, 2027-01-31T18:00; none"),
        limit_options,
        click.option(
            "--endpoints",
            multiple=True,
            shell_complete=_endpoints,
            help="chat/completions, messages, models ... (repeat for more; default, or none: all)",
        ),
        click.option(
            "--models",
            "deployments",
            multiple=True,
            callback=_models,
            help="names of deployments, like team-a-* (repeat; default all)",
        ),
    ):
        command = option(command)
    return command


def _shown_once(made: NewKey, base: str, what: str) -> None:
    if options().json:
        as_json(made)
        return
    if options().quiet:
        say(made.key)
        return
    say(made.key)
    note(f"{what}. This is shown once: Corral keeps only its hash")
    if base:
        note(f"for programs: base URL {base}/v1, and this as the API key")


@keys.command("create")
@click.argument("name")
@click.option("--owner", default="", help="user:alice, team:ml or account:ci; default: you")
@_scope_options
@with_options
def create(
    name: str, owner: str, deployments: tuple[str, ...], endpoints: tuple[str, ...], until: float | None,
    sources: tuple[str, ...], **limits: Any,
) -> None:  # fmt: skip
    """Make a key. Its secret is shown once; it never may more than its owner."""
    fields = {
        "name": name, "owner": owner, "deployments": deployments or ("*",), "endpoints": _listed(endpoints),
        "sources": _listed(sources), "limits": said(limits), "until": None if until == NEVER else until,
    }  # fmt: skip

    async def work(client: Any) -> tuple[NewKey, str, str]:
        lost = await _unmatched(client, deployments)
        made = await client.keys.create(**fields)
        return made, (await client.status()).gateway, lost

    made, base, lost = run(work)
    _shown_once(made, base, f"key {made.name} of {line(str(made.owner))}")
    _warned(lost)


@keys.command("limit")
@click.argument("name")
@_scope_options
@with_options
def limit(
    name: str, deployments: tuple[str, ...], endpoints: tuple[str, ...], until: float | None,
    sources: tuple[str, ...], **limits: Any,
) -> None:  # fmt: skip
    """Change what a key may; what is not named stays."""
    wanted = {
        "until": until, "deployments": deployments or None, "endpoints": _listed(endpoints) if endpoints else None,
        "sources": _listed(sources) if sources else None, **said(limits),
    }  # fmt: skip
    changes = {field: None if value == NEVER else value for field, value in wanted.items() if value is not None}
    if not changes:
        raise click.UsageError("say what to change, for example --rpm 60")

    async def work(client: Any) -> tuple[Key, str]:
        return await client.keys.limit(name, **changes), await _unmatched(client, deployments)

    key, lost = run(work)
    tell(key, f"key {line(key.name)}: {in_force(key)}")
    _warned(lost)


@keys.command("rotate")
@click.argument("name")
@click.option("--grace", type=Span(), default=0.0, help="how long the old secret works beside the new one: 1h, 2d")
@with_options
def rotate(name: str, grace: float) -> None:
    """Give a key a new secret, shown once."""

    async def work(client: Any) -> tuple[NewKey, str]:
        return await client.keys.rotate(name, grace), (await client.status()).gateway

    made, base = run(work)
    old = f"the old secret works until {moment(made.old_until)}" if made.old_until else "the old secret works no more"
    _shown_once(made, base, f"key {made.name} has a new secret; {old}")


@keys.command("revoke")
@click.argument("name")
@click.option("--reason", default="", help="why; it stands in the audit trail")
@with_options
def revoke(name: str, reason: str) -> None:
    """End a key at once, with the answers that are being made for it."""
    ask(f"Revoke the key {line(name)}? Programs that use it are refused from now on")
    key = run(lambda client: client.keys.revoke(name, reason))
    tell(key, f"key {line(key.name)} of {line(str(key.owner))} is revoked")


@keys.command("whose", context_settings={"allow_extra_args": True})
@click.pass_context
@with_options
def whose(ctx: click.Context) -> None:
    """Whose is this key? It is asked for, or read from standard input: a secret does not belong in a command line."""
    if ctx.args:
        raise Told(Invalid(
            "a key does not belong in a command line",
            "it stands in this shell's history now, and for a moment stood where every user of this host could read it",
            "take it out of the history, think of `corral keys rotate`, and paste it when asked: corral keys whose",
        ))  # fmt: skip
    if sys.stdin.isatty():
        secret = str(click.prompt("Paste the key", hide_input=True, err=True))
    else:
        secret = sys.stdin.readline(4096)
    secret = secret.strip().removeprefix("Authorization:").strip().removeprefix("Bearer ").strip()
    if not secret:
        raise Told(Invalid("no key was given", todo="paste it, or: corral keys whose < FILE"))
    hash = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    found = run(lambda client: client.keys.whose(hash))
    if not options().json and found.away_at is not None:
        say(f"{'was':12} {line(_away(found, time.time()))}")
    _show(found)


def _away(found: FoundKey, now: float) -> str:
    """Of a secret that was rotated away."""
    works = "and works no more"
    if found.works_until is not None:
        works = f"and works until {moment(found.works_until)}"
    elif found.old_until is not None and found.away_at == found.rotated_at and found.old_until <= now:
        works = f"and worked until {moment(found.old_until)}"
    return f"a secret of this key until {moment(found.away_at or 0.0)}, when it was rotated away, {works}"
