"""What every noun is."""

from __future__ import annotations

import msgspec


class Noun(msgspec.Struct, frozen=True):
    """Base of the nouns: immutable, built by keyword, compared by value."""
