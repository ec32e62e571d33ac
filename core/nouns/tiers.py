"""Tiers: the folders that models are stored in, how fast they are read, and moves between them."""

from __future__ import annotations

from core.errors import ErrorBody
from core.nouns.base import Noun

HOME = "home"
"""The built-in tier, beside the database."""


class Tier(Noun, frozen=True, kw_only=True):
    """A folder for models, with its rules and what lies in it. Sizes are bytes, speeds bytes a second."""

    name: str
    path: str
    state: str
    """there, read-only, away (what it is mounted from is not there)."""
    reason: str = ""
    """Why it is in that state; empty when it is there."""
    capacity: int = 0
    """What may be stored there at most; 0: what its disk has room for. It may be more than the disk has."""
    landing: bool = False
    """New models land here."""
    spill: str = ""
    """The tier that takes what has no room here; empty: it is refused."""
    demote_days: float = 0.0
    """A model that was not launched for so long is moved to `demote_to`; 0: none is."""
    demote_to: str = ""
    objects: int = 0
    """Files, or folders of split models, that are stored there."""
    stored_bytes: int = 0
    reserved_bytes: int = 0
    """What imports and moves on their way have been promised."""
    aside_bytes: int = 0
    """What was set aside because it had rotted, and what belongs to another database."""
    free_bytes: int = 0
    """What it still takes: by its capacity, and by its disk."""
    bound: str = ""
    """Which of the two that is: capacity, disk; empty where it takes nothing, being away or read-only."""
    disk_free: int = 0
    disk_bytes: int = 0
    """All that its disk has, free or not; 0 while it is away."""
    memory: bool = False
    """It lies in memory (tmpfs, ramfs): nothing there is past the page cache."""
    cold: float | None = None
    """Reading speed past the page cache; None: not measured, or in memory."""
    warm: float | None = None
    """From the page cache."""
    measured_at: float | None = None
    demoted_at: float | None = None
    """When it was last looked for what is unused."""
    added_at: float = 0.0
    added_by: str = ""

    @property
    def over(self) -> bool:
        """Its capacity is more than its disk has in all."""
        return 0 < self.disk_bytes < self.capacity


class LoadTime(Noun, frozen=True, kw_only=True):
    """How long a version takes to load from a tier (seconds): expected from the tier's reading speed alone, and as the
    last launch from there was measured, from the engine's start until it was ready."""

    tier: str
    here: bool
    """The version lies there now."""
    bytes: int
    cold_s: float | None = None
    """Expected past the page cache; None: the tier was not measured, or lies in memory."""
    warm_s: float | None = None
    """Expected from the page cache."""
    measured_s: float | None = None
    measured_cached: float | None = None
    """What part of it was in the page cache when that launch began, 0 to 1; None: not known."""
    measured_at: float | None = None


class TierModel(Noun, frozen=True, kw_only=True):
    """A version that lies in a tier."""

    reference: str
    bytes: int
    used_at: float | None
    """The last launch of any version that is made of its object; None: none yet."""
    load: LoadTime


class TierDetail(Noun, frozen=True, kw_only=True):
    """A tier and the versions in it that the asker sees."""

    tier: Tier
    models: tuple[TierModel, ...]


class TierFault(Noun, frozen=True, kw_only=True):
    """One thing that is not as it should be. `what`: away, read-only, owner, mode, engines (they cannot read it),
    missing, size, stray, full."""

    what: str
    path: str
    words: str


class TierChecked(Noun, frozen=True, kw_only=True):
    """What `tiers check` found; `objects` and `bytes` are those that are as they should be."""

    tier: Tier
    faults: tuple[TierFault, ...]
    objects: int
    bytes: int
    aside_bytes: int = 0
    """What `verify` set aside there as rotten; `gc` removes it, once it was healed or after 30 days."""


class MoveJob(Noun, frozen=True, kw_only=True):
    """A move of a version from its tier to another; a job of the daemon. States: planned (only asked for), waiting,
    copying, verifying, freeing (the old copy, once nobody is about to open it), done, failed, cancelled."""

    id: str
    model: str
    """The version: `chat@3`."""
    from_tier: str
    to_tier: str
    asked: str
    """The tier that was asked for: another one than `to_tier` where that did not take it and spills."""
    state: str
    spilled: tuple[str, ...] = ()
    """Why it, and others on the way, did not take it: away, or full, with the figures."""
    touches: tuple[str, ...] = ()
    """Other versions that are made of the same bytes, and so go along."""
    beside: tuple[str, ...] = ()
    """What of the version is copied beside the model's own files: `projector eye.gguf`."""
    back: tuple[str, ...] = ()
    """Deployments that should not run now and need it in another tier: starting one of them moves it there."""
    bytes_done: int = 0
    """Of this state."""
    bytes_total: int = 0
    rate: float = 0.0
    """Bytes a second of late; 0: not known yet, or nothing is copied now."""
    left_bytes: int = 0
    """Of the old copies that stay where they were, until that tier takes changes."""
    by: str = ""
    why: str = ""
    """What caused a move that nobody asked for."""
    started_at: float = 0.0
    error: ErrorBody | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds that this state takes yet at this rate."""
        return (self.bytes_total - self.bytes_done) / self.rate if self.rate > 0 else None

    @property
    def name(self) -> str:
        """The model's, without the version."""
        return self.model.partition("@")[0]


class Demoted(Noun, frozen=True, kw_only=True):
    """What was moved out of a tier because nobody had launched it for long, or would be."""

    tier: str
    dry_run: bool
    moved: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    """With the reason: `chat@3: …`."""
