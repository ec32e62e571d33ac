"""Whether models fit this host: all that are stored and all in the curated list, at one moment."""

from __future__ import annotations

from core.nouns.base import Noun


class Fit(Noun, frozen=True, kw_only=True):
    """One model against the memory that is left. For one that is stored it is the version that its name means; of an
    entry in the catalogue the largest file that fits, else the smallest."""

    name: str
    stored: bool
    quantization: str
    bytes: int
    """Of its files."""
    plan_bytes: int
    """That a replica with its default context and one slot would reserve; 0: not known."""
    fits: bool
    entry: str = ""
    """The entry in the catalogue that a stored model is."""
    computed: bool = False
    """`bytes` follow from the shape, they were not read."""
    repack_bytes: int = 0
    """Of `plan_bytes`, the copy of the weights that the CPU's engine makes in its own order; quantisations differ."""
    state: str = ""
    """Of a stored one, as the model's: what is away, quarantined or missing is not started, whether it fits or not."""
    tier: str = ""
    """Where a stored one lies."""

    @property
    def there(self) -> bool:
        """It is not out of reach, nor lost; what is not stored can be pulled."""
        return self.state in ("", "stored")


class Fits(Noun, frozen=True, kw_only=True):
    """All of them against the same room."""

    room_bytes: int
    """That a new replica may take now."""
    models: tuple[Fit, ...]
