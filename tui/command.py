"""What every verb shares: the global options, one event loop, and errors as sentences with their exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import click

from core import program_version
from core.client import Client
from core.errors import CorralError, NoDaemon
from tui.plain import line, plain
from tui.words import releases

T = TypeVar("T")
INTERRUPTED = 130
"""Exit code after ctrl+c: 128 and SIGINT, as shells count."""
COMPLETION_S = 2.0
"""How long a key press may wait for names."""
AWAY_S = 0.5
"""Pause before a stream that lost its daemon connects again."""


def filled(context: click.Context, parameter: click.Parameter, value: T) -> T:
    """An option or argument that was given and is empty (an unset variable of a script) stands for nothing."""
    if value == "" or (isinstance(value, tuple) and "" in value):
        raise click.BadParameter("it is empty", context, parameter)
    return value


class Options:
    """The global options."""

    def __init__(self, *, json: bool, quiet: bool, user: bool, yes: bool, wide: bool) -> None:
        self.json, self.quiet, self.user, self.yes, self.wide = json, quiet, user, yes, wide


def options() -> Options:
    """Those of the running command."""
    found = click.get_current_context().find_object(Options)
    assert found is not None
    return found


def run(work: Callable[[Client], Awaitable[T]], *, start: bool = True) -> T:
    """Run `work` with a client. An error of the family ends the program with its exit code."""

    async def whole() -> T:
        client = await Client.connect(start=start, user=options().user)
        try:
            return await work(client)
        finally:
            note_version(client)

    try:
        return asyncio.run(whole())
    except CorralError as error:
        raise Told(error) from error


def named(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion with the names there are: `models`, `deployments`, `chats`, `tiers`, `pulls` under way, or the
    `engines` that can be used. It starts no daemon, and a daemon that does not answer at once completes nothing."""

    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_S):
            client = await Client.connect(start=False)
            if kind == "models":
                return [model.name for model in await client.models()]
            if kind == "chats":
                return [chat.id for chat in await client.chats()]
            if kind == "pulls":
                return [pull.id for pull in await client.pulls.ls() if pull.open]
            if kind == "tiers":
                return [tier.name for tier in await client.tiers.ls()]
            if kind == "engines":
                return [str(engine["name"]) for engine in await client.engines() if engine["found"]]
            return [deployment.spec.name for deployment in await client.deployments()]

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            return [plain(name) for name in asyncio.run(names()) if name.startswith(incomplete)]
        except (CorralError, TimeoutError):
            return []

    return complete


def note_version(client: Client) -> None:
    """Say on standard error that daemon and program differ, and what to do; scripts and `-q` are spared."""
    if options().quiet or options().json:
        return
    if said := releases(client.daemon_version, program_version()):
        note(said)


async def note_answers(client: Client) -> None:
    """Say that answers in flight may end first, before something that waits for them."""
    count = (await client.status()).gateway_status.in_flight
    if count and not options().quiet and not options().json:
        note(f"{count} {'answers are' if count > 1 else 'answer is'} in flight and may end first")


def note(text: str) -> None:
    """A sentence on standard error, beside what was asked for."""
    click.echo(f"corral: {plain(text)}", err=True)


@contextlib.contextmanager
def goes_on(words: str) -> Iterator[None]:
    """For work that goes on in the daemon: ctrl+c ends the waiting alone, and `words` say so."""
    try:
        yield
    except asyncio.CancelledError:
        given_up(words)
        raise


def given_up(words: str) -> None:
    """Say what became of the work when ctrl+c was pressed."""
    if not options().quiet:
        note(words)


async def again(stream: Callable[[], AsyncIterator[T]], patience_s: float = float("inf")) -> AsyncIterator[T]:
    """What `stream()` yields, through daemons that end: it is called again, to go on where it was, until one answers.

    The daemon is not started from here: who ended it may want it so. Raises `NoDaemon` when none answers for
    `patience_s`.
    """
    told = False
    since = 0.0
    while True:
        try:
            async with contextlib.aclosing(stream()) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if told:
                        note("the daemon is back")
                        told = False
                    yield piece
            return
        except NoDaemon:
            if told and time.monotonic() - since > patience_s:
                raise
            if not told:
                since = time.monotonic()
                note("the daemon went away; waiting for the next one (ctrl+c ends)")
                told = True
            await asyncio.sleep(AWAY_S)


NO_VERB: tuple[type[click.UsageError], ...] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)
"""A noun alone: its message is the whole help. An older click prints that itself."""


class Told(click.ClickException):
    """An error of the family on its way out of the program."""

    def __init__(self, error: CorralError) -> None:
        super().__init__(str(error))
        self.error = error
        self.__dict__["exit_code"] = error.exit  # a class variable for click's own errors


