"""A key in an agent signs the trail and is never here: the real ssh-agent, and a double that misbehaves as few do."""

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signed_place import Place

from core.errors import Conflict, CorralError, Failed, Invalid
from core.proof import agent as module
from core.proof.agent import FRAME_LIMIT, Agent
from core.proof.keys import SigningKey, signed_by
from core.proof.verify import verify
from core.settings import AuditTable

SSH_AGENT = shutil.which("ssh-agent") and shutil.which("ssh-add")
real = pytest.mark.skipif(not SSH_AGENT, reason="ssh-agent and ssh-add are not here (Debian package openssh-client)")


def sized(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


class Double:
    """An agent with keys; `answers` stands in for what it says."""

    def __init__(self, path: Path, *keys: SigningKey, comments: tuple[bytes, ...] = ()) -> None:
        self.path, self.keys, self.asked = path, list(keys), 0
        self.comments = comments or tuple(f"key{n}".encode() for n in range(len(keys)))
        self.answers: Callable[[bytes], bytes] | None = None
        self.refuses = False

    def __enter__(self) -> "Double":
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                try:
                    (size,) = struct.unpack(">I", client.recv(4, socket.MSG_WAITALL))
                    frame = client.recv(size, socket.MSG_WAITALL)
                    self.asked += 1
                    client.sendall(self.answers(frame) if self.answers else sized(self._answer(frame)))
                    if self.answers:
                        client.recv(1)  # until it has had enough
                except (OSError, struct.error):
                    pass

    def _answer(self, frame: bytes) -> bytes:
        if frame[0] == 11:
            each = b"".join(sized(blob(k)) + sized(c) for k, c in zip(self.keys, self.comments, strict=True))
            return b"\x0c" + struct.pack(">I", len(self.keys)) + each
        size = struct.unpack(">I", frame[1:5])[0]
        wanted, rest = frame[5 : 5 + size], frame[5 + size :]
        length = struct.unpack(">I", rest[:4])[0]
        key = next((each for each in self.keys if blob(each) == wanted), None)
        if key is None or self.refuses:
            return b"\x05"
        return b"\x0e" + sized(sized(b"ssh-ed25519") + sized(bytes.fromhex(key.sign(rest[4 : 4 + length]))))


def blob(key: SigningKey) -> bytes:
    return sized(b"ssh-ed25519") + sized(bytes.fromhex(key.public.removeprefix("ed25519:")))


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="a-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def double(folder: Path) -> Iterator[Double]:
    with Double(folder / "agent.sock", SigningKey.make()) as made:
        yield made


class Kept(Place):
    """Signed by an agent from the first record on."""

    def use(self, path: Path, **fields: str) -> None:
        self.settings = AuditTable(checkpoint_records=10, signing_key=f"agent:{path}", **fields)

    async def verified(self) -> None:
        report = await self.audit.verify()
        assert report.ok, report.message
        text = await self.export()
        found = verify(text.splitlines(keepends=True), [self.signer.keys[0].key])[0].report
        assert found.ok, found.message


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    await made.open()
    yield made
    await made.store.close()


# ------------------------------------------------------------------------------------------------ what is said


def test_a_signature_of_an_agent_verifies_as_one_of_a_file(double: Double) -> None:
    (key,) = Agent(f"agent:{double.path}").meant()
    assert (key.public, key.id) == (double.keys[0].public, double.keys[0].id)
    assert signed_by(key.public, key.sign(b"a checkpoint"), b"a checkpoint")


def test_one_of_several_keys_is_named_by_fingerprint_comment_or_id(folder: Path) -> None:
    keys = [SigningKey.make() for _ in range(3)]
    with Double(folder / "s", *keys, comments=(b"corral", b"mine", b"\x1b[2Jevil\xff")) as double:
        agent = Agent(f"agent:{double.path}")
        with pytest.raises(Conflict, match="3 keys that may be meant"):
            agent.one()
        names = [each.fingerprint for each in agent.identities()]
        for name in (names[1], "mine", keys[1].id):
            assert Agent(f"agent:{double.path}#{name}").one().public == keys[1].public
        assert agent.one(frozenset(each.id for each in keys[:2])).id == keys[2].id
        with pytest.raises(Invalid, match="no Ed25519 key that is called 'other'") as told:
            Agent(f"agent:{double.path}#other").one()
        assert names[0] in str(told.value) and "\x1b" not in str(told.value)


@pytest.mark.parametrize("text", ["agent:", "agent:relative.sock", "agent:#mine"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no full path"):
        Agent(text)


HOSTILE = {
    "no bytes": b"", "half a length": b"\0\0", "nothing in it": sized(b""),
    "too long": struct.pack(">I", FRAME_LIMIT + 1),
    "2^32-1": b"\xff" * 4, "another kind": sized(b"\x63"), "a refusal": sized(b"\x05"), "no count": sized(b"\x0c\0"),
    "many, none there": sized(b"\x0c" + b"\xff" * 4), "a string too long": sized(b"\x0c\0\0\0\x01" + b"\xff" * 8),
    "a short key": sized(b"\x0c\0\0\0\x01" + sized(sized(b"ssh-ed25519") + sized(b"x" * 31)) + sized(b"c")),
    "less than it says": struct.pack(">I", 100) + b"\x0c\0",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_a_sentence_and_no_key(double: Double, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    double.answers = lambda frame: HOSTILE[name]
    for ask in (lambda: Agent(f"agent:{double.path}").meant(), lambda: Agent(f"agent:{double.path}").sign(OTHER, b"m")):
        with pytest.raises(CorralError, match=r"cannot be asked|answers with|does not sign|no Ed25519"):
            ask()


OTHER = SigningKey.make().public


def test_a_signature_over_something_else_or_by_another_key_is_none(double: Double) -> None:
    (key,) = Agent(f"agent:{double.path}").meant()
    other = SigningKey.make()
    for raw in (double.keys[0].sign(b"else"), other.sign(b"m"), "00" * 64, double.keys[0].sign(b"m")[:-2], ""):
        double.answers = lambda frame, raw=raw: sized(  # type: ignore[misc]
            b"\x0e" + sized(sized(b"ssh-ed25519") + sized(bytes.fromhex(raw)))
        )
        with pytest.raises(Failed, match="no signature of that key"):
            key.sign(b"m")
    double.answers = lambda frame: sized(b"\x0e" + sized(sized(b"ssh-rsa") + sized(bytes(64))))
    with pytest.raises(Failed, match="no signature of that key"):
        key.sign(b"m")


def test_an_agent_that_is_slow_is_given_up_at_one_deadline_for_all_of_its_answer(double: Double) -> None:
    """Each part comes in time, and all of them do not: the clock is the test's."""
    now = [0.0]

    def clock() -> float:
        now[0] += 2
        return now[0]

    with pytest.raises(Failed, match="did not answer in time"):
        Agent(f"agent:{double.path}", clock=clock).meant()
    assert len(Agent(f"agent:{double.path}", clock=lambda: 0.0).meant()) == 1


@pytest.mark.parametrize("what", ["gone", "file", "dead", "long"])
def test_what_is_no_agent_is_said(folder: Path, what: str) -> None:
    path = folder / ("x" * 120 if what == "long" else "s")
    if what == "file":
        path.write_text("x")
    elif what == "dead":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    with pytest.raises(Failed, match="cannot be asked"):
        Agent(f"agent:{path}").meant()


# ------------------------------------------------------------------------------------------------ the trail


async def test_the_trail_is_signed_by_the_agent_and_no_private_key_is_written(place: Kept, double: Double) -> None:
    place.use(double.path)
    await place.signer.start()
    await place.fill(3)
    made = await place.checkpoint()
    assert made.key == double.keys[0].id and not place.paths.audit_key.exists()
    assert (await place.signer.show()).place == f"agent:{double.path}"
    await place.verified()
    await place.again()
    await place.fill(1)
    assert (await place.checkpoint()).number == made.number + 1
    await place.verified()


async def test_while_the_agent_is_gone_records_go_on_and_are_vouched_for_when_it_is_back(
    place: Kept, folder: Path
) -> None:
    keys = [SigningKey.make()]
    place.use(folder / "s")
    with Double(folder / "s", *keys):
        await place.signer.start()
        await place.fill(2)
        before = await place.checkpoint()
    await place.fill(3)
    assert (await place.signer.checkpoint()) == before, "it waits, and raises nothing"
    (told,) = place.signer.troubles()
    assert "not signed, and 3 records wait" in told and "cannot be asked" in told and "No such file" in told
    text = (await place.export()).splitlines(keepends=True)
    found = verify(text, [place.signer.keys[0].key])[0].report
    assert not found.ok and any("nobody signed the end" in fault.message for fault in found.faults)
    with Double(folder / "s", *keys):
        assert await place.signer._try()
        assert place.signer.troubles() == [] and place.kept()[-1].seq == place.audit.head.seq  # type: ignore[union-attr]
        await place.verified()


async def test_a_daemon_that_starts_without_its_agent_makes_no_key_of_its_own(place: Kept, folder: Path) -> None:
    place.use(folder / "s")
    await place.signer.start()
    assert not place.paths.audit_key.exists() and place.signer.keys == ()
    assert "cannot be asked" in place.signer.troubles()[0]
    with Double(folder / "s", SigningKey.make()):
        await place.signer.follow()
        await place.fill(1)
        assert (await place.checkpoint()).number == 1


async def test_an_agent_with_another_key_signs_nothing(place: Kept, folder: Path) -> None:
    place.use(folder / "s")
    with Double(folder / "s", SigningKey.make()):
        await place.signer.start()
        await place.fill(2)
        first = await place.checkpoint()
    with Double(folder / "s", SigningKey.make()):
        await place.signer.follow()
        await place.fill(1)
        assert await place.signer.checkpoint() == first
        assert "holds other keys" in place.signer.troubles()[0]


async def test_a_setting_that_was_taken_away_is_told_with_the_agent_whose_key_it_is(
    place: Kept, double: Double
) -> None:
    place.use(double.path)
    await place.signer.start()
    place.settings = AuditTable()
    await place.signer.follow()
    (trouble,) = place.signer.troubles()
    assert f"it is a key of agent:{double.path}, which corral.toml names no more" in trouble
    assert f'put signing_key = "agent:{double.path}" back under [audit]' in trouble and "rotate --lost" in trouble


async def test_an_agent_that_dies_between_two_checkpoints_is_noticed_by_the_next(place: Kept, double: Double) -> None:
    place.use(double.path)
    await place.signer.start()
    double.refuses = True
    await place.fill(2)
    await place.signer.checkpoint()
    assert "it refused to" in place.signer.troubles()[0]
    with pytest.raises(Failed, match="cannot sign the next one"):
        await place.rotate()
    assert len(place.signer.keys) == 1 and not list(place.paths.state.glob("*.next"))


@pytest.mark.parametrize("back", [True, False])
async def test_rotation_to_an_agent_and_from_it_is_recorded_and_chained(
    place: Kept, double: Double, folder: Path, back: bool
) -> None:
    await place.signer.start()
    await place.fill(2)
    own = place.signer.keys[0]
    place.settings = AuditTable(signing_key=str(place.paths.audit_key), next_key=f"agent:{double.path}")
    made = await place.rotate()
    assert (made.id, made.previous) == (double.keys[0].id, own.id)
    assert (await place.signer.show()).place == f"agent:{double.path}"
    await place.fill(2)
    if back:
        file = folder / "new.pem"
        SigningKey.make().save(file)
        place.use(double.path, next_key=str(file))
    else:
        double.keys.append(SigningKey.make())
        double.comments = (b"a", b"b")
        place.use(double.path)
    await place.again()
    third = await place.rotate()
    assert third.previous == made.id and third.number == 3
    await place.fill(1)
    await place.verified()
    records = await place.audit.ls(verb="audit.key-rotate")
    assert [each.outcome for each in records] == ["done", "done"] and [each.actor for each in records] == ["alice"] * 2
    await place.again()
    assert place.signer.troubles() == []


# ------------------------------------------------------------------------------------------------ the real one


@contextmanager
def running(folder: Path, uid: int | None = None) -> Iterator[Path]:
    """ssh-agent in the foreground, as `uid` where that is another one."""
    path = folder / "agent.sock"
    argv = ["ssh-agent", "-D", "-a", str(path)]
    if uid is not None:
        os.chown(folder, uid, uid)
        argv = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *argv]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as work:
        try:
            deadline = time.monotonic() + 20
            while not path.exists():
                assert work.poll() is None and time.monotonic() < deadline, "ssh-agent does not come up"
                time.sleep(0.01)
            yield path
        finally:
            work.terminate()
            work.wait(20)


def add(path: Path, folder: Path) -> None:
    """A new key, which is in a file no longer than it takes."""
    file = folder / "key"
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    file.write_bytes(text)
    file.chmod(0o600)
    env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    subprocess.run(["ssh-add", str(file)], env=env, check=True, capture_output=True, timeout=20)
    file.unlink()


@real
@pytest.mark.parametrize("uid", [None, 65534])
async def test_the_real_ssh_agent_signs_checkpoints_and_exports(place: Kept, folder: Path, uid: int | None) -> None:
    """Under another uid it serves root and itself alone: the test of that takes root."""
    if uid is not None and (os.geteuid() != 0 or not shutil.which("setpriv")):
        pytest.skip("takes root, and setpriv")
    with running(folder, uid) as path:
        add(path, folder)
        place.use(path)
        await place.signer.start()
        await place.fill(5)
        await place.checkpoint()
        await place.verified()
        listed = subprocess.run(["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, capture_output=True,
                                text=True, timeout=20).stdout  # fmt: skip
        assert Agent(f"agent:{path}").identities()[0].fingerprint in listed
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-D"], env=env, check=True, capture_output=True, timeout=20)
        await place.fill(1)
        await place.signer.checkpoint()
        assert "it refused to" in place.signer.troubles()[0]
