"""Asks a hub what a repository has, in a process of its own: `python -P hubchild.py`, a question on its standard input.

huggingface_hub takes half a second and 60 MiB to be imported, and reads what a stranger wrote: neither stays in the
daemon. It knows no address but those that the daemon has checked, and no token but the one in the question, which
comes over a pipe. Standard library and huggingface_hub alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import ssl
import sys
from typing import Any

TIMEOUT_S = 30
FILES = 5000


def only(addresses: dict[str, list[str]]) -> None:
    """Let names mean what they were checked to mean, and nothing else."""

    def look(host: Any, port: Any, *rest: Any, **named: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "another host than the hub")
        found = []
        for each in addresses[name]:
            family = socket.AF_INET6 if ":" in each else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, int(port))))
        return found

    socket.getaddrinfo = look


def told(error: Exception) -> dict[str, Any]:
    """What went wrong, by its kind: what the library says of it may hold what was asked."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    for kind, which in (
        ("gated", errors.GatedRepoError), ("revision", errors.RevisionNotFoundError),
        ("missing", errors.RepositoryNotFoundError),
    ):  # fmt: skip
        if isinstance(error, which):
            return {"error": kind, "status": status}
    if status:
        wait = response.headers.get("Retry-After", "") if response is not None else ""
        return {"error": "status", "status": status, "wait": int(wait) if re.fullmatch(r"\d{1,5}", wait) else 0}
    return {"error": "unreached", "why": why(error)}


def why(error: BaseException) -> str:
    """Why a hub was not reached, by what lies below the library's own error, as a sentence."""
    chain: list[BaseException] = []
    below: BaseException | None = error
    while below is not None and len(chain) < 10:
        chain.append(below)
        below = below.__cause__ or below.__context__
    for kind, said in (
        (ssl.SSLCertVerificationError, "its certificate is not one that this host trusts"),
        (
            ssl.SSLError,
            "its address says https, and what answers breaks off TLS or speaks none: look at its port",
        ),
        (socket.gaierror, "its name is not known: is there a network, or a proxy to be named?"),
    ):
        if any(isinstance(each, kind) for each in chain):
            return said
    for each in reversed(chain):
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno)
    name = type(error).__name__
    if "Timeout" in name:
        return f"nothing came within {TIMEOUT_S} s"
    if "Proxy" in name:
        return "the proxy does not let it through"
    if "Protocol" in name or "Decode" in name:
        return "what it answers is not what a hub answers: is this a hub's address?"
    return f"huggingface-hub ends with {name}"


def listed(question: dict[str, Any]) -> dict[str, Any]:
    """What the hub has of the repository, with each file's size, hash and address."""
    from huggingface_hub import HfApi, hf_hub_url

    api = HfApi(endpoint=question["endpoint"], token=question["token"] or False, library_name="corral")
    found = api.model_info(
        question["repo"], revision=question["revision"] or None, files_metadata=True, timeout=TIMEOUT_S
    )
    card = found.card_data
    licence = getattr(card, "license", None)
    if licence == "other":
        licence = getattr(card, "license_name", None) or licence
    tensors = found.safetensors
    gguf = found.gguf if isinstance(found.gguf, dict) else {}
    config = found.config if isinstance(found.config, dict) else {}
    files = []
    for each in (found.siblings or [])[:FILES]:
        lfs = each.lfs
        files.append({
            "name": each.rfilename, "bytes": (lfs.size if lfs is not None else each.size) or 0,
            "sha256": lfs.sha256 if lfs is not None else "",
            "url": hf_hub_url(
                question["repo"], each.rfilename, revision=found.sha, endpoint=question["endpoint"]
            ),
        })  # fmt: skip
    return {
        "revision": found.sha or "", "gated": bool(found.gated), "private": bool(found.private),
        "licence": licence if isinstance(licence, str) else "", "files": files,
        "architecture": _text(gguf.get("architecture")) or _text((config.get("architectures") or [""])[0]),
        "params": _number(gguf.get("total")) or (_number(tensors.total) if tensors is not None else 0),
        "types": ", ".join(sorted(tensors.parameters)) if tensors is not None else "",
    }  # fmt: skip


def _text(value: Any) -> str:
    return value[:100] if isinstance(value, str) and value.isprintable() else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 60 else 0


def main() -> int:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with the daemon that asks
    question = json.load(sys.stdin)
    only(question["addresses"])
    try:
        answer = listed(question)
    except Exception as error:
        answer = told(error)
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