def show(error: click.ClickException, as_json: bool) -> None:
    """An error on standard error: three lines for people, or one JSON document (docs/scripting.md)."""
    if as_json:
        click.echo(json.dumps(document(error)), err=True)
    elif isinstance(error, Told):
        # One line each, whatever a file or server put into it: what looks like a line of ours is ours.
        note(line(error.error.what))
        for text in (error.error.why, error.error.todo):
            if text:
                click.echo(f"  {line(text)}", err=True)
    elif isinstance(error, NO_VERB):
        click.echo(error.format_message(), err=True)
    else:
        note(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"  {error.ctx.get_usage()}\n  see `{error.ctx.command_path} --help`", err=True)


def document(error: click.ClickException) -> dict[str, Any]:
    """{"error", "reason", "do", "code", "exit_code", "details"}: stable names."""
    if isinstance(error, Told):
        body = error.error.body()
        told = {"error": body.what, "reason": body.why, "do": body.todo, "code": body.code}
        return told | {"exit_code": error.exit_code, "details": body.details}
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "corral"
    what = "no verb was said" if isinstance(error, NO_VERB) else error.format_message()
    told = {"error": what, "reason": "", "do": f"see `{path} --help`", "code": "usage"}
    return told | {"exit_code": error.exit_code, "details": {}}


def leave_pipe() -> None:
    """Nobody reads standard output any more: let Python's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError), open("/dev/null", "wb") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, -q, --user, --yes and --wide after the verb too, as people type them."""
    return with_options_but()(command)


def with_options_but(*own: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same without those that mean something else to the verb."""
    return lambda command: _with(command, own)


def _with(command: Callable[..., Any], own: tuple[str, ...]) -> Callable[..., Any]:
    def merge(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def set_it(context: click.Context, parameter: click.Parameter, value: bool) -> None:
            found = context.find_object(Options)
            if value and found is not None:
                setattr(found, name, True)

        return set_it

    for flags, name, text in (
        (("--json",), "json", "one JSON document for scripts"),
        (("-q", "--quiet"), "quiet", "say only what was asked for"),
        (("--user",), "user", "the per-user daemon, even where a system one runs"),
        (("-y", "--yes"), "yes", "answer what asks with yes"),
        (("--wide",), "wide", "tables whole, however narrow the terminal is"),
    ):
        if name in own:
            continue
        command = click.option(*flags, is_flag=True, expose_value=False, callback=merge(name), help=text)(command)
    return command


NEAR = {
    "ls": ("ps", "models ls", "deployments ls"), "list": ("ps", "models ls"), "get": ("ps", "deployments ls"),
    "run": ("deploy", "chat"), "create": ("deploy",), "apply": ("deploy --replace",), "serve": ("deploy", "daemon"),
    "attach": ("deploy --url",), "expose": ("deploy",), "delete": ("rm", "models rm"), "remove": ("rm", "models rm"),
    "kill": ("stop",), "top": ("ps",), "describe": ("explain",), "inspect": ("explain", "models show"),
    "show": ("explain", "models show", "chats show"), "is-active": ("ps", "status"), "info": ("status",),
    "log": ("logs",), "journal": ("logs",), "pull": ("models pull",), "download": ("models pull",),
    "import": ("models import",),
    "model": ("models",), "deployment": ("deployments",), "engine": ("engines",), "replicas": ("ps",), "ask": ("chat",),
    "enable": ("daemon --print-unit",), "quit": ("shutdown",),
}  # fmt: skip
"""What people type who come from other programs."""
BELOW = {
    "list": ("ls",), "get": ("ls", "show"), "describe": ("show",), "inspect": ("show",), "info": ("show",),
    "cat": ("show",), "delete": ("rm", "release"), "remove": ("rm", "release"),
    "rm": ("release", "revoke"), "pull": ("import",), "download": ("pull",),
    "add": ("import",),
    "create": ("import",), "find": ("search",), "grep": ("search",), "mv": ("rename",), "save": ("export",),
    "check": ("verify",),
}  # fmt: skip
"""The same after a noun; those that the noun has are named."""


class Nouns(click.Group):
    """A group that lists its verbs in whole sentences, and names what was probably meant."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        there = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(1000)) for name, each in there if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb, there = args[0], self.list_commands(ctx)
        if verb in there or verb.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches  # 2 ms that only a wrong verb pays

        known = NEAR.get(verb, ()) if ctx.parent is None else [each for each in BELOW.get(verb, ()) if each in there]
        near = [f"{ctx.command_path} {each}" for each in known or get_close_matches(verb, there, n=3)]
        meant = " or ".join(f"`{each}`" for each in near)
        raise click.UsageError(f"there is no verb {verb!r}" + (f": did you mean {meant}?" if meant else ""), ctx)


class Spread(Nouns):
    """A noun some of whose verbs are in modules of their own under tui/verbs, imported when they are used: `ELSEWHERE`
    is verb to module."""

    ELSEWHERE: ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        found = getattr(import_module(f"tui.verbs.{self.ELSEWHERE[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command)
        return found
