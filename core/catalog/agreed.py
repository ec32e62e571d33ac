"""What somebody agreed to is what he was shown: what has changed since is refused, and said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.errors import Changed

MOST = 5
"""Names that a sentence has."""


def to_go(seen: Iterable[str] | None, now: Iterable[str]) -> None:
    """Raises `Changed` where what would go `now` is not what was `seen`; None: nobody was asked."""
    if seen is None or (shown := set(seen)) == (there := set(now)):
        return
    more, less = sorted(there - shown), sorted(shown - there)
    said = [f"{_few(more)} would go too"] if more else []
    said += [f"{_few(less)} would not go any more"] if less else []
    raise Changed(
        "nothing was removed", f"what would go has changed since it was shown: {', and '.join(said)}",
        "look again, and then say it again", more=more, less=less,
    )  # fmt: skip


def alias(name: str, seen: int | None, now: int | None, version: int) -> None:
    """Raises `Changed` where an alias means another version `now` than the one that was `seen` (0: none; None: nobody
    was asked), unless that is the one that it shall mean."""
    if seen is None or (now or 0) in (seen, version):
        return
    means = f"{name} means version {now}" if now else f"{name} is gone"
    was = f"version {seen}" if seen else "nothing"
    raise Changed(
        f"{name} was not moved to version {version}", f"{means} now: it meant {was} when it was shown",
        "look again (--dry-run), and then say it again", version=now,
    )  # fmt: skip


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
