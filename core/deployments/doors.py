"""The gateway's listeners for programs as the daemon sees them: what is wanted, what is wrong, and a record of each
that was opened, closed or given another certificate."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from core.access import Gate
from core.gateway import wire
from core.nouns import CORRAL, DoorStatus
from core.paths import Paths
from core.settings import GatewayTable
from core.store import Store

SOON_S = 14 * 86400.0
"""So long before its end a certificate is warned of."""
MOVED_S = 7 * 86400.0
"""So long it is said that programs find the gateway elsewhere than before."""
LOOKED = 20
"""Records that are looked through for where it was before: between two there may be some of an address that was closed
for a moment."""
VERB = "gateway.listens"

log = logging.getLogger(__name__)


def for_the_one_before(table: GatewayTable) -> str:
    """What a gateway of one release back is told, which knows one address, on loopback and without TLS."""
    found = [each.address for each in table.listens() if not each.tls and each.address.startswith(("127.", "[::1]"))]
    return found[0] if found else ""


def files_of(table: GatewayTable, paths: Paths) -> wire.Files:
    """Where the certificate lies."""
    certificate = Path(table.certificate).expanduser() if table.certificate else paths.gateway_certificate
    key = Path(table.certificate_key).expanduser() if table.certificate_key else paths.gateway_key
    return wire.Files(str(certificate), str(certificate if table.certificate and not table.certificate_key else key))


def statuses(live: wire.Live | None) -> tuple[DoorStatus, ...]:
    """What the gateway last said of its listeners."""
    return (
        tuple(msgspec.convert(each, DoorStatus, from_attributes=True) for each in live.doors)
        if live and live.doors
        else ()
    )


def door_warnings(doors: tuple[DoorStatus, ...], now: float) -> list[str]:
    """Sentences that must be seen."""
    found = []
    for door in doors:
        if door.trouble and door.url:
            found.append(f"{door.url} goes on with the certificate that it has: {door.trouble}")
        elif door.trouble:
            found.append(f"programs cannot reach the gateway on {door.address}: {door.trouble}")
        elif door.until is not None and door.until - now < SOON_S:
            day = datetime.fromtimestamp(door.until, UTC).date().isoformat()
            found.append(f"the certificate of {door.url} ends on {day}: make or order the next one")
    return found


class Moved(NamedTuple):
    """Where programs find the gateway since `at` (epoch seconds), and where they do not any more."""

    at: float
    now: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def words(self) -> str:
        since = datetime.fromtimestamp(self.at).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        return (
            f"programs find the gateway at {', '.join(self.now)} since {since}, and no more at {', '.join(self.gone)}:"
            " tell those who use it"
        )


class DoorRecords:
    """Records what listens, whenever that is something else than what was recorded last: over restarts of the daemon
    and of the gateway too."""

    def __init__(self, store: Store, gate: Gate, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._gate = gate
        self._clock = clock
        self._last: list[dict[str, Any]] | None = None
        self._moved: Moved | None = None
        self.on_moved: list[Callable[[str], object]] = []
        """Told, in words, that programs find it elsewhere from now on."""

    def troubles(self) -> list[str]:
        """That it has moved, for a while."""
        moved = self._moved
        return [moved.words] if moved is not None and self._clock() < moved.at + MOVED_S else []

    async def told(self, live: wire.Live) -> None:
        """The gateway says how it is. Raises `StoreError`."""
        if live.doors is None:
            return
        now = [{"url": each.url, "certificate": each.fingerprint} for each in live.doors if each.url]
        if self._last is None:
            recorded = await self._store.read(_recorded)
            self._last = recorded[0][1] if recorded else []
            self._moved = _moved(recorded)
        if now != self._last:
            await self._gate.record(
                CORRAL, VERB, "gateway:local", f"n-{live.requests}", "done", before=self._last, after=now
            )  # fmt: skip
            self._last = now
            before, self._moved = self._moved, _moved(await self._store.read(_recorded))
            if self._moved is not None and self._moved != before:
                log.warning("%s", self._moved.words)
                for tell in self.on_moved:
                    tell(self._moved.words)


def _recorded(db: sqlite3.Connection) -> list[tuple[float, list[dict[str, Any]]]]:
    """When it was recorded (epoch seconds) and what, the newest first."""
    rows = db.execute("SELECT time, after FROM audit WHERE verb = ? ORDER BY seq DESC LIMIT ?", (VERB, LOOKED))
    return [(datetime.fromisoformat(at).timestamp(), list(msgspec.json.decode(after or b"[]"))) for at, after in rows]


def _moved(recorded: Iterable[tuple[float, list[dict[str, Any]]]]) -> Moved | None:
    """What the records tell, the newest first: None where nothing that was open is closed now. Nothing at all was open
    while it restarted, or had a trouble that is told by itself."""
    since, now = 0.0, ()
    for at, doors in recorded:
        urls = tuple(each["url"] for each in doors)
        if not urls:
            continue
        if not now or set(urls) == set(now):
            since, now = at, urls
        elif gone := tuple(each for each in urls if each not in now):
            return Moved(since, now, gone)
        else:
            return None
    return None
