"""`make shots`: the real console on a real daemon with the sample deployed, every screen at both sizes; a pull from the
stand-in for a hub is under way.

Writes SVG (and PNG where rsvg-convert is installed) to screenshots/.
"""

import asyncio
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from core.client import Client
from tui.app import Corral

TESTS = Path(__file__).parents[1]
sys.path.insert(1, str(TESTS / "catalog"))

from hub_double import HubDouble, in_a_thread  # noqa: E402
from pullworld import model  # noqa: E402

FOLDER = TESTS.parent / "screenshots"
SIZES = ((120, 36), (80, 24))
SCREENS = (("1", "overview"), ("2", "deployments"), ("3", "models"), ("5", "chats"), ("8", "access"), ("9", "audit"))


SLOWLY = ("--limit", "250K", "--detach", "-q")
"""A pull of 100 MB then takes longer than all pictures."""


def corral(*args: str) -> None:
    subprocess.run([sys.executable, "-P", "-m", "tui", *args], check=True, timeout=120, stdin=subprocess.DEVNULL)


async def draw(size: tuple[int, int]) -> None:
    app = Corral(lambda: Client.connect(through="console"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause(4.0)
        for key, name in SCREENS:
            await pilot.press(key)
            await pilot.pause(1.2)
            save(app, name, size)
        await pilot.press("3")
        await pilot.pause(1.5)
        for key, name in (
            ("enter", "model"), ("r", "recommend"), ("a", "alias"), ("f", "free"), ("o", "move"),
            ("p", "pull"), ("i", "import"), ("t", "underway"),
        ):  # fmt: skip
            await pilot.press(key)
            await pilot.pause(1.5)
            if name == "move":
                await pilot.press("tab", *"archive")
                await pilot.pause(1.0)
            save(app, name, size)
            await pilot.press("escape", "escape")
            await pilot.pause(0.3)
        await pilot.press("8")
        await pilot.pause(0.5)
        for key, typed, name in (("n", "operator", "grant"), ("a", "nightly", "key")):
            await pilot.press(key)
            await pilot.pause(0.8)
            await pilot.press(*(["tab", "tab"] if name == "grant" else []), *typed)
            await pilot.pause(1.5)
            save(app, name, size)
            await pilot.press("escape", "escape")
            await pilot.pause(0.3)
        await pilot.press("5")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(1.2)
        save(app, "chat", size)
        await pilot.press("escape", "escape")
        await pilot.press("2")
        await pilot.pause(0.5)
        for key, name in (
            ("d", "deploy"), ("l", "log"), ("e", "explain"), ("question_mark", "help"), ("ctrl+p", "palette"),
            ("x", "confirm"), ("exclamation_mark", "whole"),
        ):  # fmt: skip
            await pilot.press(key)
            await pilot.pause(1.5)
            save(app, name, size)
            await pilot.press("escape")
            await pilot.pause(0.3)
            await pilot.press("escape")
            await pilot.pause(0.3)


_TEXT = re.compile(r'(<text class="[^"]*" x=")([0-9.]+)(" y="[0-9.]+" textLength=")([0-9.]+)("[^>]*>)([^<]*)(</text>)')


def aligned(svg: str) -> str:
    """Begin each text at its first letter: librsvg leaves out the blanks before it and stretches the rest."""

    def begin(found: re.Match[str]) -> str:
        head, x, middle, length, tail, text, end = found.groups()
        plain = html.unescape(text)
        blanks = len(plain) - len(plain.lstrip())
        if blanks in (0, len(plain)):
            return "" if blanks else found[0]
        cell = float(length) / len(plain)
        kept = plain.strip()
        place, width = float(x) + blanks * cell, len(kept) * cell
        words = html.escape(kept).replace(" ", "&#160;").replace("\u00a0", "&#160;")
        return f"{head}{place:.1f}{middle}{width:.1f}{tail}{words}{end}"

    return _TEXT.sub(begin, svg)


def save(app: Corral, name: str, size: tuple[int, int]) -> None:
    path = FOLDER / f"{name}-{size[0]}x{size[1]}.svg"
    path.write_text(aligned(app.export_screenshot(title=f"corral: {name}")))
    if shutil.which("rsvg-convert"):
        subprocess.run(["rsvg-convert", "-w", "1200", "-o", path.with_suffix(".png"), path], check=True, timeout=60)


def main() -> int:
    home, disks = tempfile.mkdtemp(prefix="c-"), Path(tempfile.mkdtemp(prefix="t-"))
    FOLDER.mkdir(exist_ok=True)
    with in_a_thread() as hub:
        os.environ |= {"CORRAL_HOME": home, "HF_ENDPOINT": hub.url}
        try:
            _set_up(hub, disks)
            for size in SIZES:
                asyncio.run(draw(size))
        finally:
            subprocess.run([sys.executable, "-P", "-m", "tui", "shutdown", "--all", "-q"], timeout=120, check=False)
            for each in (home, disks):
                shutil.rmtree(each, ignore_errors=True)
    return 0


def _set_up(hub: HubDouble, disks: Path) -> None:
    """What is seen in the pictures."""
    hub.repos["acme/llama-tiny-GGUF"] = {"llama-tiny-Q4_0.gguf": model(100_000_000)}
    corral("models", "sample", "-q")
    corral("models", "note", "smollm2-135m", "--label", "first", "-q")
    corral("deploy", "smollm2-135m", "--name", "chat", "--ctx", "4096", "--parallel", "2", "--wait", "-q")
    corral("chat", "chat", "What is a llama?", "--max-tokens", "120", "--temperature", "0", "-q")
    corral("access", "teams", "set", "ml", "--member", "user:bin", "--member", "group:daemon", "-q")
    corral("access", "grant", "operator", "team:ml", "--scope", "deployment:ml-*", "--reason", "runs them", "-q")
    corral("access", "grant", "user", "user:bin", "--until", "90d", "--reason", "a pilot", "-q")
    corral("access", "deny", "deployments.rm", "team:ml", "-q")
    corral("keys", "create", "ci", "--rpm", "60", "--daily-tokens", "100000", "-q")
    for name, room in (("archive", "20GiB"), ("fast", "64MiB")):
        (disks / name).mkdir(mode=0o700)
        corral("tiers", "add", name, str(disks / name), "--capacity", room, "-q")
    corral("models", "pull", "hf:acme/llama-tiny-GGUF", "--name", "llama-tiny", *SLOWLY)


if __name__ == "__main__":
    sys.exit(main())
