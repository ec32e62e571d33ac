"""Storage tiers: folders with a capacity, moves between them, and how long models take to load from each."""

from core.catalog.tiers.demoting import Demoting
from core.catalog.tiers.ledger import Away, Ledger, Reservation
from core.catalog.tiers.loads import Loading, Loads
from core.catalog.tiers.moving import Moves
from core.catalog.tiers.rules import Rules
from core.catalog.tiers.service import Tiers

__all__ = ["Away", "Demoting", "Ledger", "Loading", "Loads", "Moves", "Reservation", "Rules", "Tiers"]
