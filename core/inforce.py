"""The settings and accounts in force: corral.toml is read again when one asks for it, and refused whole if wrong."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable

import msgspec

from core.access import Gate, accounts
from core.access.accounts import Accounts
from core.errors import Conflict, CorralError
from core.nouns import CORRAL, Actor, Subject
from core.paths import Paths
from core.settings import Settings, load

log = logging.getLogger("corral")


class InForce:
    """What holds now. `accounts` are those of a shared daemon, None elsewhere."""

    def __init__(self, paths: Paths, settings: Settings, accounts: Accounts | None) -> None:
        self.settings = settings
        self.accounts = accounts
        self.defaults = not paths.config.exists()
        """No corral.toml was there when it was last read."""
        self.hangup = asyncio.Event()
        """Set by SIGHUP."""
        self._paths = paths

    def first_admins(self) -> Subject | None:
        """Of a shared daemon: the group of corral.toml, if it is there."""
        if self.accounts is None or self.accounts.group_gid is None:
            return None
        return Subject(kind="group", name=self.accounts.group, id=self.accounts.group_gid)

    async def reload(self, gate: Gate, actor: Actor, request: str, follow: Callable[[], Awaitable[None]]) -> None:
        """Read corral.toml again; `follow` makes the services obey it. Raises `Invalid` and, for accounts that are not
        there or are others, `Failed` and `Conflict`: nothing changes."""
        found = await asyncio.to_thread(self._read)

        def work(db: sqlite3.Connection) -> tuple[tuple[Settings, Accounts | None], object, object]:
            if isinstance(found, CorralError):
                raise found
            return found, msgspec.to_builtins(self.settings), msgspec.to_builtins(found[0])

        readable = not isinstance(found, CorralError)
        defaults = readable and not await asyncio.to_thread(self._paths.config.exists)
        self.settings, new = await gate.act(actor, "daemon.reload", "daemon:local", request, work)
        if new is not None:
            self.accounts = new
        self.defaults = defaults
        await follow()
        log.info("%s", "the defaults are in force" if defaults else f"{self._paths.config} is in force")

    async def run(self, gate: Gate, follow: Callable[[], Awaitable[None]]) -> None:
        """Reload at each SIGHUP."""
        while True:
            await self.hangup.wait()
            self.hangup.clear()
            try:
                await self.reload(gate, CORRAL, f"hup-{secrets.token_hex(4)}", follow)
            except CorralError as error:
                log.error("corral.toml was refused whole: %s", error)

    def _read(self) -> tuple[Settings, Accounts | None] | CorralError:
        try:
            settings = load(self._paths.config)
            if self.accounts is None:
                return settings, None
            found = accounts.find(settings.daemon)
            if (found.gateway.uid, found.engine.uid) != (self.accounts.gateway.uid, self.accounts.engine.uid):
                return Conflict(
                    "the accounts of gateway and engines are fixed while the daemon runs",
                    "what runs and its folders belong to them", "`systemctl restart corral` takes the new ones",
                )  # fmt: skip
            return settings, found
        except CorralError as error:
            return error
