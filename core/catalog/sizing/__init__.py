"""Memory before launch, by formulas measured on real engines, and whether that fits: here and over GPUs.

`docs/sizing.md` derives the formulas from llama.cpp's source and shows them beside real engines.
"""

from core.catalog.sizing.devices import largest, split
from core.catalog.sizing.parts import (
    DEFAULT,
    MIB,
    N_UBATCH,
    PIECE,
    CacheType,
    default_ctx,
    full,
    human,
    pad256,
    parts,
    ready,
    reserved,
    resident,
)
from core.catalog.sizing.planning import Beside, Gpus, nearest, plan

__all__ = [
    "DEFAULT",
    "MIB",
    "N_UBATCH",
    "PIECE",
    "Beside",
    "CacheType",
    "Gpus",
    "default_ctx",
    "full",
    "human",
    "largest",
    "nearest",
    "pad256",
    "parts",
    "plan",
    "ready",
    "reserved",
    "resident",
    "split",
]
