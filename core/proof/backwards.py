"""Times that go backwards along a file: innocent where a clock was corrected, and told all the same."""

from __future__ import annotations

from datetime import datetime

JUMP_S = 2.0
"""A clock is corrected by less than this all the time."""


class Backwards:
    """One a kind of line. `add` each, then `notes`."""

    def __init__(self) -> None:
        self._latest, self._first, self._count = "", "", 0

    def add(self, what: str, time: str) -> None:
        """`what`, as people call it, has this time of the trail."""
        if time >= self._latest:
            self._latest = time
        elif _seconds(self._latest) - _seconds(time) >= JUMP_S:
            self._count += 1
            self._first = self._first or f"the time goes backwards at {what}: {time} comes after {self._latest}"

    def notes(self) -> tuple[str, ...]:
        """What a person is told of it, as a sentence; nothing if all is in order."""
        if not self._count:
            return ()
        more = f", and {self._count - 1} more lie before {self._latest}" if self._count > 1 else ""
        return (f"{self._first}{more}: the clock was set back, or somebody wrote with a wrong one",)


def _seconds(text: str) -> float:
    """Of a time of the trail; what is none is as good as the first."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
