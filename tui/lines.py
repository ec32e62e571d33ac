"""Plain text for the command line: aligned tables, questions, progress; every outside string goes through `plain`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
import msgspec

from core.errors import Changed, Invalid
from tui.columns import SAID, cut, fitted, whole
from tui.command import Told, note, options
from tui.plain import draws_ascii, line

_BAR = 24
T = TypeVar("T")
U = TypeVar("U")


def say(text: str = "") -> None:
    click.echo(text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], spare: Sequence[str] = ()) -> None:
    """Columns of the widest cell. With `spare` it fits a terminal, without those columns if need be (those first that
    stand first); what is piped, and --wide, is whole. Nothing is printed for no rows."""
    if not rows:
        return
    cells = [list(head), *[[line(cell) for cell in row] for row in rows]]
    if spare and sys.stdout.isatty() and not options().wide:
        lines = fitted(cells, shutil.get_terminal_size().columns, spare, _mark())
    else:
        lines = whole(cells)
    for each in lines:
        say(each)


def bounded(text: object, most: int = SAID) -> str:
    """What a file says of itself (its licence, its architecture), on one line and cut where it is longer than any that
    is meant to be read; whole with --wide."""
    return line(text) if options().wide else cut(line(text), most, _mark())


def _mark() -> str:
    """What stands for what was cut off."""
    return "..." if draws_ascii(os.environ, sys.stdout.encoding) else "…"


def as_json(value: object) -> None:
    """One document, in ASCII: a model's control characters leave as escapes."""
    plain = json.dumps(msgspec.to_builtins(value))  # with an indent of its own it is ten times slower
    sys.stdout.write(msgspec.json.format(plain, indent=2) + "\n")


def listed(
    found: Sequence[T], name: Callable[[T], str], head: Sequence[str], row: Callable[[T], Sequence[object]], *,
    empty: str = "",
) -> None:  # fmt: skip
    """What `ls` of a noun writes: a document with --json, the names alone with -q, else a table, or `empty` where there
    is nothing."""
    if options().json:
        as_json(found)
    elif options().quiet:
        for each in found:
            say(line(name(each)))
    elif found:
        table(head, [row(each) for each in found])
    elif empty:
        say(empty)


def tell(document: object, text: str) -> None:
    """What a verb has done: a document with --json, nothing with -q, else a sentence."""
    if options().json:
        as_json(document)
    elif not options().quiet:
        say(text)


def note_ctx(asked: int, given: int) -> None:
    """Say on standard error that a model takes less context than was asked for."""
    if asked > given and not options().quiet:
        note(f"ctx is {given} and not {asked}: the model was not trained with more")


def ask(question: str, **details: Any) -> None:
    """Ask once; `--yes` answers. Without a terminal it exits 2 and names `--yes`; `details` go into the JSON error."""
    if options().yes:
        return
    if not sys.stdin.isatty():
        raise Told(Invalid(question, "there is no terminal to ask on", "say --yes", **details))
    if not click.confirm(question, err=True):
        raise click.exceptions.Exit(1)


def agreed(look: Callable[[], T], work: Callable[[T], U]) -> U:
    """Show and ask (`look`), and do what was agreed to; where that has changed meanwhile it is said, and asked anew."""
    while True:
        seen = look()
        try:
            return work(seen)
        except Told as told:
            if options().yes or not isinstance(told.error, Changed):
                raise
            note(f"{told.error.what}: {told.error.why}")


def ask_typed(question: str, word: str) -> None:
    """Ask for `word` to be typed, for what cannot be undone; `--yes` answers. Without a terminal it exits 2 and names
    `--yes`."""
    if options().yes:
        return
    if not sys.stdin.isatty():
        raise Told(Invalid(question, "there is no terminal to ask on", "say --yes"))
    if click.prompt(f"{question}\nType {line(word)} to go on", default="", show_default=False, err=True) != word:
        raise Told(Invalid("nothing was done", "that was another word"))


class Progress:
    """A bar on a terminal; elsewhere a line from time to time (`Seldom`)."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty() and not options().quiet
        self._last = -1
        self._seldom = Seldom()

    def show(self, done: int, total: int) -> None:
        if not total or done * 100 // total == self._last:
            return
        self._last = done * 100 // total
        if not self._shown:
            self._seldom.say(f"{self._what}: {self._last} %")
            return
        filled = _BAR * done // total
        bar = "#" * filled + "." * (_BAR - filled)
        click.echo(f"\r{self._what} [{bar}] {self._last:3d} %", err=True, nl=False)

    def end(self) -> None:
        if self._shown and self._last >= 0:
            click.echo("\r" + " " * (len(self._what) + _BAR + 12) + "\r", err=True, nl=False)


class Passing:
    """Words on a terminal that say what takes a while, and are gone afterwards; elsewhere a line from time to time
    (`Seldom`)."""

    WIDTH = 70

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty() and not options().quiet
        self._said = False
        self._seldom = Seldom()

    def __enter__(self) -> Passing:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def show(self, words: str) -> None:
        if not self._shown:
            self._seldom.say(words)
        elif words or self._said:
            self._said = True
            click.echo(f"\r{line(words):{self.WIDTH}.{self.WIDTH}}", err=True, nl=False)

    def end(self) -> None:
        if self._said:
            click.echo("\r" + " " * self.WIDTH + "\r", err=True, nl=False)


class Seldom:
    """Lines on a standard error that is no terminal (a log, a pipe): the first when something has taken `FIRST_S`,
    then after `EVERY_S` or a tenth of what it has taken, whichever is longer. None with --json or -q."""

    FIRST_S, EVERY_S = 5.0, 10.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._next = self._began + self.FIRST_S
        self._silent = sys.stderr.isatty() or options().quiet or options().json
        self._last = ""

    def say(self, words: str) -> None:
        now = self._clock()
        if self._silent or now < self._next or words in ("", self._last):
            return
        self._next, self._last = now + max(self.EVERY_S, (now - self._began) / 10), words
        note(words)


def local(text: str) -> str:
    """An audit time (UTC) in local time with the zone."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except ValueError:
        return text
