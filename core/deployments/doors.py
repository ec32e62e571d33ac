"""The gateway's listeners for programs as the daemon sees them: what is wanted, what is wrong, and a record of each
that was opened, closed or given another certificate."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.access import Gate
from core.gateway import wire
from core.nouns import CORRAL, DoorStatus
from core.paths import Paths
from core.settings import GatewayTable
from core.store import Store

SOON_S = 14 * 86400.0
"""So long before its end a certificate is warned of."""
VERB = "gateway.listens"


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


class DoorRecords:
    """Records what listens, whenever that is something else than what was recorded last: over restarts of the daemon
    and of the gateway too."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._last: list[dict[str, Any]] | None = None

    async def told(self, live: wire.Live) -> None:
        """The gateway says how it is. Raises `StoreError`."""
        if live.doors is None:
            return
        now = [{"url": each.url, "certificate": each.fingerprint} for each in live.doors if each.url]
        if self._last is None:
            self._last = await self._store.read(_recorded)
        if now != self._last:
            await self._gate.record(
                CORRAL, VERB, "gateway:local", f"n-{live.requests}", "done", before=self._last, after=now
            )  # fmt: skip
            self._last = now


def _recorded(db: sqlite3.Connection) -> list[dict[str, Any]]:
    row = db.execute("SELECT after FROM audit WHERE verb = ? ORDER BY seq DESC LIMIT 1", (VERB,)).fetchone()
    return list(msgspec.json.decode(row[0])) if row and row[0] else []
