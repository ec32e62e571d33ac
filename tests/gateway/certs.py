"""Certificates of our own for the gateway's tests, a free port, and a key to come with."""

from __future__ import annotations

import hashlib
import socket
import ssl
from pathlib import Path

from core.deployments.certificates import make, parted
from core.gateway import wire

SECRET = "corral_test"
KEY = wire.Key(id="k1", name="ci", hash=hashlib.sha256(SECRET.encode()).hexdigest(), owner="ann", uid=4242)


def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def write(folder: Path, certificate: bytes, key: bytes, mode: int = 0o600) -> wire.Files:
    files = wire.Files(str(folder / "c.crt"), str(folder / "c.key"))
    for path, text in ((files.certificate, certificate), (files.key, key)):
        new = Path(path + ".new")
        new.write_bytes(text)
        new.chmod(mode if path == files.key else 0o644)
        new.replace(path)
    return files


def issued(folder: Path, days: int = 30, names=("localhost",)) -> tuple[wire.Files, str]:
    """Files of a certificate of ours, and its fingerprint."""
    made = make(*parted(names), days)
    return write(folder, made.certificate, made.key), made.fingerprint


def trusting(files: wire.Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.certificate)
