"""All that can be done, from anywhere: what the palette offers, and how what is typed finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from core.nouns import Chat, Deployment
from tui.keymap import EVERYWHERE, FROM_ANYWHERE, PALETTE, ROOMS, SCREENS, Key
from tui.rights import lacks
from tui.state import State


class Deed(NamedTuple):
    """`action` on the screen in front, or, with a `mode`, on that screen with its cursor on `row`."""

    words: str
    shown: str
    action: str
    mode: str = ""
    row: str = ""
    why: str = ""
    """Why it does nothing now."""


_DIGITS = {mode: digit for digit, mode in SCREENS.items()}
_ALONE = {
    "deployments": ("deploy",), "models": ("import_model", "pull", "sample", "recommend", "verify", "gc", "jobs"),
    "chat": ("new", "hold", "keep"),
    "access": ("new", "key", "account", "explain", "team", "role", "forget"),
    "audit": ("verify", "export", "report", "archive"),
}  # fmt: skip
"""What a screen's keys do without a row."""
_OF_DEPLOYMENT = ("logs", "explain", "stop", "restart", "scale", "remove")
MANY = 100
"""Models from which on the palette has of each but what it is asked for most; the screen's own keys have the rest."""
_OF_EACH_OF_MANY = ("deploy", "remove")
_OF_MODEL = ("deploy", "fit", "curve", "alias", "diff", "history", "note", "move", "remove")


def deeds(here: str, choices: Sequence[tuple[Key, str]], state: State) -> list[Deed]:
    """What may be done: with the screen `here` and its `choices` (each with the reason why not), the other screens,
    and everything that is there."""
    gone = "" if state.connection == "live" else state.away()
    found = [Deed(key.words, key.shown, key.action, why=why) for key, why in choices]
    found += [Deed(f"go to {mode.capitalize()}", digit, "", mode) for digit, mode in SCREENS.items() if mode != here]
    for mode, actions in _ALONE.items():
        found += [
            _deed(f"{key.words} ({mode.capitalize()})", key, mode, why=gone or _lacks(state, key.needs))
            for key in _keys(mode, actions)
            if mode != here
        ]
    for name, deployment in sorted(state.deployments.items()):
        found += _of_deployment(name, deployment, gone, state)
    used = {deployment.spec.model_name for deployment in state.deployments.values()}
    for name in sorted(state.models):
        found.append(Deed(f"{name}: show the model", _DIGITS["models"], "", "models", name))
        for key in _keys("models", _OF_MODEL if len(state.models) <= MANY else _OF_EACH_OF_MANY):
            why = gone or ("a deployment uses it" if key.action == "remove" and name in used else "")
            if key.action == "diff" and state.models[name].versions < 2:
                why = why or "it has one version"
            why = why or _lacks(state, key.needs, "" if key.action == "deploy" else f"model:{name}")
            words = f"{key.words.lower()} the model" if key.action in ("deploy", "remove") else key.words.lower()
            found.append(_deed(f"{name}: {words}", key, "models", name, why))
    found += [Deed(k.words, k.shown, k.action, why=gone or _lacks(state, k.needs, "daemon:local")) for k in PALETTE]
    if state.connection == "ended":
        found.append(Deed("start the daemon", "f5", "reload"))
    known = {key.action: key for key in (*EVERYWHERE, *FROM_ANYWHERE)}
    found += [
        Deed(k.words, k.shown, k.action) for k in known.values() if k.action != "palette" and "room(" not in k.action
    ]
    return found


def of_chats(chats: Iterable[Chat]) -> list[Deed]:
    """Opening each of them."""
    return [
        Deed(f"chat {c.title or 'untitled'} ({c.deployment})", _DIGITS["chat"], "open", "chat", c.id) for c in chats
    ]


def _lacks(state: State, needs: str, object: str = "") -> str:
    return lacks(state.me, needs, object) if needs else ""


def _of_deployment(name: str, deployment: Deployment, gone: str, state: State) -> Iterator[Deed]:
    object = f"deployment:{name}"
    yield Deed(f"{name}: details", _DIGITS["deployments"], "", "deployments", name)
    why = gone or ("" if deployment.ready else f"{name} is {deployment.state}: explain it")
    why = why or _lacks(state, "chats.own") or _lacks(state, "deployments.use", object)
    yield Deed(f"{name}: chat with it", _DIGITS["chat"], "talk", "chat", name, why)
    stopped = deployment.wanted == "stopped"
    for key in _keys("deployments", _OF_DEPLOYMENT):
        words, needs = key.words.lower(), key.needs
        if key.action == "stop":
            words = "start" if stopped else "stop"
            needs = f"deployments.{words}"
        why = "it is stopped" if stopped and key.action == "restart" else ""
        yield _deed(f"{name}: {words}", key, "deployments", name, gone or why or _lacks(state, needs, object))


def _keys(mode: str, actions: Sequence[str]) -> list[Key]:
    keys = {key.action: key for key in ROOMS[mode]}
    return [keys[action] for action in actions]


def _deed(words: str, key: Key, mode: str, row: str = "", why: str = "") -> Deed:
    return Deed(words, f"{_DIGITS[mode]} {key.shown}", key.action, mode, row, why)


def sought(found: Sequence[Deed], typed: str) -> list[Deed]:
    """Those in which each typed word is found, letters in order but not side by side; the closest come first."""
    words = typed.casefold().split()
    scored = [
        (sum(costs), n) for n, deed in enumerate(found) if (costs := _costs(deed.words.casefold(), words)) is not None
    ]
    return [found[n] for _, n in sorted(scored)]


def _costs(text: str, words: Sequence[str]) -> list[int] | None:
    costs = []
    for word in words:
        cost = _cost(text, word)
        if cost is None:
            return None
        costs.append(cost)
    return costs


def _cost(text: str, word: str) -> int | None:
    """0 at the begin of a word, 1 within one, more for each gap between the letters, None if it isn't there."""
    at = text.find(word)
    if at >= 0:
        begins = any(text.startswith(word, n) and (n == 0 or not text[n - 1].isalnum()) for n in range(at, len(text)))
        return 0 if begins else 1
    gaps, at = 0, -1
    for letter in word:
        next_at = text.find(letter, at + 1)
        if next_at < 0:
            return None
        gaps += next_at > at + 1
        at = next_at
    return 2 + gaps
