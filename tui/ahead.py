"""What is typed ahead: a key is taken only when the one before it has done its work.

Textual gives a key to the widget that has the focus when the key is read; what the key before it moves or opens comes
to be later, so that fast keys (a slow line, a macro, a paste of keys) went where the focus had been. The console's app
is the only caller. A key has done its work when it has come up to the app, or when a message sent behind it has: then
a widget has taken it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from textual import events
from textual.app import App
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen

LATE_S = 0.5
"""After this long a key is given up as taken: its widget has gone, or is busy."""
LOOK_S = 0.02
"""Between two looks at whether a screen that was opened can take keys."""

Typed = events.Key | events.Paste


class Passed(Message):
    """Goes up the same way behind a key; twice, so that what a widget says because of the key is ahead of it."""

    def __init__(self, typed: Typed, at: MessagePump, again: bool) -> None:
        super().__init__()
        self.typed, self.at, self.again = typed, at, again


class Ahead:
    """The keys of one app that wait for the one before."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._waiting: deque[Typed] = deque()
        self._flying: Typed | None = None
        self._next: Typed | None = None
        self._before: Screen[Any] | None = None
        """In front when the key in flight came."""

    def holds(self, typed: Typed) -> bool:
        """Whether `typed` has to wait; it is then posted to the app once more."""
        if typed is self._next:
            self._next = None
            return False
        if self._flying is None and self._next is None and not self._waiting:
            return False
        self._waiting.append(typed)
        return True

    def given(self, typed: Typed, at: MessagePump, before: Screen[Any]) -> None:
        """`typed` was put into the queue of `at` while the screen `before` was in front."""
        self._flying, self._before = typed, before
        self._app.set_timer(LATE_S, partial(self.done, typed, late=True))
        if not at.post_message(Passed(typed, at, again=True)):
            self.done(typed)

    def worked(self, typed: Typed, before: Screen[Any]) -> None:
        """The app itself took `typed`."""
        self._flying, self._before = typed, before
        self._app.set_timer(LATE_S, partial(self.done, typed, late=True))
        self.done(typed)

    def passed(self, message: Passed) -> None:
        """The message behind a key has come up."""
        if not (
            self._waiting and message.again and message.at.post_message(Passed(message.typed, message.at, again=False))
        ):
            self.done(message.typed)

    def done(self, typed: Typed, *, late: bool = False) -> None:
        """`typed` has done its work: the next one's turn, as soon as the screen in front can take it."""
        if typed is not self._flying or not self._app.screen_stack:  # without a screen it is being taken down
            return
        screen = self._app.screen
        if not late and screen is not self._before and not _listens(screen):
            self._app.set_timer(LOOK_S, partial(self.done, typed))
            return
        self._flying = None
        if self._waiting:
            self._next = self._waiting.popleft()
            self._app.post_message(self._next)


def _listens(screen: Screen[Any]) -> bool:
    """Whether a screen that was opened has its widgets, and the one that shall have it has the focus."""
    return screen.is_mounted and (screen.focused is not None or not screen.AUTO_FOCUS or not screen.focus_chain)
