"""What a console looks after whichever of its screens is in front: a pull that is deployed when it is here, a
verification that goes on. What comes of them is told where one is then."""

from __future__ import annotations

from typing import Any, Protocol

from core.errors import CorralError
from core.nouns import Event, Pull, Verified
from tui import underway
from tui.plain import line
from tui.spoken import spoken
from tui.state import State

LOST = (OSError, EOFError, TimeoutError)


class Console(Protocol):
    """What an errand needs of the App."""

    state: State
    client: Any

    def news(self, words: str) -> None:
        """Tell it where one looks now."""

    def told(self, kind: str) -> None:
        """Have the screens draw anew what of this kind changed."""

    def run_worker(self, work: Any, *, group: str, exclusive: bool, exit_on_error: bool) -> Any: ...


class Errands:
    """They end with the console; what the daemon has begun of them goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._asking = self._again = False
        self._waited: set[str] = set()
        """Pulls of ours that were seen to wait to be deployed: what comes of them is news."""

    def happened(self, event: Event) -> None:
        """Every event."""
        if event.type == "pull":
            self._mind()
        elif event.type == "verify":
            self._again = True
            if not self._asking:
                self._asking = True
                self._console.run_worker(self._verify(), group="verified", exclusive=False, exit_on_error=True)

    def pictured(self) -> None:
        """There is a whole picture again: a pull may have ended meanwhile."""
        self._mind()

    # ------------------------------------------------------------------ a pull that is to be deployed

    def _mind(self) -> None:
        known = self._console.state
        me = known.me.name if known.me is not None else ""
        for id, pull in known.pulls.items():
            if pull.deploy is None or pull.owner != me:
                continue
            if pull.open:
                self._waited.add(id)
            elif id in self._waited:
                self._waited.discard(id)
                if words := came(pull):
                    self._console.news(line(words))

    # ------------------------------------------------------------------ a verification

    async def _verify(self) -> None:
        """One question at a time, and one more for what was told meanwhile."""
        try:
            while self._again:
                self._again = False
                await self._verified()
        finally:
            self._asking = False

    async def _verified(self) -> None:
        """Read how far it is; when it has ended, or found something, that is news."""
        known = self._console.state
        before = known.verified
        try:
            found: Verified = await self._console.client.catalog.verified()
        except (CorralError, *LOST, AttributeError):
            return
        known.verified = found
        self._console.told("verify")
        bad = any(not each.settled for each in (*found.rotten, *found.missing))
        seen = before is not None and before.started_at == found.started_at
        was = before.state if before is not None and seen else "hashing"
        had = bool(seen and before is not None and (before.rotten or before.missing))
        if (found.state != was and found.state in underway.OVER) or (bad and not had):
            self._console.news(underway.told(underway.of_verify(found)))


def came(pull: Pull) -> str:
    """What came of a pull that was to be deployed; "" where somebody said that it is not."""
    wanted = pull.deploy
    assert wanted is not None
    why = spoken(wanted.error) if wanted.error is not None else ""
    if wanted.state == "done":
        return f"{pull.name} is here and {wanted.spec.name} is being started: see screen 2"
    if wanted.state == "failed":
        return f"{wanted.spec.name} is not deployed, though its model is here: {why}"
    if pull.state in ("failed", "cancelled"):
        return f"Not deployed: the pull of {pull.name} was {pull.state}" + (
            f": {spoken(pull.error)}" if pull.error is not None else ""
        )
    return ""
