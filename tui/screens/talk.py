"""The open chat: the line that says how it stands, what hinders a key, and an answer on its way to the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core.errors import CorralError, NoDaemon
from core.nouns import Chat, Turn
from tui.plain import line
from tui.rights import lacks
from tui.spoken import spoken
from tui.widgets.turn import IN_FLIGHT, TurnView, can_go_on, figures, filled, settings
from tui.words import age, awaited

if TYPE_CHECKING:
    from tui.front import Front
    from tui.state import State

DRAW_S = 0.1
"""Seconds between two looks of a streaming answer: faster is not read better and costs bytes."""
TRIES = 60
"""How often a stream that lost its daemon is taken up again, a second apart."""


def about(chat: Chat | None, turns: Sequence[Turn], growing: str) -> str:
    """How full its context is and what happens then, on a line."""
    if chat is None:
        return "enter opens a chat, n begins one"
    if not chat.id:
        new = "a new private chat, kept nowhere," if chat.private else "a new chat"
        return f"{new} with {chat.deployment} | {settings(chat.options)}"
    (used, guessed), room = filled(turns, growing), chat.ctx_per_slot
    told = f"{'~' if guessed else ''}{used}"
    share = f"context {told}/{room} ({100 * used // room} %)" if room else f"context {told}"
    full = "forgets the oldest" if chat.on_full == "forget-oldest" else "asks"
    kept = f"{words} | " if (words := keeping(chat)) else ""
    return f"{kept}{share}, when full {full} | {chat.deployment} | {chat.title or 'untitled'}"


def keeping(chat: Chat) -> str:
    """Whether it is private or held, and when it goes; "" where it is kept as usual."""
    if chat.held:
        return "under legal hold"
    if chat.private:
        return "private, kept nowhere"
    if chat.goes_at is None:
        return ""
    left = age(time.time(), chat.goes_at)
    return "deleted within the hour" if left in ("-", "now") else f"deleted in {left}"


def marked(chat: Chat) -> str:
    """Its title in the list, after a word where it is not kept as others are."""
    words = "held: " if chat.held else "private: " if chat.private else ""
    return f"{words}{chat.title or 'untitled'}"


def hindered(action: str, chat: Chat | None, turns: Sequence[Turn]) -> str:
    """Why a key that is about the open chat does nothing now; "" where it does something."""
    last = turns[-1] if turns else None
    busy = last is not None and last.state in IN_FLIGHT
    if action not in ("full", "options", "stop_turn", "regenerate", "edit", "go_on", "copy"):
        return ""
    if chat is None:
        return "Open a chat first: enter opens one, n begins one"
    if action == "stop_turn" and not busy:
        return "No answer is being made"
    if action in ("regenerate", "edit", "go_on", "copy") and last is None:
        return "There is no answer yet: i lets you write a question"
    if action in ("regenerate", "edit", "go_on") and busy:
        return "An answer is being made: s stops it"
    if action == "go_on" and last is not None and not can_go_on(last):
        return "The last answer is complete: there is nothing to go on with"
    return ""


ASKING = ("send", "write", "regenerate", "edit", "go_on")
CHANGING = ("regenerate", "edit", "rename", "remove")
"""What takes away or changes something that was said."""


def barred(action: str, chat: Chat, known: State) -> str:
    """Why the one at the terminal may not do this with `chat`, as far as it is known here; "" where he may."""
    if action in CHANGING and chat.held:
        return "This chat is under legal hold: nothing of it is deleted or changed"
    if action not in ASKING:
        return ""
    name = chat.deployment
    if why := lacks(known.me, "deployments.use", f"deployment:{name}"):
        return why
    there = known.deployments.get(name)
    if there is None:
        return f"{name} is not there any more: n begins a chat with another one"
    if there.mark is not None and not chat.private:
        return f"{name} is sensitive: no chat with it is kept. v begins a private one"
    if there.state in ("stopped", "failed"):
        return f"{name} is {there.state}: screen 2 starts and explains it"
    return ""


async def stream(
    corral: Front, view: TurnView, turn: Turn, grown: Callable[[str], object], say: Callable[[str], object]
) -> Turn | None:
    """Draw in `view` what comes of `turn`, telling `grown` of it, until its end, which is the answer. A daemon that
    goes is waited for; None if that was in vain."""
    text, done, failures, failed, drawn, waited = turn.answer, turn, 0, 0, 0.0, ""
    clock = asyncio.get_running_loop().time
    while True:
        client = corral.client
        try:
            if client is None:
                raise ConnectionError("the daemon does not answer")
            async for piece in client.stream_turn(turn.chat, turn.id, len(text)):
                if "turn" in piece:
                    done = piece["turn"]
                    break
                text = text[: piece["offset"]] + piece["text"]
                waits = awaited(piece) if not text else ""
                if failed != failures or waits != waited:
                    failed, waited = failures, waits
                    view.foot(
                        f"{waits}. esc, then s ends it" if waits else figures(turn)
                    )  # also after a lost connection
                if clock() - drawn >= DRAW_S:
                    drawn = clock()
                    await view.grow(text)
                    grown(text)
            return done
        except (NoDaemon, OSError, EOFError, TimeoutError) as error:
            failures += 1
            view.foot(f"connection lost ({line(error)}), the answer goes on in the daemon; trying again")
            if failures > TRIES:
                return None
            await asyncio.sleep(1)
        except CorralError as error:
            say(spoken(error))
            return None
