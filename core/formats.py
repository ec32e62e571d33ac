"""What a file is that is no GGUF, and why nothing else is taken: by its name and by how it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
SAFETENSORS = ".safetensors"
MAGIC = b"GGUF"
PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How pickles begin."""
HEAD = 64
"""Bytes of a file's begin that are looked at."""
ANOTHER = "get a GGUF of this model: `corral models pull hf:ORG/REPO --list` shows which a repository has"


class Refused(NamedTuple):
    """Why, and what to do."""

    why: str
    todo: str


_PICKLE = Refused("it is a pickle, or may be: reading one runs whatever code it holds; GGUF is taken alone", ANOTHER)
_SAFETENSORS = Refused(
    "it holds safetensors, which no engine that Corral starts reads; GGUF is taken alone",
    f"{ANOTHER}; or attach the server that runs it: `corral deploy NAME --url URL`",
)


def no_gguf(name: str, head: bytes) -> Refused | None:
    """Of a file by its name and first bytes; None for one that begins as a GGUF, or as nothing that is known."""
    lower = name.lower()
    if head.startswith(MAGIC):
        return None
    if lower.endswith(SAFETENSORS) or head[8:9] == b"{":
        return _SAFETENSORS
    if lower.endswith(PICKLES) or head.startswith(b"PK\x03\x04") or (head[:2] in PROTOCOLS):
        return _PICKLE
    if head.startswith(b"version https://git-lfs"):
        return Refused("it is a pointer to the file, and not the file", "fetch it: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return Refused("it is a web page", "download the file itself, not its page")
    return None


def others(names: Iterable[str]) -> str:
    """What of a folder's files may be weights, and is not taken: `3 .safetensors, 1 .bin`; "" for nothing."""
    kinds = (PurePath(name).suffix.lower() for name in names)
    found = Counter(each for each in kinds if each in (*PICKLES, SAFETENSORS))
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
