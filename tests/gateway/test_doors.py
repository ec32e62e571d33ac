"""The listeners for programs: several addresses, TLS, and certificates that are replaced under running streams."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certs import KEY, SECRET, issued, port, trusting, write
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.gateway import wire
from core.gateway.certificate import Unfit, load
from core.gateway.certificate import _refuse_shared as refuse_shared
from core.gateway.crowd import place
from core.gateway.doors import Kept
from core.listen import Listen, listens

ASK = {"model": "chat", "stream": True}


def odd(folder: Path, *, begins: int = -9, ends: int = 9, usage=ExtendedKeyUsageOID.SERVER_AUTH, **how) -> wire.Files:
    """Files of a certificate that may be wrong in some way; `begins` and `ends` in days from now."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now + timedelta(days=begins)).not_valid_after(now + timedelta(days=ends))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    lock = BestAvailableEncryption(b"secret") if how.get("locked") else NoEncryption()
    if how.get("other"):
        key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    return write(folder, certificate.public_bytes(Encoding.PEM), text)


def request(fields: dict | None, headers: str = "", path: str = "/v1/chat/completions", secret: str = SECRET) -> bytes:
    head = f"{'POST' if fields is not None else 'GET'} {path} HTTP/1.1\r\nHost: x\r\n{headers}"
    head += f"Authorization: Bearer {secret}\r\n" if secret else ""
    body = json.dumps(fields).encode() if fields is not None else b""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.asynccontextmanager
