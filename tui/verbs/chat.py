"""Chats: a question, a conversation, and what was said before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import click

from core.client import Client
from core.errors import CorralError, Failed, Invalid
from core.nouns import Chat, ChatOptions, Turn
from core.nouns.written import as_markdown
from tui.amounts import Number, Whole
from tui.command import (
    INTERRUPTED,
    Nouns,
    Told,
    again,
    filled,
    named,
    note,
    options,
    run,
    with_options,
    with_options_but,
)
from tui.lines import as_json, ask, say, table, tell
from tui.plain import line, plain
from tui.verbs.privacy import VERBS, look
from tui.words import age, awaited, counted

PATIENCE_S = 30.0
"""How long an answer in flight waits for the next daemon, which follows it where it was."""


@click.command()
@click.argument("deployment", shell_complete=named("deployments"))
@click.argument("question", nargs=-1)
@click.option("--system", default="", help="system prompt")
@click.option("--temperature", type=Number(0, 5))
@click.option("--top-p", type=Number(0, 1))
@click.option("--max-tokens", type=Whole(1, 1 << 20))
@click.option("--seed", type=Whole(0, 2**32 - 1))
@click.option("--resume", "resume", callback=filled, shell_complete=named("chats"), help="go on with this chat")
@click.option("--forget-oldest", is_flag=True, help="when the context is full, forget the oldest turns")
@click.option("--private", is_flag=True, help="keep nothing: in memory alone, and gone when this ends")
@with_options
def chat(
    deployment: str, question: tuple[str, ...], system: str, temperature: float | None, top_p: float | None,
    max_tokens: int | None, seed: int | None, resume: str | None, forget_oldest: bool, private: bool,
) -> None:  # fmt: skip
    """Ask DEPLOYMENT. The question stands in the arguments, on standard input, or is typed (a conversation)."""
    settings = ChatOptions(system=system, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    text = " ".join(question)
    if not sys.stdin.isatty() and (not text or text == "-"):
        text = sys.stdin.read()
        if not text.strip():
            raise click.UsageError("standard input is empty: there is no question")

    if any("\ud800" <= each <= "\udfff" for each in text):  # before there is a chat
        raise click.UsageError("the question is not UTF-8: look at the locale of the terminal")

    if private and resume:
        raise click.UsageError("--private begins a chat of its own: it cannot --resume one")

    async def begin(client: Client, first: str) -> Chat:
        if resume:
            return (await client.chat(resume)).chat
        return await client.create_chat(deployment, settings, question=first, private=private)

    talk: Chat | None = None
    try:
        if text:
            talk = run(lambda client: begin(client, text))
            _answer(talk, text, forget_oldest)
            return
        if not resume:
            run(lambda client: client.deployment(deployment))  # what is not there is said before anything is typed
        while (typed := _typed(private)) is not None:
            if typed.strip():
                talk = talk or run(lambda client, first=typed: begin(client, first))  # type: ignore[misc]  # a conversation without a question leaves no chat
                with contextlib.suppress(Stopped):
                    _answer(talk, typed, forget_oldest)
    finally:
        if talk is not None and talk.private:
            gone = talk.id
            run(lambda client: client.remove_chat(gone))


class Stopped(click.exceptions.Exit):
    """Ctrl+c ended an answer: a conversation goes on, a single question ends with 130."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)


