"""Makes the certificate of the gateway's listeners: signed by its own key, for the names and addresses of this host."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

from core.access import Gate
from core.deployments.ending import of_ours
from core.errors import Conflict, CorralError, Failed, Invalid
from core.nouns import Actor, GatewayCertificate
from core.paths import Paths

DAYS = 3650
NAMES = 100
FULL_NAME_S = 5.0
"""How long a name server may take to say this host's full name."""
_NAME = re.compile(r"(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}"
                   r"[A-Za-z0-9])?")  # fmt: skip
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Made(NamedTuple):
    """PEM texts, and what is said of them."""

    certificate: bytes
    key: bytes
    fingerprint: str
    until: float


class Certificates:
    """Writes them where the gateway looks when corral.toml names no others; it takes them up by itself."""

    def __init__(self, gate: Gate, paths: Paths, gateway_uid: int | None) -> None:
        self._gate = gate
        self._paths = paths
        self._uid = gateway_uid

    async def make(
        self, actor: Actor, request: str, names: Sequence[str], days: int, *, replace: bool
    ) -> GatewayCertificate:
        """One for `days`, for this host and for `names` too. Raises `Invalid`, `Conflict` where there is one and not
        `replace`, `Failed`."""
        if not 1 <= days <= DAYS:
            raise Invalid(f"a certificate for {days} days", f"it may be 1 to {DAYS}")
        if len(names) > NAMES:
            raise Invalid(f"{len(names)} names are more than {NAMES}")
        hosts, addresses = parted((*await _own_names(), *names))
        certificate, key = self._paths.gateway_certificate, self._paths.gateway_key  # a key alone is of no use
        effect = await self._gate.intent(actor, "gateway.certificate", "gateway:local", request)
        try:
            if not replace and certificate.exists():
                raise Conflict(
                    f"there is a certificate: {certificate}", "clients may trust it", "--force makes another one"
                )
            made = await asyncio.to_thread(make, hosts, addresses, days)
            await asyncio.to_thread(self._write, made)
        except Exception as error:
            reason = str(error) if isinstance(error, CorralError) else of_ours(error)
            await self._gate.outcome(effect, "failed", reason=reason)
            raise
        told = (*hosts, *map(str, addresses))
        after = {"fingerprint": made.fingerprint, "names": told, "until": made.until}
        await self._gate.outcome(effect, "done", after=after)
        return GatewayCertificate(
            certificate=str(certificate), key=str(key), fingerprint=made.fingerprint, names=told, until=made.until
        )

    def _write(self, made: Made) -> None:
        try:
            _put(self._paths.gateway_key, made.key, 0o600, self._uid)
            _put(self._paths.gateway_certificate, made.certificate, 0o644, self._uid)
        except OSError as error:
            raise Failed(
                f"the certificate cannot be written to {self._paths.state}", error.strerror or str(error),
                "mend the folder and try again with --force",
            ) from error  # fmt: skip


async def _own_names() -> list[str]:
    """Without the one that only a name server knows, if that does not say it in time."""
    try:
        async with asyncio.timeout(FULL_NAME_S):
            full = await asyncio.to_thread(socket.getfqdn)
    except TimeoutError:
        full = socket.gethostname()
    return own_names(full)


def own_names(full: str) -> list[str]:
    """What this host is called: its names (`full` with its domain), and its addresses but those of one link."""
    found = ["localhost", socket.gethostname(), full]
    for interface in psutil.net_if_addrs().values():
        for each in interface:
            if each.family in (socket.AF_INET, socket.AF_INET6) and "%" not in each.address:
                found.append(each.address)
    return [each for each in dict.fromkeys(found) if _is_address(each) or _NAME.fullmatch(each)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parted(names: Iterable[str]) -> tuple[list[str], list[Address]]:
    """Host names and addresses, each once. Raises `Invalid` for what is neither."""
    hosts: dict[str, None] = {}
    addresses: dict[Address, None] = {ipaddress.ip_address("127.0.0.1"): None, ipaddress.ip_address("::1"): None}
    for each in names:
        if _is_address(each):
            addresses[ipaddress.ip_address(each)] = None
        elif _NAME.fullmatch(each) and len(each) <= 253:
            hosts[each.lower()] = None
        else:
            raise Invalid(f"{each[:80]!r} is no name of a host and no address", "clients compare it with what they ask")
    return list(hosts), list(addresses)


def make(hosts: Sequence[str], addresses: Sequence[Address], days: int) -> Made:
    """A key and a certificate that it signs. It is no CA: whoever trusts it trusts this host and nothing else."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())  # every client has it
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[-1][:64])])
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(days=days)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # a client's clock may be behind
        .not_valid_after(until)
        .add_extension(
            x509.SubjectAlternativeName([*map(x509.DNSName, hosts), *map(x509.IPAddress, addresses)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Made(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.fingerprint(hashes.SHA256()).hex(),
        until.timestamp(),
    )


def _put(path: Path, text: bytes, mode: int, uid: int | None) -> None:
    """Write beside and rename: whoever reads it finds the old one or the new one, whole. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
            if uid is not None:
                os.fchown(fd, uid, -1)
            os.fchmod(fd, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
