"""Sinks: what they are given, that nothing is lost or forged on the way, and that a full one is loud."""

import array
import asyncio
import errno
import json
import os
import re
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from signed_place import Place, tamper

from core.audit.sinks import Sinks, jsonfile, service
from core.audit.sinks.journal import Journal, datagram
from core.audit.sinks.jsonfile import JsonFile
from core.audit.sinks.lines import Item
from core.audit.sinks.service import Sink, sinks_of
from core.audit.sinks.syslog import Syslog, frame, split
from core.errors import Invalid
from core.nouns import CORRAL
from core.proof.against import compare
from core.settings import AuditTable, SinksTable

HOSTILE = 'a\nCORRAL_OUTCOME=done\n\x1b[31m"\u202e<13>1'


class Heap:
    """A sink in memory that can refuse."""

    name = "heap"

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.refuses = False
        self.tries = 0

    async def send(self, items: Sequence[Item]) -> None:
        self.tries += 1
        if self.refuses:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self.got += [json.loads(item.text) for item in items]

    async def close(self) -> None:
        pass

    def seqs(self) -> list[int]:
        return [each["seq"] for each in self.got if "seq" in each]


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.002)


async def soon(seconds: float) -> None:
    await asyncio.sleep(0.002)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = await Place(tmp_path).open()
    await made.signer.start()
    yield made
    await made.store.close()


@asynccontextmanager
async def feeding(place: Place, *sinks: Sink) -> AsyncIterator[Sinks]:
    """A daemon's sinks, until the daemon is killed."""
    found = Sinks(
        place.store, place.audit, place.paths, lambda: place.settings, make=lambda table: list(sinks), pause=soon
    )
    task = asyncio.create_task(found.run())
    try:
        await until(lambda: len(found._feeds) == len(sinks) and all(feed.cursor for feed in found._feeds))
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -------------------------------------------------------------------------------------------- what is sent


async def test_records_come_in_order_each_once_with_keys_and_checkpoints(place: Place) -> None:
    heap = Heap()
    async with feeding(place, heap) as sinks:
        await place.fill(450)
        await until(lambda: len(heap.seqs()) == 450)
        await place.checkpoint()
        await place.fill(1)
        await until(lambda: any(each.get("corral") == "checkpoint" for each in heap.got))
        assert heap.seqs()[:450] == list(range(2, 452)), "from what was recorded since it was named"
        assert [each["corral"] for each in heap.got if "corral" in each] == ["key", "checkpoint"]
        assert heap.got[0]["line"] == place.signer.keys[0].line().decode()
        (state,) = sinks.status()
        assert (state.name, state.state, state.waiting) == ("heap", "ok", 0) and sinks.troubles() == []
    record = next(each for each in heap.got if each.get("seq") == 5)
    (kept,) = await place.audit.ls(after_seq=4, limit=1)
    assert record["hash"] == kept.hash and record["after"] == {"n": 3}


async def test_a_new_daemon_goes_on_where_the_last_one_was(place: Place) -> None:
    heap = Heap()
    async with feeding(place, heap):
        await place.fill(5)
        await until(lambda: len(heap.seqs()) == 5)
    await place.fill(5)
    await place.again()
    async with feeding(place, heap):
        await until(lambda: len(heap.seqs()) == 10)
    assert heap.seqs() == list(range(2, 12))