def _typed(private: bool) -> str | None:
    """A line from the terminal; None at its end."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() then edits its line and remembers the ones before
    try:
        return input("private> " if private else "> ")
    except EOFError:
        say()
        return None


def _answer(talk: Chat, text: str, forget_oldest: bool) -> None:
    """Ask and print. A full context is a choice: forget the oldest turns, or leave it."""
    try:
        run(lambda client: _ask(client, talk, text, forget_oldest))
    except Told as told:
        if not told.error.details.get("context_full") or forget_oldest:
            raise
        if not sys.stdin.isatty() and not options().yes:
            told.error.todo = "say --yes or --forget-oldest, begin a new chat, or deploy with more --ctx"
            raise Told(Invalid(**_parts(told.error), **told.error.details)) from None
        if not options().yes:
            note(f"{told.error.what}: {told.error.why}")
        ask("Forget the oldest turns and go on?")
        run(lambda client: _ask(client, talk, text, True))


def _parts(error: CorralError) -> dict[str, str]:
    return {"what": error.what, "why": error.why, "todo": error.todo}


async def _ask(client: Client, talk: Chat, text: str, forget_oldest: bool) -> None:
    """Print the answer as it comes. Ctrl+c stops it and says so; what came is kept. Without `text` the last answer goes
    on, and what there was of it is not printed again."""
    asked = asyncio.create_task(client.ask(talk.id, text, cont=not text, forget_oldest=forget_oldest))
    try:
        turn = await asyncio.shield(asked)
        await _print(client, talk, turn, len(turn.answer) if not text else 0)
    except asyncio.CancelledError:
        await client.stop_turn(talk.id, (await asked).id)
        say()
        note(
            "stopped"
            if talk.private
            else f"stopped; what came is kept: corral chats show {talk.id}; or: corral chats go-on {talk.id}"
        )
        raise Stopped from None


async def _print(client: Client, talk: Chat, turn: Turn, start: int) -> None:
    """From character `start` of the answer on."""
    shown = ""
    last: Turn | None = None
    waiting = Passing()

    def rest() -> AsyncIterator[dict[str, Any]]:
        return client.stream_turn(talk.id, turn.id, start + len(shown))

    async for piece in again(rest, PATIENCE_S):
        if "turn" in piece:
            last = piece["turn"]
            break
        waiting.show(f"({words})" if not shown and (words := awaited(piece)) else "")
        shown += piece["text"]
        if not options().json and piece["text"]:
            click.echo(plain(piece["text"]), nl=False)
    waiting.show("")
    if last is None:
        raise Failed("the answer broke off", todo="" if talk.private else f"corral chats show {talk.id}")
    if options().json:
        as_json(last)
        return
    if not shown.endswith("\n"):
        say()
    if last.state == "unkept":
        again_in_private = f"ask again in private: corral chat {talk.deployment} --private"
        raise Failed("the answer was ended", last.reason, again_in_private)
    if last.state in ("cut", "failed") or (last.state == "stopped" and last.reason):
        what = "the answer failed" if last.state == "failed" else f"the answer was {last.state}"
        raise Failed(what, last.reason, "" if talk.private else f"corral chats go-on {talk.id}")
    if options().quiet:
        return
    if last.finish == "length":
        note(_cut_off(last, talk))
    if sys.stderr.isatty() and (told := figures(last, talk.ctx_per_slot)):
        click.echo(told, err=True)


class Passing:
    """Words on a terminal's standard error that go when there is something better to show; nothing elsewhere."""

    def __init__(self) -> None:
        self._there = ""
        self._seen = sys.stderr.isatty() and not options().quiet and not options().json

    def show(self, words: str) -> None:
        if self._seen and words != self._there:
            click.echo("\r" + " " * len(self._there) + "\r" + words, nl=False, err=True)
            self._there = words


def _cut_off(turn: Turn, talk: Chat) -> str:
    """Why the answer ends in the middle, and what there is to do."""
    room = talk.ctx_per_slot
    if room and turn.context_tokens is not None and turn.context_tokens >= room - 1:
        what = f"the context is full ({room} tokens): the answer ends here"
        return f"{what}; --forget-oldest goes on, or begin a new chat, or deploy with more --ctx"
    more = "the answer has used up its tokens: --max-tokens gives it more"
    return more if talk.private else f"{more}, corral chats go-on {talk.id} goes on"


def figures(turn: Turn, room: int = 0) -> str:
    """First-token time, speed, tokens, and how full the context of `room` tokens is, on a line; "" where none is
    known."""
    parts = []
    if turn.ttft_ms is not None:
        parts.append(f"first token {turn.ttft_ms:.0f} ms")
    if turn.tokens_per_second is not None:
        parts.append(f"{turn.tokens_per_second:.1f} tokens/s")
    if tokens := counted(turn.prompt_tokens, turn.answer_tokens, "tokens"):
        parts.append(tokens)
    if room and turn.context_tokens is not None:
        parts.append(f"context {turn.context_tokens} of {room}")
    return f"({', '.join(parts)})" if parts else ""


@click.group(cls=Nouns, invoke_without_command=True)
@with_options
@click.pass_context
def chats(context: click.Context) -> None:
    """What was said before: show it, find it, export it, remove it.

    Without a verb: the same as `corral chats ls`.
    """
    if context.invoked_subcommand is None:
        context.invoke(ls)


def _list(found: list[Chat], none: str) -> None:
    if options().json:
        as_json(found)
        return
    if options().quiet:
        for chat in found:
            say(line(chat.id))
        return
    if not found:
        say(none)
        return
    when = any(c.goes_at or c.held or c.private for c in found)
    table(
        ("CHAT", "UPDATED", "DEPLOYMENT", "TURNS", *(("GOES",) if when else ()), "TITLE"),
        [
            (c.id, age(c.updated_at), c.deployment, c.turns, *((_goes(c),) if when else ()), c.title[:60])
            for c in found
        ],
        spare=("UPDATED", "TURNS"),
    )  # fmt: skip


