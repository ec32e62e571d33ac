"""Signing keys: a file that others could have read, or that is no key, is refused with a sentence."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.proof.keys import SigningKey, is_public, load, place_of, signed_by

PAIR, OTHER = SigningKey.make(), SigningKey.make()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    PAIR.save(tmp_path / "audit.key")
    return tmp_path / "audit.key"


def test_a_key_is_kept_for_its_owner_alone_and_is_the_same_again(kept: Path) -> None:
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert load(kept, {}).public == PAIR.public
    with pytest.raises(FileExistsError):
        OTHER.save(kept)
    assert load(kept, {}).id == PAIR.id, "it was not overwritten"
    assert "PRIVATE" not in repr(PAIR) and PAIR.id in repr(PAIR)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o440])
def test_a_key_that_others_may_read_or_write_is_refused(kept: Path, mode: int) -> None:
    kept.chmod(mode)
    with pytest.raises(Invalid, match=f"mode {mode:04o}.*chmod 600"):
        load(kept, {})


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_key_of_somebody_else_is_refused(kept: Path) -> None:
    os.chown(kept, 4242, -1)
    with pytest.raises(Invalid, match="belongs to uid 4242"):
        load(kept, {})


def test_a_link_a_folder_and_a_pipe_are_refused_at_once(kept: Path) -> None:
    link = kept.with_name("link")
    link.symlink_to(kept)
    os.mkfifo(kept.with_name("pipe"), 0o600)
    for place, why in ((link, "link"), (kept.parent, "no file"), (kept.with_name("pipe"), "no file")):
        with pytest.raises(Invalid, match=why):
            load(place, {})


def test_what_is_no_ed25519_key_is_refused_with_how_to_make_one(kept: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text in (b"", b"not a key", pem, b"x" * 10000):
        kept.write_bytes(text)
        with pytest.raises(Invalid) as caught:
            load(kept, {})
        assert "holds" in str(caught.value) and b"PRIVATE" not in str(caught.value).encode()


def test_a_credential_of_systemd_is_found_and_may_have_its_access_list(kept: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(kept.parent)}
    place = place_of("$CREDENTIALS_DIRECTORY/audit.key", environ)
    assert load(place, environ).id == PAIR.id
    kept.chmod(0o440)
    if os.getuid() == 0:
        assert load(place, environ).id == PAIR.id
        with pytest.raises(Invalid):
            load(place, {})
    kept.chmod(0o444)
    with pytest.raises(Invalid):
        load(place, environ)
    with pytest.raises(Invalid, match="LoadCredential"):
        place_of("$CREDENTIALS_DIRECTORY/audit.key", {})
    with pytest.raises(Invalid, match="no full path"):
        place_of("keys/audit.key", {})


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 511))
def test_a_signature_holds_for_its_message_and_its_key_alone(message: bytes, other: bytes, bit: int) -> None:
    signature = PAIR.sign(message)
    assert signed_by(PAIR.public, signature, message)
    assert not signed_by(OTHER.public, signature, message)
    assert signed_by(PAIR.public, signature, other) == (other == message)
    flipped = f"{int(signature, 16) ^ (1 << bit):0128x}"
    assert not signed_by(PAIR.public, flipped, message)


@given(st.text(max_size=140))
def test_no_text_is_a_signature_or_a_key_by_accident(text: str) -> None:
    assert not signed_by(PAIR.public, text, b"m") and not signed_by(text, PAIR.sign(b"m"), b"m")
    assert not is_public(text)


def test_one_key_and_one_signature_have_one_text() -> None:
    signature = PAIR.sign(b"m")
    if signature != signature.upper():
        assert not signed_by(PAIR.public, signature.upper(), b"m")
    assert not signed_by(PAIR.public, signature + "\n", b"m")
    assert not is_public(PAIR.public + "\n") and not is_public(PAIR.public.upper())


def test_neither_the_command_line_nor_a_start_of_the_daemon_imports_cryptography() -> None:
    code = "import sys, tui.cli, tui.verbs.audit, tui.verbs.daemon, core.daemon; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
