"""Ed25519 keys: made, loaded from a file that nobody else can read, used. `cryptography` is imported where it is used:
100 ms and 10 MiB that no other verb should pay."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "ed25519:"
_PUBLIC = re.compile(PREFIX + r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
FILE_LIMIT = 8192
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
"""How a path in corral.toml names a credential of systemd."""


def is_public(text: str) -> bool:
    """Whether `text` is a public key as Corral writes it: `ed25519:` and 64 hex digits. One key has one text."""
    return _PUBLIC.fullmatch(text) is not None


def key_id(public: str) -> str:
    """The short name of a public key: 16 hex digits of the SHA-256 over its 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public.removeprefix(PREFIX))).hexdigest()[:16]


def signed_by(public: str, signature: str, message: bytes) -> bool:
    """Whether `signature` (128 lower-case hex digits) over `message` was made with the private half of `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not is_public(public) or not _SIGNATURE.fullmatch(signature):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public.removeprefix(PREFIX)))
        key.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


class Signs(Protocol):
    """What makes signatures: a private key that is here, or one that an agent holds."""

    @property
    def public(self) -> str: ...

    @property
    def id(self) -> str: ...

    def sign(self, message: bytes) -> str:
        """128 hex digits. Blocks. Raises `Failed` if no signature can be had now."""
        ...


class SigningKey:
    """A private key, and its public half as text (`public`, `id`)."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._private = private
        self.public = PREFIX + private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"  # never the private half

    @classmethod
    def make(cls) -> SigningKey:
        """A new one, from the kernel's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> str:
        """128 hex digits."""
        return self._private.sign(message).hex()

    def save(self, path: Path) -> None:
        """Write it (PEM, PKCS #8, mode 0600) and flush file and folder. Raises OSError, also if the file is there."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        text = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """fsync a folder. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def place_of(text: str, environ: Mapping[str, str]) -> Path:
    """The path that corral.toml names, with a credential of systemd in its folder. Raises `Invalid`."""
    if text.startswith(CREDENTIALS):
        folder = environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            raise Invalid(
                f"{text} is not there", "systemd gave this daemon no credentials",
                "put LoadCredential= into the unit (docs/audit.md), or name another file",
            )  # fmt: skip
        return Path(folder) / text.removeprefix(CREDENTIALS)
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise Invalid(f"{text} is no full path", "the daemon works in the folder /", "write it from / on")
    return path


def load(path: Path, environ: Mapping[str, str]) -> SigningKey:
    """The private key in `path`. Raises `Invalid` with a sentence for what is no key, or may be read by others; a file
    that is not there has `FileNotFoundError` as its cause."""
    text = read_private(path, environ, "signing key", "whoever reads it signs what he likes")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    todo = "`openssl genpkey -algorithm ed25519` makes one"
    try:
        private = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{path} holds no key", "it is no private key in PEM without a passphrase", todo) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise Invalid(f"{path} holds a key of another kind", "the trail is signed with Ed25519", todo)
    return SigningKey(private)


def read_private(path: Path, environ: Mapping[str, str], what: str, danger: str) -> bytes:
    """The text of a small file that nobody else may read: no link, no pipe, ours or root's. Raises `Invalid`: `what` it
    is and which `danger` there is are said."""
    try:
        # never waiting for a pipe's other end, and never through a link, which somebody else may turn
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror or str(error)
        raise Invalid(f"the {what} {path} cannot be read", why, "mend the file, or name another one") from error
    try:
        _refuse_foreign(path, os.fstat(fd), environ, what, danger)
        text = os.read(fd, FILE_LIMIT + 1)
    except OSError as error:
        raise Invalid(f"the {what} {path} cannot be read", error.strerror or str(error)) from error
    finally:
        os.close(fd)
    if len(text) > FILE_LIMIT:
        raise Invalid(f"{path} holds no key", f"it is over {FILE_LIMIT} bytes")
    return text


def _refuse_foreign(path: Path, found: os.stat_result, environ: Mapping[str, str], what: str, danger: str) -> None:
    """systemd gives a credential to a user other than root by an access list, which shows as the group's right."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    credential = bool(folder) and path.parent == Path(folder) and found.st_uid == 0
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(f"{path} is no file", "it is a folder, a pipe or a device", f"name the file of the {what}")
    if found.st_uid not in (0, os.geteuid()):
        raise Invalid(
            f"the {what} {path} belongs to uid {found.st_uid}", "he knows it, or could put another one there",
            f"make a new one, as uid {os.geteuid()}",
        )  # fmt: skip
    if found.st_mode & (0o037 if credential else 0o077):
        raise Invalid(
            f"the {what} {path} may be read by others (mode {stat.S_IMODE(found.st_mode):04o})",
            danger, f"chmod 600 {path}; if somebody did read it, make a new one",
        )  # fmt: skip