async def test_where_a_sink_began_is_known_before_its_first_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed right after that begins there again, and not later."""
    monkeypatch.setattr(service, "KEEP_S", 3600.0)
    await place.fill(2)
    async with feeding(place, Heap()):
        await until(place.paths.audit_sinks.exists)
        assert json.loads(place.paths.audit_sinks.read_text())["heap"]["seq"] == 3


async def test_a_sink_that_refuses_is_tried_again_and_gets_all(place: Place) -> None:
    heap = Heap()
    heap.refuses = True
    async with feeding(place, heap) as sinks:
        await place.fill(3)
        await until(lambda: heap.tries > 3)
        (state,) = sinks.status()
        assert (state.state, state.waiting, state.reason) == ("waiting", 3, "Connection refused") and state.since
        assert any("does not take audit records: Connection refused; 3 wait" in each for each in sinks.troubles())
        heap.refuses = False
        await until(lambda: len(heap.seqs()) == 3)
        await until(lambda: sinks.status()[0].state == "ok")
        assert sinks.troubles() == []
    assert heap.seqs() == [2, 3, 4]


async def test_its_pauses_grow(place: Place) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    heap = Heap()
    heap.refuses = True
    sinks = Sinks(place.store, place.audit, place.paths, lambda: place.settings, make=lambda t: [heap], pause=pause)
    task = asyncio.create_task(sinks.run())
    await until(lambda: len(pauses) >= 8)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pauses[:8] == [1, 2, 5, 10, 30, 60, 60, 60]


async def test_a_full_one_is_loud_recorded_once_and_loses_nothing(place: Place) -> None:
    place.settings = AuditTable(sinks=SinksTable(spool_records=10))
    heap = Heap()
    heap.refuses = True
    async with feeding(place, heap) as sinks:
        await place.fill(30)
        await until(lambda: sinks.status()[0].state == "full")
        assert any("is full" in each and "nothing is dropped" in each for each in sinks.troubles())
        await until(lambda: heap.tries > 8)
        (record,) = await place.audit.ls(verb="audit.sink-full")
        assert record.object == "sink:heap" and "Connection refused" in record.reason
        heap.refuses = False
        await until(lambda: sinks.status()[0].state == "ok")
        await until(lambda: len(heap.seqs()) == 32)
    assert heap.seqs() == list(range(2, 34))
    assert len(await place.audit.ls(verb="audit.sink-full")) == len(await place.audit.ls(verb="audit.sink-back")) == 1


async def test_one_that_was_full_and_is_mended_in_the_settings_is_recorded_to_be_back(place: Place) -> None:
    place.settings = AuditTable(sinks=SinksTable(spool_records=10))
    heap = Heap()
    heap.refuses = True
    async with feeding(place, heap) as sinks:
        await place.fill(30)
        await until(lambda: sinks.status()[0].state == "full")
        heap.refuses = False
        place.settings = AuditTable(sinks=SinksTable(spool_records=11))
        sinks.follow()
        await until(lambda: len(heap.seqs()) == 32)  # with what tells that it is back
    assert len(await place.audit.ls(verb="audit.sink-full")) == len(await place.audit.ls(verb="audit.sink-back")) == 1


async def test_a_slow_sink_holds_up_no_record(place: Place) -> None:
    class Stuck(Heap):
        async def send(self, items: Sequence[Item]) -> None:
            await asyncio.Event().wait()

    async with feeding(place, Stuck()) as sinks:
        async with asyncio.timeout(10):
            await place.fill(300)
        last = place.audit.head
        assert last is not None and last.seq >= 300 and sinks.status()[0].sent < last.seq, "none of them waited for it"


# -------------------------------------------------------------------------------------------- tampering is told


async def test_a_trail_that_is_not_the_one_that_was_sent_is_told_to_the_sink_and_to_everybody(place: Place) -> None:
    heap = Heap()
    async with feeding(place, heap):
        await place.fill(3)
        await until(lambda: len(heap.seqs()) == 3)
    await place.store.close()
    tamper(place.paths, "UPDATE audit SET actor = 'nobody', hash = 'x' WHERE seq = 4")
    await place.open()
    await place.signer.start()
    async with feeding(place, heap) as sinks:
        await until(lambda: any(each.get("corral") == "broken" for each in heap.got))
        assert any("another audit trail" in each and "record 4" in each for each in sinks.troubles())


async def test_an_older_copy_of_the_database_is_told_and_what_is_new_is_sent(place: Place) -> None:
    heap = Heap()
    async with feeding(place, heap):
        await place.fill(3)
        await until(lambda: len(heap.seqs()) == 3)
        await place.store.close()
    aside = place.paths.root / "aside.db"
    shutil.copy(place.paths.database, aside)
    await place.open()
    async with feeding(place, heap):
        await place.fill(3)
        await until(lambda: len(heap.seqs()) == 6)
    await place.store.close()
    shutil.copy(aside, place.paths.database)
    place.now += 60
    await place.open()
    async with feeding(place, heap) as sinks:
        await until(lambda: any("older copy" in str(each.get("message")) for each in heap.got))
        await place.fill(1)
        await until(lambda: len(heap.seqs()) == 7)
        assert sinks.troubles()


async def test_a_new_database_is_told_and_sent_from_its_first_record(place: Place) -> None:
    heap = Heap()
    async with feeding(place, heap):
        await place.fill(3)
        await until(lambda: len(heap.seqs()) == 3)
    await place.store.close()
    for each in place.paths.state.glob("corral.db*"):
        each.unlink()
    await place.open()
    await place.fill(2)
    async with feeding(place, heap):
        await until(lambda: len(heap.seqs()) == 5)
    assert heap.seqs()[-2:] == [1, 2] and any(each.get("corral") == "broken" for each in heap.got)


async def test_bytes_that_are_no_text_or_json_do_not_end_the_sink(place: Place) -> None:
    heap = Heap()
    heap.refuses = True
    async with feeding(place, heap):
        await place.fill(3)
    tamper(place.paths, "UPDATE audit SET after = 'no json' WHERE seq = 3")
    heap.refuses = False
    async with feeding(place, heap):
        await until(lambda: len(heap.seqs()) == 3)
        assert heap.seqs() == [2, 3, 4] and any(each.get("corral") == "broken" for each in heap.got)


async def test_what_a_sink_kept_is_something_to_compare_an_export_with(place: Place) -> None:
    out = place.paths.root / "trail.jsonl"
    async with feeding(place, JsonFile(str(out))):
        await place.fill(3)
        await place.checkpoint()
        await place.fill(1)
        await until(lambda: out.exists() and b'"checkpoint"' in out.read_bytes())
    text, public = await place.export(), [place.signer.keys[0].key]

    def lines() -> list[bytes]:
        return text.splitlines(keepends=True)

    def sent() -> list[bytes]:
        return out.read_bytes().splitlines(keepends=True)

    assert compare(lines, sent, public).ok
    await place.store.close()
    tamper(place.paths, "DELETE FROM audit_checkpoints", "DELETE FROM audit WHERE seq > 2")
    place.paths.audit_proof.unlink()
    await place.open()
    await place.signer.start()
    text = await place.export()
    found = compare(lines, sent, public)
    assert not found.ok and "older copy" in found.message


# -------------------------------------------------------------------------------------------- a file


def item(text: str = "{}", **fields: str) -> Item:
    return Item(text, "2026-11-24T03:07:12.000153Z", "record", fields)


async def test_a_file_is_appended_to_for_its_owner_alone_and_may_be_renamed(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    sink = JsonFile(str(path))
    await sink.send([item('{"a":1}'), item('{"a":2}')])
    path.rename(tmp_path / "trail.1")
    await sink.send([item('{"a":3}')])
    assert (tmp_path / "trail.1").read_text() == '{"a":1}\n{"a":2}\n' and path.read_text() == '{"a":3}\n'
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trail.jsonl"
    sink = JsonFile(str(path))
    await sink.send([item('{"a":1}')])
    write = os.write
    monkeypatch.setattr(jsonfile.os, "write", lambda fd, text: write(fd, text[:3]))
    with pytest.raises(OSError, match="space"):
        await sink.send([item('{"a":2}')])
    assert path.read_text() == '{"a":1}\n'
    monkeypatch.setattr(
        jsonfile.os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(PermissionError())
    )  # chattr +a
    with pytest.raises(OSError):
        await sink.send([item('{"a":2}')])
    monkeypatch.undo()
    await sink.send([item('{"a":2}')])
    assert path.read_text() == '{"a":1}\n{"a\n{"a":2}\n'


@pytest.mark.parametrize("may", [True, False])
async def test_a_file_is_held_to_appending_where_that_can_be_done_and_else_it_is_said(
    tmp_path: Path, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake stands for the kernel: who may set the attribute is root alone."""
    asked = []

    def ioctl(fd: int, request: int, flags: Any) -> int:
        asked.append((request, flags[0]))
        if request == jsonfile.SET_FLAGS and not may:
            raise PermissionError(1, "Operation not permitted")
        return 0

    monkeypatch.setattr(jsonfile.fcntl, "ioctl", ioctl)
    sink = JsonFile(str(tmp_path / "trail.jsonl"), append_only=True)
    await sink.send([item()])
    assert asked == [(jsonfile.GET_FLAGS, 0), (jsonfile.SET_FLAGS, jsonfile.APPEND)]
    assert sink.trouble == ("" if may else "its file is not append-only: Operation not permitted")
    assert (tmp_path / "trail.jsonl").read_text() == "{}\n", "the record is there all the same"


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "", "none/x"):
        with pytest.raises(OSError):
            await JsonFile(str(tmp_path / name)).send([item()])
    assert not (tmp_path / "target").exists()
    with pytest.raises(Invalid, match="full path"):
        JsonFile("trail.jsonl")