def _goes(chat: Chat) -> str:
    """When it is deleted for good, by the rules of retention."""
    if chat.held:
        return "held"
    if chat.private:
        return "private"
    if not chat.goes_at:
        return "-"
    left = age(time.time(), chat.goes_at)
    return f"in {left}" if left != "now" else "within 1h"  # each hour they are looked for


@chats.command("ls")
@click.option("--user", "whose", callback=filled, help="those of another user; needs --reason")
@click.option("--reason", default="", help="why you look at what another one said; it is recorded")
@with_options_but("user")
def ls(whose: str | None, reason: str) -> None:
    """Your chats, newest first."""
    if whose:
        found = look(reason, user=whose, titles=True)
        _list([each.chat for each in found.chats], f"{line(whose)} has no chats")
        return
    _list(run(lambda client: client.chats()), "no chats yet: corral chat DEPLOYMENT")


@chats.command("search")
@click.argument("text")
@with_options
def search(text: str) -> None:
    """Chats that hold TEXT in title, question or answer."""
    _list(run(lambda client: client.search_chats(text)), f"no chat of yours holds {line(text)!r}")


@chats.command("show")
@click.argument("chat", shell_complete=named("chats"))
@click.option("--reason", default="", help="show another one's: why you look; it is recorded")
@with_options
def show(chat: str, reason: str) -> None:
    """A chat with its questions and answers."""
    if reason:
        (detail,) = look(reason, chat=chat).chats
    else:
        detail = run(lambda client: client.chat(chat))
    if options().json:
        as_json(detail)
        return
    say(f"{line(detail.chat.title) or detail.chat.id} ({line(detail.chat.deployment)}{_state(detail.chat)})")
    for turn in detail.messages:
        say(f"\n> {plain(turn.question)}\n")
        say(plain(turn.answer))
        if turn.finish == "length":
            say("[cut off: its tokens or the context were used up]")
        if turn.state != "done":
            say(f"[{line(turn.state)}{': ' + line(turn.reason) if turn.reason else ''}]")
        if told := figures(turn, detail.chat.ctx_per_slot):
            say(told)


def _state(chat: Chat) -> str:
    """Whether it is private or held, and when it goes."""
    if chat.held:
        return "; under legal hold: nothing of it is deleted"
    if chat.private:
        return "; private: in memory alone"
    return f"; deleted {_goes(chat)}" if chat.goes_at else ""


@chats.command("go-on")
@click.argument("chat", shell_complete=named("chats"))
@click.option("--forget-oldest", is_flag=True, help="when the context is full, forget the oldest turns")
@with_options
def go_on(chat: str, forget_oldest: bool) -> None:
    """Go on with the last answer, if it was cut, stopped or too long."""
    _answer(run(lambda client: client.chat(chat)).chat, "", forget_oldest)


@chats.command("rename")
@click.argument("chat", shell_complete=named("chats"))
@click.argument("title")
@with_options
def rename(chat: str, title: str) -> None:
    """Give a chat another title."""
    renamed = run(lambda client: client.update_chat(chat, title=title))
    tell(renamed, f"{line(chat)} is now {line(renamed.title)}")


@chats.command("export")
@click.argument("chat", required=False, shell_complete=named("chats"))
@click.option("--format", "format_", type=click.Choice(["md", "json"]), default="md", show_default=True)
@click.option("--user", "whose", callback=filled, help="all of another user; needs --reason")
@click.option("--reason", default="", help="why you look at what another one said; it is recorded")
@with_options_but("user")
def export(chat: str | None, format_: str, whose: str | None, reason: str) -> None:
    """Write a chat, or all of yours, to standard output."""
    form = "json" if options().json else format_
    if whose and chat:
        raise click.UsageError("say a chat, or --user for all of somebody's")
    if whose or (chat and reason):
        found = look(reason, user=whose) if whose else look(reason, chat=chat)
        if form == "json":
            as_json(found)
        else:
            click.echo(plain(as_markdown(found.chats)), nl=False)
        return
    text = run(lambda client: client.export_chat(chat, form) if chat else client.export_chats(form))
    if form == "json":
        as_json(json.loads(text))
    else:  # a file that is shown on a terminal one day must not speak to it either
        click.echo(plain(text), nl=False)


@chats.command("rm")
@click.argument("chat", shell_complete=named("chats"))
@with_options
def rm(chat: str) -> None:
    """Delete a chat for good."""
    run(lambda client: client.chat(chat))  # before anything is asked
    ask(f"Delete the chat {line(chat)} for good?")
    run(lambda client: client.remove_chat(chat))
    tell({"removed": chat}, f"removed {line(chat)}")


for verb in VERBS:
    chats.add_command(verb)
