"""Keys of attached servers: one file a server beside corral.toml, so that none is in argv, database or audit trail.

The file is named after host and port and not by who deploys: nobody can have a key sent to another server.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from core.errors import Invalid

KEY_BYTES = 8192
_KEY = re.compile(r"[\x21-\x7e]+")
"""What fits a header: no blank, no line end."""


def key_file(folder: Path, host: str, port: int, tls: bool) -> Path:
    """`folder`/host, or `folder`/host:port where the port is not the scheme's own."""
    return folder / (host if port == (443 if tls else 80) else f"{host}:{port}")


def read_key(file: Path) -> str:
    """The key in `file`, "" without one. Raises `Invalid` for what is no key, or may be read by others."""
    try:
        # never waiting for a pipe's other end, and never through a link, which somebody else may turn
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Invalid(f"the key in {file} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"{file} is no file and holds no key")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Invalid(f"the key in {file} may be read by others: chmod 600, and the daemon's own user as owner")
        text = os.read(fd, KEY_BYTES + 1).decode("latin-1").strip()
    except OSError as error:
        raise Invalid(f"the key in {file} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(text) > KEY_BYTES or not _KEY.fullmatch(text):
        raise Invalid(f"{file} holds no key: it is one line without blanks")
    return text
