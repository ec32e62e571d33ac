"""What the tests of the console share: the double, a console on it, and its screen as text."""

import importlib.util
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tui.app import Corral


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"console_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Driven:
    """A console under test."""

    def __init__(self, app: Corral, pilot) -> None:
        self.app, self.pilot = app, pilot

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join("".join(s.text for s in strip) for strip in self.app.screen._compositor.render_strips())

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Into the field that has the focus."""
        await self.pilot.press(*({" ": "space"}.get(each, each) for each in text))

    async def until(self, true, tries: int = 250) -> None:
        """Wait until `true()`, or until these words stand on the screen."""
        for _ in range(tries):
            if true in self.text if isinstance(true, str) else true():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"never: {true}\n{self.text}")


@pytest.fixture(scope="session")
def doubles() -> ModuleType:
    """The module double.py."""
    return _beside("double")


@pytest.fixture
def fake(doubles):
    return doubles.Double()


@pytest.fixture
def console(fake):
    """`async with console(size=…, screen="2") as it`: the console on the double, live, on that screen."""

    @asynccontextmanager
    async def opened(screen: str = "", size: tuple[int, int] = (120, 36), **options):
        app = Corral(fake.connect, reconnect=fake.reconnect, refresh_s=0.2, **options)
        async with app.run_test(size=size) as pilot:
            it = Driven(app, pilot)
            await it.until(lambda: app.client is not None)
            if screen:
                await pilot.press(screen)
                await it.until(lambda: app.current_mode == getattr(app.screen, "ROOM", "") and app.screen.query("#bar"))
            yield it

    return opened
