"""What all runners share: the services that they call, and what they ask of the service that owns them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from core.access import Gate
from core.catalog import Catalog
from core.deployments.gatewaylink import GatewayLink
from core.engines.base import EngineRegistry
from core.nodes.base import Node
from core.nouns import Replica
from core.settings import Settings
from core.store import Store


class Yard:
    """Built once by `Deployments`; runners and their launches only read it."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        node: Node,
        engines: EngineRegistry,
        catalog: Catalog,
        link: GatewayLink,
        settings: Callable[[], Settings],
        clock: Callable[[], float],
        changed: Callable[[Replica], None],
        running: Callable[[], int],
        waits: Callable[[str], Awaitable[str]],
        keys: Path,
    ) -> None:
        self.store = store
        self.gate = gate
        self.node = node
        self.engines = engines
        self.catalog = catalog
        self.link = link
        self.settings = settings
        self.clock = clock
        self.changed = changed
        """Called after each change of a replica's view, or of its way: publishes it and sends the routes."""
        self.running = running
        """How many replicas run now."""
        self.waits = waits
        """Empty if this replica's plan fits now, else the sentence that says what is missing."""
        self.keys = keys
        """Folder with the keys of attached servers."""