# -------------------------------------------------------------------------------------------- journald


def fields_of(raw: bytes) -> list[tuple[str, bytes]]:
    """As journald reads a datagram."""
    out = []
    while raw:
        name, separator, rest = re.match(rb"([A-Z_]+)(=|\n)", raw)[1], re.match(rb"[A-Z_]+(=|\n)", raw)[1], raw  # type: ignore[index]
        rest = rest[len(name) + 1 :]
        if separator == b"=":
            value, _, raw = rest.partition(b"\n")
        else:
            (size,) = struct.unpack_from("<Q", rest)
            value, raw = rest[8 : 8 + size], rest[8 + size + 1 :]
        out.append((name.decode(), value))
    return out


async def test_journald_gets_fields_by_its_native_protocol(place: Place) -> None:
    """A double of its socket: a datagram socket, as journald has one."""
    path = Path(place.paths.root / "j.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(20)
        async with feeding(place, Journal(path)):
            await place.fill(1)
            raws = [await asyncio.to_thread(journal.recv, 1 << 20) for _ in range(2)]
    key, record = (dict(fields_of(raw)) for raw in raws)
    assert key["CORRAL_KIND"] == b"key"
    assert record["SYSLOG_IDENTIFIER"] == b"corral-audit" and record["PRIORITY"] == b"6"
    assert (record["CORRAL_VERB"], record["CORRAL_OBJECT"], record["CORRAL_SEQ"]) == (b"test.done", b"thing:0", b"2")
    assert json.loads(record["MESSAGE"])["hash"].encode() == record["CORRAL_HASH"]


def test_a_value_with_newlines_becomes_no_field_of_its_own() -> None:
    found = fields_of(datagram(item("{}", actor=HOSTILE, outcome="refused")))
    assert [name for name, _ in found].count("CORRAL_OUTCOME") == 1
    told = dict(found)
    assert told["CORRAL_ACTOR"].decode() == HOSTILE and told["CORRAL_OUTCOME"] == b"refused"
    assert told["PRIORITY"] == b"4"


async def test_a_record_that_is_too_large_for_a_datagram_goes_as_sealed_memory(tmp_path: Path) -> None:
    path = tmp_path / "j.sock"
    text = json.dumps({"after": "x" * 3_000_000})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(20)
        await Journal(path).send([item(text)])
        raw, ancillary, _, _ = await asyncio.to_thread(journal.recvmsg, 1 << 16, 64)
    assert raw == b""
    fds = array.array("i", ancillary[0][2])
    with open(fds[0], "rb") as file:
        file.seek(0)
        assert dict(fields_of(file.read()))["MESSAGE"].decode() == text
        with pytest.raises(OSError):
            os.ftruncate(fds[0], 0)


async def test_no_journald_is_an_error_that_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await Journal(tmp_path / "none").send([item()])


# -------------------------------------------------------------------------------------------- syslog over TLS


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name`, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names: list[Any] = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)]
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1)).add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, private = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))  # fmt: skip
    return cert, private


class Collector:
    """A TLS listener on loopback that reads the frames of RFC 5425."""

    def __init__(self, cert: Path, key: Path, ca: Path | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        if ca is not None:
            self.context.load_verify_locations(ca)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.messages: list[bytes] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.drop_after = 0
        self.port = 0

    async def __aenter__(self) -> "Collector":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for each in self.open:  # from Python 3.12 on a server waits for them
            each.transport.abort()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                size = await reader.readuntil(b" ")
                assert re.fullmatch(rb"[1-9][0-9]* ", size), size
                self.messages.append(await reader.readexactly(int(size)))
                if self.drop_after and len(self.messages) >= self.drop_after:
                    self.drop_after = 0
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


def sent(collector: Collector) -> list[dict[str, Any]]:
    return [json.loads(raw.split(b" - ", 2)[2]) for raw in collector.messages]


async def test_a_collector_gets_each_record_in_a_frame_over_tls(place: Place, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "127.0.0.1")
    async with Collector(cert, key) as collector:
        sink = Syslog(f"127.0.0.1:{collector.port}", ca=str(cert))
        async with feeding(place, sink) as sinks:
            await place.gate.record(CORRAL, "test.done", f"thing:{HOSTILE}", "r", "refused", reason="ünïcode")
            await place.fill(250)
            await until(lambda: len(collector.messages) == 252)
            await until(lambda: sinks.status()[0].waiting == 0)
    assert collector.connections == 1
    assert [each["seq"] for each in sent(collector)[1:]] == list(range(2, 253))
    first = collector.messages[1]
    head = rb"<108>1 2026-09-21T14:13:20\.000000Z [!-~]+ corral - record - \{"
    assert re.match(head, first) and b"\n" not in first and first.isascii()
    assert sent(collector)[1]["object"] == f"thing:{HOSTILE}" and sent(collector)[1]["reason"] == "ünïcode"


async def test_a_collector_that_breaks_off_gets_what_it_lacks_on_the_next_connection(
    place: Place, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path, "127.0.0.1")
    async with Collector(cert, key) as collector:
        async with feeding(place, Syslog(f"127.0.0.1:{collector.port}", ca=str(cert))):
            await place.fill(1)
            await until(lambda: len(collector.messages) == 2)
            collector.drop_after = len(collector.messages) + 5
            for _ in range(20):
                await place.fill(10)
            await until(lambda: {each.get("seq") for each in sent(collector)} >= set(range(2, 203)))
        assert collector.connections >= 2


async def test_what_a_collector_took_and_never_read_is_sent_again_without_another_record(tmp_path: Path) -> None:
    """Its kernel has acknowledged the lines when it dies."""
    cert, key = certificate(tmp_path, "127.0.0.1")
    dies = asyncio.Event()

    class Dying(Collector):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not dies.is_set():
                await dies.wait()
                writer.transport.abort()
                return
            await super()._serve(reader, writer)

    async with Dying(cert, key) as collector:
        sink = Syslog(f"127.0.0.1:{collector.port}", ca=str(cert))
        await sink.send([item('{"seq":1}'), item('{"seq":2}')])
        await sink.send([])
        assert collector.messages == []
        dies.set()
        await until(sink._gone)
        await sink.send([])
        await until(lambda: [each["seq"] for each in sent(collector)] == [1, 2])
        await sink.send([item('{"seq":3}')])
        await until(lambda: [each["seq"] for each in sent(collector)] == [1, 2, 3])
        await sink.close()


async def test_a_collector_that_is_down_is_reached_when_it_is_back(place: Place, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "127.0.0.1")
    collector = Collector(cert, key)
    async with collector:
        pass
    async with feeding(place, Syslog(f"127.0.0.1:{collector.port}", ca=str(cert))) as sinks:
        await place.fill(3)
        await until(lambda: sinks.status()[0].state == "waiting")
        async with collector:
            await until(lambda: len(collector.messages) == 4)
            seqs = [each["seq"] for each in sent(collector) if "seq" in each]
            assert seqs == sorted(set(seqs)) and len(seqs) >= 3, "each once, in their order"
            await until(lambda: sinks.status()[0].state == "ok")


@pytest.mark.parametrize("name", ["another authority", "another name", "no certificate of ours", "no TLS"])
async def test_a_collector_that_is_not_the_one_is_told_nothing(tmp_path: Path, name: str) -> None:
    cert, key = certificate(tmp_path, "localhost" if name == "another name" else "127.0.0.1")
    (tmp_path / "x").mkdir()
    other, _ = certificate(tmp_path / "x", "127.0.0.1")
    collector = Collector(cert, key, ca=other if name == "no certificate of ours" else None)
    if name == "no TLS":
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(OSError):
                await Syslog(f"127.0.0.1:{port}", ca=str(cert)).send([item()])
        return
    async with collector:
        sink = Syslog(f"127.0.0.1:{collector.port}", ca=str(other if name == "another authority" else cert))
        with pytest.raises(OSError):
            await sink.send([item()])  # a refused client of TLS 1.3 learns it only when it reads
        await sink.close()
    assert collector.messages == []


async def test_a_certificate_of_ours_is_shown_where_it_is_asked_for(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "127.0.0.1")
    async with Collector(cert, key, ca=cert) as collector:
        sink = Syslog(f"127.0.0.1:{collector.port}", ca=str(cert), cert=str(cert), key=str(key))
        await sink.send([item('{"a":1}')])
        await until(lambda: collector.messages)
        await sink.close()
    assert [each["a"] for each in sent(collector)] == [1]


def test_a_frame_is_measured_in_bytes_and_a_wrong_time_is_none() -> None:
    raw = frame(Item('{"a":"\\n"}', HOSTILE, "record"), "host")
    size, _, message = raw.partition(b" ")
    assert int(size) == len(message) and message.startswith(b"<110>1 - host corral - record - ")


@pytest.mark.parametrize("text", ["", "a b:1", "host:0", "host:99999", "host:x", "http://host", "ho\nst:1", "::1"])
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        split(text)


def test_a_target_is_host_and_port() -> None:
    assert split("logs.example.com") == ("logs.example.com", 6514)
    assert split("[::1]:99") == ("::1", 99) and split("10.0.0.1:7") == ("10.0.0.1", 7)


# -------------------------------------------------------------------------------------------- settings


async def test_settings_name_sinks_and_a_wrong_one_is_said(place: Place) -> None:
    from core.settings import parse

    table = parse('[audit.sinks]\nfile = "/x/y"\njournald = true\nsyslog = "h:1"\n').audit.sinks
    assert [sink.name for sink in sinks_of(table)] == ["file", "journald", "syslog"]
    assert sinks_of(SinksTable()) == []
    with pytest.raises(Invalid, match=r"`true` or `false`.*`journald = true`"):
        parse('[audit.sinks]\njournald = "on"\n')
    found = Sinks(place.store, place.audit, place.paths, lambda: place.settings, pause=soon)
    task = asyncio.create_task(found.run())
    place.settings = AuditTable(sinks=SinksTable(file="relative"))
    found.follow()
    await until(lambda: any("full path" in each for each in found.troubles()))
    out = place.paths.root / "out"
    place.settings = AuditTable(sinks=SinksTable(file=str(out)))
    found.follow()
    await until(lambda: found.status() and found.troubles() == [])
    await until(lambda: found._feeds[0].cursor)
    await place.fill(2)
    await until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_place_in_the_trail_that_is_damaged_is_none(place: Place) -> None:
    place.paths.audit_sinks.write_text("{damaged")
    heap = Heap()
    async with feeding(place, heap):
        await place.fill(1)
        await until(lambda: heap.seqs() == [2])
    assert await place.faults() == []
