"""What every verb shares: the global options, one event loop, and errors as sentences with their exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from core.client import Client
from core.errors import CorralError
from tui.plain import plain

T = TypeVar("T")


class Options:
    """The global options."""

    def __init__(self, *, json: bool, quiet: bool, user: bool, yes: bool) -> None:
        self.json, self.quiet, self.user, self.yes = json, quiet, user, yes


def options() -> Options:
    """Those of the running command."""
    found = click.get_current_context().find_object(Options)
    assert found is not None
    return found


def run(work: Callable[[Client], Awaitable[T]], *, start: bool = True) -> T:
    """Run `work` with a client. An error of the family ends the program with its exit code, ctrl+c with 130."""

    async def whole() -> T:
        client = await Client.connect(start=start, user=options().user)
        return await work(client)

    try:
        return asyncio.run(whole())
    except CorralError as error:
        raise Told(error) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


class Told(click.ClickException):
    """An error as a person reads it on standard error, and in JSON with --json."""

    def __init__(self, error: CorralError) -> None:
        super().__init__(str(error))
        self.error = error
        self.__dict__["exit_code"] = error.exit  # a class variable for click's own errors

    def show(self, file: Any = None) -> None:
        error = self.error
        click.echo(f"corral: {plain(error.what)}", err=True)
        for text in (error.why, error.todo):
            if text:
                click.echo(f"  {plain(text)}", err=True)


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, -q, --user and --yes after the verb too, as people type them."""

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
    ):
        command = click.option(*flags, is_flag=True, expose_value=False, callback=merge(name), help=text)(command)
    return command
