"""`corral` with arguments: the verbs, and the console with its options."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from importlib import import_module
from io import TextIOWrapper

import click

from core import program_version
from core.errors import CorralError
from tui.amounts import Number
from tui.command import INTERRUPTED, Nouns, Options, Told, leave_pipe, show
from tui.plain import draws_ascii, places

CLOSED_PIPE = 141
"""128 and SIGPIPE: what a shell shows of any program whose reader has gone."""

VERBS = {
    "status": "daemon", "shutdown": "daemon", "reload": "daemon", "events": "daemon", "daemon": "program",
    "engines": "daemon", "version": "program", "completion": "program", "uninstall": "program", "help": "program",
    "models": "models", "fit": "models", "tiers": "tiers",
    "deploy": "deployments", "ps": "deployments", "deployments": "deployments", "stop": "deployments",
    "start": "deployments", "restart": "deployments", "rm": "deployments", "scale": "deployments",
    "logs": "logs", "explain": "logs",
    "chat": "chat", "chats": "chat",
    "audit": "audit",
    "access": "access", "whoami": "access", "accounts": "accounts", "nodes": "nodes",
    "keys": "keys", "limits": "limits", "usage": "usage",
    "gateway": "gateway",
}  # fmt: skip
"""Verb to module under tui/verbs: only the one that is used is imported (a read verb answers in under 0.3 s)."""


class Verbs(Nouns):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found = getattr(import_module(f"tui.verbs.{VERBS[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", is_flag=True, help="one JSON document for scripts")
@click.option("-q", "--quiet", is_flag=True, help="say only what was asked for")
@click.option("--user", is_flag=True, help="the per-user daemon, even where a system one runs")
@click.option("-y", "--yes", is_flag=True, help="answer what asks with yes")
@click.option("--wide", is_flag=True, help="tables whole, however narrow the terminal is")
@click.option(
    "--refresh", type=Number(0.2, 60), default=1.0, show_default=True, help="console: seconds between updates"
)
@click.option("--no-mouse", is_flag=True, help="console: leave the mouse to the terminal")
@click.option("--ascii", is_flag=True, help="console: draw with ASCII only")
@click.version_option(program_version(), prog_name="corral")
@click.pass_context
def cli(
    context: click.Context, json: bool, quiet: bool, user: bool, yes: bool, wide: bool, refresh: float, no_mouse: bool,
    ascii: bool,
) -> None:  # fmt: skip
    """Run language models on your own machines. Without a verb: the console."""
    context.obj = Options(json=json, quiet=quiet, user=user, yes=yes, wide=wide)
    if context.invoked_subcommand is None:
        if not sys.stdout.isatty() or not sys.stdin.isatty():
            raise click.UsageError("the console needs a terminal; see `corral --help` for the verbs")
        if not places(os.environ):
            term = os.environ.get("TERM")
            named = f"TERM is {term!r}" if term else "TERM is not set"
            raise click.UsageError(f"{named}: this terminal cannot place text; the verbs work: `corral --help`")
        from tui.app import run  # 0.2 s that no verb should pay

        context.exit(run(refresh=refresh, user=user, mouse=not no_mouse, ascii=ascii))


def main() -> None:
    """Carry out the command line and exit."""
    if "_CORRAL_COMPLETE" in os.environ:
        cli.main(prog_name="corral")  # click answers the shell
    _make_streams()
    sys.exit(call([_utf8(each) for each in sys.argv[1:]]))


def _make_streams() -> None:
    """Stand-ins for what the caller has closed, since a file opened later must not take its place; and output in which
    a locale that lacks a letter loses the letter, not the answer: on a terminal, LC_ALL=C is one."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            narrow = stream.isatty() and draws_ascii(os.environ, stream.encoding)
            stream.reconfigure(errors="replace", encoding=_ascii() if narrow else None)
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is told where it is sent


def _ascii() -> str:
    """ASCII under another name: click takes a stream of the encoding `ascii` for a mistake and writes UTF-8 on it."""
    found, name = codecs.lookup("ascii"), "ascii_terminal"
    codecs.register(
        lambda asked: codecs.CodecInfo(
            found.encode, found.decode, incrementalencoder=found.incrementalencoder,
            incrementaldecoder=found.incrementaldecoder, name=name,
        ) if asked == name else None
    )  # fmt: skip
    return name


def _utf8(argument: str) -> str:
    """An argument as UTF-8, whatever the locale took it for; one that is none stays as it is."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument


def call(args: list[str]) -> int:
    """Carry out one command; the exit code (docs/scripting.md). A closed pipe is quiet."""
    as_json = "--json" in args  # click takes them out
    try:
        with cli.make_context("corral", args) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)  # the terminal shows ^C on this line
        return INTERRUPTED
    except click.ClickException as error:
        show(error, as_json)
        return error.exit_code
    except CorralError as error:  # of a verb that speaks to no daemon
        show(Told(error), as_json)
        return error.exit
    except BrokenPipeError:
        leave_pipe()
        return CLOSED_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        leave_pipe()
        click.echo(f"corral: the output could not be written: {error.strerror}", err=True)
        return 1
    return 0
