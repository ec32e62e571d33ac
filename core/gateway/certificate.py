"""The certificate of the listeners for programs: read, tried in memory, and read again when its files change."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from core.gateway.wire import Files

MOST = 1 << 20
"""Bytes of a file: a certificate with those between it and its CA has some thousands."""
HINT = "`corral gateway certificate` makes one"
_EXPIRED, _NOT_YET = 10, 9
"""What OpenSSL calls these."""


class Unfit(Exception):
    """The files cannot be used, in a sentence. Never holds anything of the key."""


class Certificate(msgspec.Struct, frozen=True):
    """One that works. `until` in epoch seconds; `names` are what clients may call us."""

    context: ssl.SSLContext
    fingerprint: str
    """SHA-256 over the certificate, 64 hex digits."""
    until: float
    names: tuple[str, ...]
    addresses: tuple[str, ...]


def load(certificate: Path, key: Path) -> Certificate:
    """Read the files, and shake hands with ourselves: that shows a key of another certificate, one that has expired and
    one that is for no server before any client does. Raises `Unfit`."""
    chain, private = _read(certificate, secret=False), _read(key, secret=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Out of memory: the files may be replaced between our look at them and OpenSSL's.
        with _held(chain) as chain_path, _held(private) as key_path:
            context.load_cert_chain(chain_path, key_path, password=_no_passphrase)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise Unfit(f"the key {key} is not that of the certificate {certificate}") from None
        raise Unfit(
            f"{certificate} and {key} are no certificate and key in PEM ({error.reason or 'garbled'})"
        ) from None
    except ValueError:
        raise Unfit(f"the key {key} has a passphrase, and nobody is here to type it: take it off") from None
    try:
        der = ssl.PEM_cert_to_DER_cert(_first(chain))
        told = _introduced(context, der)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            raise Unfit(f"the certificate {certificate} has expired: {HINT}") from None
        if error.verify_code == _NOT_YET:
            raise Unfit(f"the certificate {certificate} is not valid yet: is the clock right?") from None
        raise Unfit(f"the certificate {certificate} is not for a server: {error.verify_message}") from None
    except (ssl.SSLError, ValueError) as error:
        raise Unfit(f"the certificate {certificate} does not work: {error}") from None
    return Certificate(
        context=context,
        fingerprint=hashlib.sha256(der).hexdigest(),
        until=float(ssl.cert_time_to_seconds(told["notAfter"])),
        names=tuple(value for kind, value in told["subjectAltName"] if kind == "DNS"),
        addresses=tuple(
            str(ipaddress.ip_address(value.strip())) for kind, value in told["subjectAltName"] if kind == "IP Address"
        ),
    )


class Watched:
    """The certificate in two files, as they are now. `trouble` says why what they hold is not in use."""

    def __init__(self) -> None:
        self.current: Certificate | None = None
        self.trouble = ""
        self._files: Files | None = None
        self._seen: tuple[object, ...] = ()

    async def look(self, files: Files) -> bool:
        """Read them if they are others, or have changed; True if there is another certificate now. One that cannot be
        used leaves the one before it in use, as long as the files have the same names."""
        seen = await asyncio.to_thread(_identity, files)
        if files == self._files and seen == self._seen:
            return False
        if files != self._files:
            self.current = None
        self._files, self._seen = files, seen
        try:
            found = await asyncio.to_thread(load, Path(files.certificate), Path(files.key))
        except Unfit as error:
            self.trouble = str(error)
            self._seen = ()  # looked at again: a clock is set, a second file follows the first
            return False
        self.trouble = ""
        changed = self.current is None or self.current.fingerprint != found.fingerprint
        if changed:
            self.current = found
        return changed

    def forget(self) -> None:
        """No listener needs one."""
        self.current, self.trouble, self._files = None, "", None

    def expired(self, now: float) -> bool:
        """Whether clients refuse what is in use."""
        return self.current is not None and now >= self.current.until


def _identity(files: Files) -> tuple[object, ...]:
    found: list[object] = []
    for path in (files.certificate, files.key):
        try:
            at = Path(path).stat()
            found.append((at.st_dev, at.st_ino, at.st_mtime_ns, at.st_size, at.st_mode, at.st_uid))
        except OSError as error:
            found.append(error.errno)
    return tuple(found)


def _read(path: Path, *, secret: bool) -> bytes:
    what = "key" if secret else "certificate"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # never waiting for a pipe's other end
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Unfit(f"the {what} {path} is a folder, a pipe or a device")
            if secret:
                _refuse_shared(path, found)
            text = file.read(MOST + 1)
    except FileNotFoundError:
        raise Unfit(f"there is no {what} {path}: {HINT}") from None
    except OSError as error:
        closed = next((each for each in reversed(path.parents) if not os.access(each, os.X_OK)), None)
        why = f"the folder {closed} is closed to it" if closed else error.strerror
        raise Unfit(f"the {what} {path} cannot be read by uid {os.geteuid()}: {why}") from None
    if len(text) > MOST:
        raise Unfit(f"the {what} {path} is too large: is it the right file?")
    return text


def _refuse_shared(path: Path, found: os.stat_result) -> None:
    """PostgreSQL's rule: ours and 0600, or root's and 0640, whose group is then his choice."""
    if found.st_uid not in (0, os.geteuid()):
        raise Unfit(f"the key {path} belongs to uid {found.st_uid}: chown {os.geteuid()} {path}")
    group_reads = found.st_uid == 0 and os.geteuid() != 0
    if found.st_mode & (0o037 if group_reads else 0o077):
        mode = stat.S_IMODE(found.st_mode)
        raise Unfit(
            f"the key {path} may be read by others (mode {mode:04o}): chmod {'640' if group_reads else '600'} {path};"
            " if somebody did read it, make a new one"
        )


@contextmanager
def _held(text: bytes) -> Iterator[str]:
    """`text` as a file that is in memory alone."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, text)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _no_passphrase() -> str:
    raise ValueError  # else OpenSSL asks the terminal


def _first(chain: bytes) -> str:
    """The first certificate of a file. Raises ValueError."""
    text = chain.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.index(begin)
    return text[start : text.index(end, start) + len(end)]


def _introduced(server: ssl.SSLContext, der: bytes) -> dict[str, Any]:
    """What a client learns of the certificate that trusts it and nothing else. Raises ssl.SSLError."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=der)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there)
    for _ in range(10):  # three are enough
        waits = False
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waits = True
        if not waits:
            break
    return {"subjectAltName": (), **(theirs.getpeercert() or {})}
