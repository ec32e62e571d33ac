"""What a console sees to whichever of its screens is in front: a pull that is deployed when it is here, a verification
that goes on. What comes of them is told where one is then."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from core.errors import CorralError, NotFound
from core.nouns import PULL_ENDED, DeploymentSpec, Event, Pull, Verified
from tui import underway
from tui.plain import line
from tui.spoken import spoken
from tui.state import Errand, State

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

    def deploy_when_here(self, pull: Pull, spec: DeploymentSpec) -> None:
        """Deploy what a pull makes, when it is over."""
        self._console.state.errands[pull.id] = Errand(spec)
        self._console.state.pulls[pull.id] = pull
        self._mind()

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
        for id, errand in known.errands.items():
            pull = known.pulls.get(id)
            if errand.state == "waits" and (pull is None or pull.state in PULL_ENDED):
                known.errands[id] = msgspec.structs.replace(errand, state="deploying")
                self._console.run_worker(self._end(id), group=f"errand {id}", exclusive=True, exit_on_error=True)

    async def _end(self, id: str) -> None:
        errand, client = self._console.state.errands[id], self._console.client
        try:
            pull: Pull = self._console.state.pulls.get(id) or await client.pulls.get(id)
            if pull.state not in PULL_ENDED:
                self._set(id, "waits", "")
                return
            if pull.state != "done" or pull.model is None:
                why = f": {spoken(pull.error)}" if pull.error is not None else ""
                self._set(id, "failed", f"Not deployed: the pull of {pull.name} was {pull.state}{why}")
                return
            model = pull.model.name if "live" in pull.model.aliases else pull.model.reference
            made = await client.deploy(msgspec.structs.replace(errand.spec, model=model))
        except NotFound as error:
            self._set(id, "failed", f"Not deployed: {spoken(error)}")
        except CorralError as error:
            self._set(id, "failed", f"{errand.spec.name} is not deployed, though its model is here: {spoken(error)}")
        except (*LOST, AttributeError):  # no daemon now: it is tried again with the next picture
            self._set(id, "waits", "")
        else:
            self._set(id, "done", f"{pull.name} is here and {made.spec.name} is being started: see screen 2")

    def _set(self, id: str, state: str, words: str) -> None:
        known = self._console.state
        known.errands[id] = msgspec.structs.replace(known.errands[id], state=state, why=words)
        self._console.told("pull")
        if words:
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
        bad = any(not each.healed for each in (*found.rotten, *found.missing))
        seen = before is not None and before.started_at == found.started_at
        was = before.state if before is not None and seen else "hashing"
        had = bool(seen and before is not None and (before.rotten or before.missing))
        if (found.state != was and found.state in underway.OVER) or (bad and not had):
            self._console.news(underway.told(underway.of_verify(found)))
