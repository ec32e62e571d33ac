"""Pulling models: from a hub or an address, over every cut, to files that are what they should be."""

from core.catalog.pull.service import Pulls

__all__ = ["Pulls"]
