"""The database: open, migrate, transact. One writer, one transaction at a time; nobody else opens the file."""

from core.store.database import PACKAGES, Store

__all__ = ["PACKAGES", "Store"]
