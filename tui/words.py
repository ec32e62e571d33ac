"""How states, sizes, ages and times are said: a symbol and a word, never colour alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from core.nouns import DaemonStatus, Deployment, Grant, GrantShown, Model, ModelFile, Unread, VersionDifference

SYMBOLS = {
    "ready": ("●", "+", "green"), "done": ("✓", "+", "green"), "live": ("●", "+", "green"),
    "starting": ("◔", "~", "yellow"), "loading": ("◑", "~", "yellow"), "pending": ("○", "~", "yellow"),
    "draining": ("◒", "~", "yellow"), "stopping": ("◒", "~", "yellow"), "backoff": ("↻", "~", "yellow"),
    "degraded": ("◐", "!", "yellow"), "asleep": ("☾", "z", "blue"), "stopped": ("■", "-", ""),
    "failed": ("✗", "x", "red"), "refused": ("⊘", "x", "red"), "interrupted": ("✗", "!", "red"),
    "intent": ("→", ">", ""), "ended": ("■", "-", ""), "connecting": ("○", "~", "yellow"),
    "reconnecting": ("↻", "~", "yellow"),
    "stored": ("●", "+", "green"), "quarantined": ("✗", "x", "red"), "missing": ("✗", "x", "red"),
    "away": ("○", "~", "yellow"), "catalogue": ("·", ".", ""),
    "waiting": ("○", "~", "yellow"), "reading": ("◔", "~", "yellow"), "pulling": ("◑", "~", "yellow"),
    "hashing": ("◑", "~", "yellow"), "copying": ("◑", "~", "yellow"), "verifying": ("◑", "~", "yellow"),
    "measuring": ("◑", "~", "yellow"), "storing": ("◑", "~", "yellow"), "freeing": ("◑", "~", "yellow"),
    "paused": ("■", "-", ""), "needs token": ("!", "!", "yellow"), "cancelled": ("■", "-", ""),
}  # fmt: skip
"""State to glyph, its ASCII form and a colour that only adds."""


def served(deployment: Deployment, plain_ascii: bool = False) -> str:
    """What it serves: the model as it was asked for, or the version that it got where a name does not say it, and the
    one that it gets when it is restarted."""
    spec = deployment.spec
    if deployment.newer:
        return f"{spec.model_name}@{deployment.version}{'->' if plain_ascii else '→'}{deployment.newer}"
    return spec.model if deployment.version <= 1 else f"{spec.model_name}@{deployment.version}"


def state(word: str, ascii: bool = False) -> str:
    """Symbol and word; a word of a newer daemon gets a question mark."""
    glyph, letter, _ = SYMBOLS.get(word, ("?", "?", ""))
    return f"{letter if ascii else glyph} {word}"


def in_force(daemon: DaemonStatus) -> str:
    """Which settings are in force."""
    return (
        f"there is no {daemon.config}: the defaults are in force" if daemon.defaults else f"{daemon.config} is in force"
    )


def counted(prompt: int | None, answer: int | None, unit: str) -> str:
    """Tokens of a question and its answer, as far as they are known. An engine counts at the end of an answer: of one
    that it did not finish the daemon has counted the pieces that came, nearly one a token, and the question not."""
    if prompt is not None:
        return f"{prompt} {unit} in" + (f", {answer} out" if answer is not None else "")
    return f"about {answer} {unit} out" if answer else ""


def releases(theirs: str, ours: str) -> str:
    """What to say of a daemon of another release, "" if it is ours or has not said yet."""
    if not theirs or theirs == ours:
        return ""
    return f"the daemon is {theirs} and this program {ours}: `corral shutdown` (models run on), then any verb"


def colour(word: str) -> str:
    """The colour of a state, "" for none."""
    return SYMBOLS.get(word, ("", "", ""))[2]


def plural(count: int, word: str) -> str:
    """`word`, with an s unless there is one of it."""
    return word if count == 1 else f"{word}s"


def several(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence; of very many only the first."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def size(amount: float) -> str:
    """Bytes in binary units, three figures: `512 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def params(count: int) -> str:
    """How many parameters, as people say it: `8.0 B`, `135 M`, `64 K`; "?" where that is not known."""
    if not count:
        return "?"
    if count < 999_500:
        return f"{count / 1e3:.0f} K" if count >= 1000 else str(count)
    return f"{count / 1e9:.1f} B" if count >= 999_500_000 else f"{count / 1e6:.0f} M"


def lasting(seconds: float) -> str:
    """A length of time: `<0.1 s`, `0.4 s`, `12 s`, `3 min`, `2.5 h`, `4 days`."""
    if 0 < seconds < 0.1:
        return "<0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} days"


def slots(busy: int, parallel: int, queued: int) -> str:
    """How many are taken of how many, and how many wait for one: `2/2 +38`."""
    return f"{busy}/{parallel}" + (f" +{queued}" if queued else "")


def age(since: float, now: float | None = None) -> str:
    """How long ago `since` (epoch seconds) was, in one unit; a clock that jumped back reads `0s`."""
    seconds = max(0.0, (time.time() if now is None else now) - since)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds // 10 * 10)}s" if seconds >= 10 else "now"


def kept(days: int | None) -> str:
    """How long a rule of retention keeps chats."""
    return "for ever" if days is None else f"{days} {plural(days, 'day')}" if days else "nothing"


def awaited(piece: Mapping[str, Any]) -> str:
    """What an answer waits for that has not begun, as a piece of its stream says it; "" where that is not known."""
    word, place, wait_s = piece.get("waits", ""), piece.get("place", 0), piece.get("wait_s", 0)
    if word == "prompt":
        return "reading the prompt"
    if word != "queued":
        return ""
    at = f"queued, place {place}" if place else "queued"
    if wait_s:
        at += f", about {wait_s} s" if wait_s < 100 else f", about {round(wait_s / 60)} min"
    return f"{at}: every slot is taken, or its replica starts"


def moment(at: float) -> str:
    """`at` (epoch seconds) in local time: `24 Nov 03:07:12`; "?" for what is no time."""
    try:
        return datetime.fromtimestamp(at).strftime("%d %b %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def gone(grant: Grant) -> str:
    """Why a listed grant holds for nobody; else empty."""
    return grant.gone if isinstance(grant, GrantShown) else ""


def whom(grant: Grant) -> str:
    """Whom it is for, and why that is nobody any more."""
    return f"{grant.subject} ({gone(grant)})" if gone(grant) else str(grant.subject)


def has_ended(grant: Grant, now: float | None = None) -> bool:
    """Whether its time is over."""
    return grant.until is not None and grant.until <= (time.time() if now is None else now)


def dated(text: str, now: float | None = None) -> str:
    """`clock`, with the year in place of the seconds for what was in another one: `2024-11-24 03:07 UTC`."""
    year = datetime.fromtimestamp(time.time() if now is None else now).year
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except (ValueError, OverflowError):
        return text[:24]
    return clock(text) if at.year == year else at.strftime("%Y-%m-%d %H:%M %Z")


def clock(text: str) -> str:
    """A record's UTC time in local time with the zone: `24 Nov 03:07:12 UTC`."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone().strftime("%d %b %H:%M:%S %Z")
    except ValueError:
        return text[:24]


def removal(name: str, found: Sequence[Model]) -> str:
    """What removing a model, or one version of it, takes away, as a part of a question."""
    files = {file.sha256: file.bytes for model in found for file in _files(model)}
    numbers = several([f"@{model.version}" for model in found])
    whose = f"the model {name} ({numbers})" if name == found[0].name else found[0].reference
    return f"{whose} and its files of {size(sum(files.values()))}"


def _files(model: Model) -> tuple[ModelFile, ...]:
    return (*model.files, *((model.projector,) if model.projector else ()), *model.adapters)


def unwhole(model: Model) -> str:
    """The state of a version, with why: `away: the tier fast is not there`."""
    return f"away: the tier {model.tier} is not there" if model.state == "away" else model.state


def subject(found: VersionDifference) -> str:
    """In what two versions differ: `licence`, `chat template`, `file of the projector`, `header general.name`."""
    if found.kind in ("licence", "template"):
        return found.what
    return (
        f"file of {'' if found.what[-1:].isdecimal() else 'the '}{found.what}"
        if found.kind == "files"
        else (f"{found.kind} {found.what}")
    )


def why_unread(unread: Unread) -> str:
    """Why a verification passed a version by, and what to do."""
    if unread.state == "away":
        return f"the tier {unread.tier} is not there: mount it"
    why = {"quarantined": "its bytes were set aside", "missing": "its file is gone"}.get(unread.state, unread.state)
    return f"{why}: import it again"