async def connected(live: wire.DoorLive | wire.Live, context: ssl.SSLContext | None, host: str = "127.0.0.1"):
    url = live.url if isinstance(live, wire.DoorLive) else live.listens
    reader, writer = await asyncio.open_connection(
        host, int(url.rpartition(":")[2]), ssl=context, server_hostname="127.0.0.1" if context else None
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asked(live, context, data: bytes) -> bytes:
    async with connected(live, context) as (reader, writer), asyncio.timeout(10):
        writer.write(data.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
        return await reader.read()


async def test_a_key_is_taken_over_tls_and_plain_text_there_is_not(gateway, stub, tmp_path):
    files, fingerprint = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    (door,) = live.doors
    assert door.url.startswith("https://127.0.0.1:") and live.listens == door.url
    assert (door.fingerprint, door.trouble) == (fingerprint, "")
    answer = await asked(live, trusting(files), request(ASK))
    assert b" 200 " in answer and b"[DONE]" in answer
    assert b" 401 " in await asked(live, trusting(files), request(ASK, secret=""))
    with pytest.raises((ssl.SSLError, OSError)):
        async with connected(live, ssl.create_default_context()):
            pass
    answer = await asked(live, None, request(ASK))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"this port speaks TLS, and plain HTTP came" in answer
    told = await gateway.told(lambda live: live.doors[0].failed >= 2)
    assert told.doors[0].trouble == ""
    assert b" 200 " in await asked(live, trusting(files), request(ASK))


@pytest.mark.parametrize("sent", [b"P", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"POST " + b"a" * 3_000_000])
async def test_who_speaks_plain_http_to_tls_reads_why_though_he_still_sends(gateway, stub, tmp_path, sent):
    files, _ = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    async with connected(live, None) as (reader, writer), asyncio.timeout(10):
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 400 " in head and b"Connection: close" in head
        body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        assert "say https:// in the URL" in json.loads(body)["error"]["message"] and await reader.read() == b""
    assert (await gateway.told(lambda live: live.doors[0].failed)).doors[0].failed == 1
    assert b" 200 " in await asked(live, trusting(files), request(ASK))


async def test_no_protocol_older_than_tls_1_2(gateway, stub, tmp_path):
    files, _ = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    old = trusting(files)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with connected(live, old):
            pass
    just = trusting(files)
    just.maximum_version = ssl.TLSVersion.TLSv1_2
    assert b" 200 " in await asked(live, just, request(ASK))


async def test_several_addresses_at_once_each_on_a_port_of_its_own(gateway, stub, tmp_path):
    files, _ = issued(tmp_path)
    doors = (Listen(f"127.0.0.1:{port()}"), Listen(f"127.0.0.2:{port()}"), Listen(f"0.0.0.0:{port()}", True))
    live = await gateway.route(stub, keys=[KEY], doors=doors, files=files)
    assert [each.address for each in live.doors] == [each.address for each in doors]
    assert live.listens == live.doors[0].url
    assert live.doors[2].url.startswith("https://localhost:"), "a name of the certificate, for one on this host"
    for each, host in zip(live.doors, ("127.0.0.1", "127.0.0.2", "127.0.0.1"), strict=True):
        async with connected(each, trusting(files) if each.tls else None, host) as (reader, writer):
            writer.write(request(None, path="/healthz", secret=""))
            async with asyncio.timeout(10):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    live = await gateway.route(stub, keys=[KEY], doors=doors[1:], files=files)
    assert len(live.doors) == 2
    with pytest.raises(OSError):
        async with connected(wire.DoorLive(address="", url=f"http://{doors[0].address}"), None):
            pass


async def test_another_certificate_is_taken_up_and_cuts_no_stream(gateway, stub, tmp_path):
    files, first = issued(tmp_path)
    before = trusting(files)
    stub.hold.clear()
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files, slots=4)
    async with connected(live, before) as (reader, writer), asyncio.timeout(20):
        writer.write(request(ASK))
        await reader.readuntil(b'"0"')
        _, second = issued(tmp_path)
        assert second != first
        told = await gateway.told(lambda live: live.doors[0].fingerprint == second)
        assert told.doors[0].trouble == ""
        with pytest.raises(ssl.SSLError):
            async with connected(live, before):
                pass
        stub.hold.set()
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
        assert b" 200 " in await asked(live, trusting(files), request(ASK))


async def test_a_file_that_is_spoilt_leaves_the_certificate_that_is_in_use(gateway, stub, tmp_path):
    files, fingerprint = issued(tmp_path)
    context = trusting(files)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    Path(files.key).chmod(0o644)
    told = await gateway.told(lambda live: live.doors[0].trouble)
    assert "may be read by others (mode 0644): chmod 600" in told.doors[0].trouble
    assert told.doors[0].fingerprint == fingerprint and told.doors[0].url
    assert b" 200 " in await asked(live, context, request(ASK))
    Path(files.key).chmod(0o600)
    await gateway.told(lambda live: not live.doors[0].trouble)


async def test_without_a_certificate_it_is_closed_until_there_is_one(gateway, stub, tmp_path):
    nowhere = wire.Files(str(tmp_path / "c.crt"), str(tmp_path / "c.key"))
    doors = (Listen(f"127.0.0.1:{port()}", True), Listen(f"127.0.0.1:{port()}"))
    live = await gateway.route(stub, keys=[KEY], doors=doors, files=nowhere)
    closed, plain = live.doors
    assert closed.url == "" and "there is no certificate" in closed.trouble and plain.url
    assert live.listens == plain.url and "there is no certificate" in live.trouble
    with pytest.raises(OSError):
        async with connected(wire.DoorLive(address="", url=f"https://{doors[0].address}"), None):
            pass
    files, _ = issued(tmp_path)
    live = await gateway.told(lambda live: live.doors[0].url)
    assert b" 200 " in await asked(live.doors[0], trusting(files), request(ASK))


async def test_tls_goes_on_at_the_gateway_that_follows(gateway, second, stub, tmp_path):
    files, fingerprint = issued(tmp_path)
    doors = (Listen(f"127.0.0.1:{port()}", True), Listen(f"127.0.0.1:{port()}"))
    stub.hold.clear()
    live = await gateway.route(stub, keys=[KEY], doors=doors, files=files, slots=4)
    context = trusting(files)
    async with connected(live, context) as (reader, writer), asyncio.timeout(20):
        writer.write(request(ASK))
        await reader.readuntil(b'"0"')
        waiting = gateway.folder / "next-launch0002.sock"
        while not waiting.exists():
            await asyncio.sleep(0.01)
        gateway.send(wire.HandOver(socket=str(waiting)))
        report = await gateway.expect(wire.Report)
        assert report.ok, report.reason
        await second.connect()
        for each, with_tls in zip(live.doors, (context, None), strict=True):
            assert b'{"status":"ok"}' in await asked(each, with_tls, request(None, path="/healthz", secret=""))
        told = await second.told(lambda live: live.doors)
        assert [each.url for each in told.doors] == [each.url for each in live.doors]
        assert told.doors[0].fingerprint == fingerprint
        stub.hold.set()
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
    await asyncio.to_thread(gateway.process.wait, 10)
    text = (gateway.folder / "snapshot.json").read_text()
    assert "PRIVATE" not in text and files.key in text


async def test_the_port_that_was_found_is_kept_over_tls_too(gateway, stub, tmp_path):
    files, _ = issued(tmp_path)
    at = port()
    with socket.create_server(("127.0.0.1", at)):
        live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{at}", True),), files=files)
    assert not live.listens.endswith(f":{at}")
    gateway.stop(9)
    gateway.hang_up()
    gateway.start()
    await gateway.connect()
    assert (await gateway.told(lambda live: live.doors)).listens == live.listens


async def test_a_client_that_reads_slowly_pauses_the_engine_over_tls(gateway, stub, tmp_path):
    files, _ = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    await asked(live, trusting(files), request(ASK))
    before = gateway.rss()
    stub.flood = 2000  # 32 MB
    async with connected(live, trusting(files)) as (reader, writer), asyncio.timeout(60):
        writer.transport.pause_reading()
        writer.write(request(ASK))
        await stub.stalled.wait()
        assert stub.sent < 1000, "what the sockets of both sides hold"
        assert gateway.rss() - before < 16 << 20
        writer.transport.resume_reading()
        got, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(1 << 20)
            got, end = got + len(piece), (end + piece)[-16:]
            assert piece
    assert got > 30_000_000 and stub.sent == 2000


async def test_a_client_that_closes_tls_frees_its_slot_though_its_answer_is_stuck(gateway, stub, tmp_path):
    """Its close_notify is its end: what was written to it is not waited for."""
    files, _ = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    stub.flood = 2000
    async with connected(live, trusting(files)) as (_, writer), asyncio.timeout(20):
        writer.transport.pause_reading()
        writer.write(request(ASK))
        await stub.stalled.wait()
        writer.close()
        assert (await gateway.line()).outcome == "client-gone"


async def test_a_refused_client_over_tls_reads_why_though_it_still_sends(gateway, stub, tmp_path):
    files, _ = issued(tmp_path)
    door = Listen(f"127.0.0.1:{port()}", True)
    live = await gateway.route(stub, keys=[KEY], doors=(door,), files=files, body_bytes=1024)
    async with connected(live, trusting(files)) as (reader, writer), asyncio.timeout(10):
        writer.write(request({"model": "chat", "prompt": "a" * 100_000}))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 413 " in head and b"Connection: close" in head
        writer.write(b"a" * 100_000)
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        assert b"body_too_large" in await reader.readexactly(length)
    assert "Traceback" not in gateway.log.read_text()


# ------------------------------------------------------------------------------------------------ the files


def test_what_the_files_hold_is_told(tmp_path):
    files, fingerprint = issued(tmp_path, days=3, names=("gpu1.example.com", "10.1.2.3"))
    found = load(Path(files.certificate), Path(files.key))
    assert found.fingerprint == fingerprint
    assert found.names == ("gpu1.example.com",) and set(found.addresses) == {"127.0.0.1", "::1", "10.1.2.3"}
    assert abs(found.until - datetime.now(UTC).timestamp() - 3 * 86400) < 60


WRONG = {
    "expired": ({"begins": -9, "ends": -1}, "has expired"),
    "of tomorrow": ({"begins": 1}, "is not valid yet: is the clock right?"),
    "of a client": ({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "is not for a server"),
    "another key": ({"other": True}, "is not that of the certificate"),
    "a passphrase": ({"locked": True}, "has a passphrase"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_certificate_that_does_not_work_is_refused_with_the_reason(tmp_path, name):
    how, words = WRONG[name]
    files = odd(tmp_path, **how)
    with pytest.raises(Unfit, match=words):
        load(Path(files.certificate), Path(files.key))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path, mode):
    files, _ = issued(tmp_path)
    Path(files.key).chmod(mode)
    with pytest.raises(Unfit, match=f"mode {mode:04o}"):
        load(Path(files.certificate), Path(files.key))


def found(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("me", "owner", "mode", "words"),
    [
        (1000, 1000, 0o600, ""), (1000, 1000, 0o400, ""), (1000, 1000, 0o640, "chmod 600"),
        (1000, 0, 0o640, ""), (1000, 0, 0o644, "chmod 640"), (1000, 0, 0o660, "chmod 640"),
        (1000, 1001, 0o600, "belongs to uid 1001"), (0, 0, 0o600, ""), (0, 0, 0o640, "chmod 600"),
        (0, 1001, 0o600, "belongs to uid 1001"),
    ],
)  # fmt: skip
def test_a_key_is_ours_alone_or_roots_with_a_group_that_he_chose(monkeypatch, me, owner, mode, words):
    monkeypatch.setattr(os, "geteuid", lambda: me)
    with pytest.raises(Unfit, match=words) if words else contextlib.nullcontext():
        refuse_shared(Path("k"), found(owner, mode))


def test_a_folder_that_is_closed_to_the_gateway_is_named(monkeypatch, tmp_path):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, how: path != tmp_path / "tls")
    with pytest.raises(Unfit, match=f"the folder {tmp_path}/tls is closed to it"):
        load(tmp_path / "tls" / "a" / "c.crt", tmp_path / "tls" / "a" / "c.key")


def test_what_is_no_certificate_no_key_and_no_file_is_refused(tmp_path):
    files, _ = issued(tmp_path)
    certificate, key = Path(files.certificate), Path(files.key)
    certificate.write_text("hello")
    with pytest.raises(Unfit, match="no certificate and key in PEM"):
        load(certificate, key)
    key.unlink()
    with pytest.raises(Unfit, match="there is no key"):
        load(certificate, key)
    os.mkfifo(key, 0o600)
    with pytest.raises(Unfit, match="a pipe"):
        load(certificate, key)


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "host:80", "::1", "::1:80", "ftp://1.2.3.4:80", "1.2.3.4.5:80",
     "[fe80::1%eth0]:80", "[::ffff:1.2.3.4]:80", "https://1.2.3.4:80/v1", "1.2.3.4:80 "],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        listens([text], plain=True)


def test_loopback_is_plain_and_the_network_speaks_tls_unless_it_is_said_otherwise():
    assert listens(["127.0.0.1:1", "[::1]:2"], plain=False) == (Listen("127.0.0.1:1"), Listen("[::1]:2"))
    assert listens(["0.0.0.0:1", "[2001:db8::1]:2", "https://127.0.0.1:3"], plain=False) == (
        Listen("0.0.0.0:1", True), Listen("[2001:db8::1]:2", True), Listen("127.0.0.1:3", True),
    )  # fmt: skip
    with pytest.raises(ValueError, match="plain HTTP on the network"):
        listens(["http://10.0.0.1:1"], plain=False)
    assert listens(["10.0.0.1:1", "https://10.0.0.1:2"], plain=True) == (
        Listen("10.0.0.1:1"), Listen("10.0.0.1:2", True),
    )  # fmt: skip
    with pytest.raises(ValueError, match="named twice"):
        listens(["127.0.0.1:1", "https://127.0.0.1:1"], plain=False)


def test_an_address_of_ipv6_counts_with_its_64_bits():
    assert place("10.0.0.1") == "10.0.0.1"
    assert place("2001:db8:1:2:3:4:5:6") == place("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert place("2001:db8:1:3::1") != place("2001:db8:1:2::1")
    assert place("fe80::1%eth0") == "fe80::/64"


def test_a_port_that_the_release_before_kept_is_kept():
    assert Kept(listen="127.0.0.1:8620", port=8621).all() == {"127.0.0.1:8620": 8621}
    assert Kept(ports={"127.0.0.1:8620": 8622}).all() == {"127.0.0.1:8620": 8622}
