"""The console's App: one mode per screen, the link to the daemon, and the few things every screen shares."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import locale
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual._compositor import CompositorUpdate
from textual.app import App
from textual.binding import Binding
from textual.screen import Screen
from textual.widget import AwaitMount

from core.errors import CorralError
from core.nouns import Event
from tui.ahead import Ahead, Passed, Typed
from tui.errands import Errands
from tui.filters import Ascii, Colourless, Harmless
from tui.ink import Difference, Ink
from tui.keymap import EVERYWHERE, FROM_ANYWHERE, PALETTE, SCREENS
from tui.plain import draws_ascii
from tui.received import forgive_input, know_alt_enter
from tui.rooms import AHEAD, MODES, STYLES
from tui.spoken import spoken
from tui.state import Connect, State, follow
from tui.words import in_force

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tui.deeds import Deed


FIGURES = frozenset({"sample", "replica", "pull", "move", "bench", "verify"})
"""Kinds of events that come each second while something goes on: they wait for the tick."""


class Corral(App[int]):
    """The console. `connect` opens a client and starts a daemon if none answers, `reconnect` starts none that somebody
    ended (`connect` where it is left out); `refresh_s` is how often live figures are drawn (seconds)."""

    TITLE = "corral"
    ENABLE_COMMAND_PALETTE = False
    MODES: ClassVar = MODES
    DEFAULT_MODE = "overview"
    CSS_PATH: ClassVar = [STYLES / "room.tcss", STYLES / "overview.tcss"]
    BINDINGS: ClassVar = [
        *(Binding(k.keys, k.action, k.words, show=False) for k in EVERYWHERE),
        *(Binding(k.keys, k.action, k.words, show=False, priority=True) for k in FROM_ANYWHERE),
    ]

    def action_help_quit(self) -> None:
        """ctrl+c: Textual would say it in its own words, and once for each press."""
        self.clear_notifications()
        self.notify("ctrl+q leaves; models run on")

    def __init__(
        self, connect: Connect, *, reconnect: Connect | None = None, refresh_s: float = 1.0, ascii: bool = False
    ) -> None:
        self.colourless = bool(os.environ.get("NO_COLOR"))
        super().__init__()
        forgive_input()
        know_alt_enter()
        self._theme_read, self._styled = self.theme, False
        self.animation_level = "none"
        self.connect = connect
        self.reconnect = reconnect or connect
        self._starts = True
        """The next connection may start a daemon: the first one, and one that a person asks for."""
        self._wake = asyncio.Event()
        self.refresh_s = refresh_s
        self.ascii = ascii
        self.state = State()
        self.client: Any = None
        self.errands = Errands(self)
        self._dirty: set[str] = set()
        self._ink = Ink()
        self._ahead = Ahead(self)
        self._sized = False
        if self.colourless:
            self._filters[:] = [Colourless()]
        self._filters.append(Ascii() if ascii else Harmless())

    def delay_update(self, delay: float = 0.05) -> None:
        """Hold drawing for a moment only: Textual holds it for 50 ms at each change of screen, and an admin who presses
        a key should see its screen before that (key to screen 56 ms, without 6-41 ms)."""
        super().delay_update(min(delay, 0.001))

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, Typed):
            await super().on_event(event)
        elif event.is_forwarded:  # no widget took it
            await super().on_event(event)
            self._ahead.done(event)
        elif not self.screen_stack:
            return  # it is being taken down: nobody is there for a key
        elif not self._ahead.holds(event):
            screen, at = self.screen, self.focused or self.screen
            if isinstance(event, events.Key) and event.key != "exclamation_mark":
                self._front("pass_on")
            await super().on_event(event)
            if event.is_forwarded:
                self._ahead.given(event, at, screen)
            else:
                self._ahead.worked(event, screen)

    def on_passed(self, message: Passed) -> None:
        self._ahead.passed(message)

    def on_mount(self) -> None:
        self.set_interval(self.refresh_s, self._tick)
        self.call_after_refresh(self._begin)

    def on_resize(self) -> None:
        if self._sized:
            self._ink.forget()  # terminals wrap and cut what stood there, each in its way
            self.refresh()
        self._sized = True  # the first one only tells the size

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Write only what differs from what stands on the terminal (tui.ink)."""
        written = self._running and not self._closed and not self._batch_count and not self.is_headless
        if written and isinstance(renderable, CompositorUpdate):
            text = self._ink.changed(renderable, self.console)
            if not text:
                self.post_display_hook()
                return
            renderable = Difference(text)
        super()._display(screen, renderable)

    def refresh_css(self, animate: bool = True) -> None:
        """Textual reads all style sheets anew at the start and twice at the first opening of each screen (20 ms each),
        to follow a theme that may have changed. Ours does not: the rules are applied, not read."""
        if self._theme_read != self.theme:
            self._theme_read = self.theme
            super().refresh_css(animate)
        elif not self._styled:
            self._styled = True
            self.stylesheet.update(self, animate=animate)

    def _get_screen(self, screen: Screen[Any] | str) -> tuple[Screen[Any], AwaitMount]:
        """Read its style sheets first: with Python 3.12 and newer its tasks begin at once, and what they had made by
        then was laid out without them (a form of empty fields)."""
        found = self.get_screen(screen)
        self._load_screen_css(found)
        return super()._get_screen(found)

    def _begin(self) -> None:
        gc.freeze()  # what a start makes stays; a collection need not look at it again
        gc.enable()
        self.run_worker(
            follow(self.state, self._connect, self._changed, self._attached, self._pause), exit_on_error=True
        )
        self.run_worker(self._look_ahead(), exit_on_error=True)

    async def _look_ahead(self) -> None:
        """Import the other screens, read their style sheets and mount them, so that their first opening need not."""
        for name in AHEAD:
            await asyncio.to_thread(import_module, f"tui.screens.{name}")
        await asyncio.to_thread(import_module, "textual.widgets._markdown")
        for path in sorted(STYLES.glob("*.tcss")):
            if not self.stylesheet.has_source(str(path), ""):
                self.stylesheet.read(path)
                _ = self.stylesheet.rules  # parses the one that is new
            await asyncio.sleep(0)
        for mode in SCREENS.values():
            if self.is_running and mode not in self._screen_stacks:
                await self._init_mode(mode)
                await asyncio.sleep(0.05)  # it lays itself out meanwhile
                if self.is_running and self._current_mode != mode:
                    self._screen_stacks[mode][0]._compositor.render_strips()  # its widgets keep their lines

    async def _connect(self) -> Any:
        client = await (self.connect if self._starts else self.reconnect)()
        self._starts = False
        return client

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, or until a person asks for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _attached(self, client: Any) -> None:
        self.client = client

    def _changed(self, kind: str, event: Event | None) -> None:
        """Figures wait for the tick, everything else is drawn with the next frame."""
        if event is not None:
            self._tell("happened", event)
            self.errands.happened(event)
        elif kind == "all":
            self.errands.pictured()
        self.told(kind)

    def told(self, kind: str) -> None:
        """Have what of this kind changed be drawn."""
        if kind and not self._dirty - FIGURES and kind not in FIGURES:
            self.set_timer(0.05, self._tick)
        if kind:
            self._dirty.add(kind)

    def _tick(self) -> None:
        kinds, self._dirty = self._dirty, set()
        if kinds or self.state.connection != "live":
            self._tell("picture", kinds)

    def _front(self, method: str) -> None:
        """Call `method` of the screen in front, if it has it."""
        take: Callable[[], None] | None = getattr(self.screen, method, None)
        if take is not None and self.screen.is_mounted:
            take()

    def _tell(self, method: str, *args: object) -> None:
        for screen in self.screen_stack if self.is_running else ():
            take: Callable[..., None] | None = getattr(screen, method, None)
            if take is not None and screen.is_mounted:
                take(*args)

    # ------------------------------------------------------------------ what the screens share

    def act(self, work: Callable[[Any], Awaitable[Any]], then: Callable[[Any], object] | None = None) -> None:
        """Ask the daemon in a worker; an error is shown at the foot of the screen, `then` gets the answer."""
        self.run_worker(self._act(work, then), exit_on_error=True)

    async def _act(self, work: Callable[[Any], Awaitable[Any]], then: Callable[[Any], object] | None) -> None:
        if self.client is None:
            self.say(f"Not done: {self.state.away()}")
            return
        try:
            answer = await work(self.client)
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            self.say(spoken(error))
            return
        if then is not None and self.is_running:  # it may have been left meanwhile, its screens half taken down
            then(answer)

    def news(self, words: str) -> None:
        """Tell what came of something that was begun before, on the screen that one works with now: a question that is
        in front of it is not about this."""
        for screen in reversed(self.screen_stack if self.is_running else ()):
            take: Callable[[str], None] | None = getattr(screen, "tell", None)
            if take is not None and screen.is_mounted:
                take(words)
                return

    def say(self, words: str) -> None:
        """Put a sentence where one looks: the notice line of the screen in front."""
        notice = getattr(self.screen, "say", None)
        if notice is not None:
            notice(words)
        else:
            self.bell()

    # ------------------------------------------------------------------ actions

    def go(self, mode: str, row: str = "", action: str = "", say: str = "") -> None:
        """Open screen `mode` from wherever one is, put its cursor on `row`, and do `action` there as its key would."""
        self.run_worker(self._go(mode, row, action, say), exit_on_error=True)

    async def _go(self, mode: str, row: str, action: str, say: str) -> None:
        from tui.screens.room import Room

        await self.action_room(mode)
        room = self.screen
        if not isinstance(room, Room):
            return
        await room.visit(row, action)
        if say:
            room.say(say, news=True)

    async def action_room(self, name: str) -> None:
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        await self.switch_mode(name)

    def action_help(self) -> None:
        from tui.screens.help import Help

        choices = getattr(self.screen, "choices", list)
        if not isinstance(self.screen, Help) and callable(choices):
            self.push_screen(Help(getattr(self.screen, "ROOM", ""), choices()))

    def action_palette(self) -> None:
        from tui.deeds import deeds
        from tui.screens.palette import Palette
        from tui.screens.room import Room

        room = self.screen
        if not isinstance(room, Room):  # a question or the palette itself is in front
            self.say("Answer this first: esc leaves it")
            return

        async def run(deed: Deed | None) -> None:
            if deed is None:
                return
            if deed.mode:
                self.go(deed.mode, deed.row, deed.action)
            elif any(k.action == deed.action for k in EVERYWHERE + FROM_ANYWHERE + PALETTE):
                await self.run_action(deed.action)
            else:
                await room.action_do(deed.action)

        self.push_screen(Palette(deeds(room.ROOM, room.choices(), self.state)), run)

    def _fatal_error(self) -> None:
        """As Textual's, without the local variables: there may be a key or what somebody said among them."""
        from rich.traceback import Traceback

        self._exit_renderables.append(Traceback(show_locals=False, width=None))
        self._close_messages_no_wait()

    def action_settings(self) -> None:
        """What `corral reload` does."""

        async def work(client: Any) -> str:
            await client.reload()
            return in_force((await client.status()).daemon)

        self.act(work, self.say)

    def action_shutdown(self, models: bool) -> None:
        """What `corral shutdown` does, with --all if `models`."""
        from tui.screens.room import Room

        running = sum(replica.pid is not None for replica in self.state.replicas.values())
        what = (
            f" and stop all models (replicas: {running})? Answers in flight end first" if models else "? Models run on"
        )
        if isinstance(self.screen, Room):
            question = f"Shut the daemon down{what}. F5 starts it again"
            self.screen.confirmed(question, lambda client: client.shutdown(models))

    def action_whole(self) -> None:
        from tui.screens.whole import Whole

        whole = getattr(self.screen, "whole", None)
        if whole is None or isinstance(self.screen, Whole):
            return
        self.push_screen(Whole(whole() or "There is nothing more to tell here"))

    def action_reload(self) -> None:
        def loaded(picture: Any) -> None:
            self.state.load(picture)
            self._tell("picture", {"all", "reload"})
            self._ink.forget()
            self.refresh()

        if self.state.connection == "ended":
            self.say("Starting the daemon")
            self._starts = True
            self._wake.set()
        else:
            self.act(lambda client: client.picture(), loaded)


assert set(Corral.MODES) == set(SCREENS.values())


def run(refresh: float = 1.0, user: bool = False, mouse: bool = True, ascii: bool = False) -> int:
    """Open the console; the answer is the exit code. `ascii` is also taken in a locale that is not UTF-8."""

    async def connect() -> Any:
        from core.client import Client

        return await Client.connect(start=True, through="console", user=user)

    async def reconnect() -> Any:
        from core.client import Client

        return await Client.reconnect(through="console", user=user)

    narrow = ascii or draws_ascii(os.environ, locale.getpreferredencoding(False))
    return Corral(connect, reconnect=reconnect, refresh_s=max(0.2, refresh), ascii=narrow).run(mouse=mouse) or 0
