"""Keys of attached servers: what is taken for one, and what is refused with the reason."""

import os
from pathlib import Path

import pytest

from core.engines.keys import KEY_BYTES, key_file, read_key
from core.errors import Invalid


def test_a_file_is_named_after_host_and_port(tmp_path: Path) -> None:
    assert key_file(tmp_path, "api.example.com", 443, True).name == "api.example.com"
    assert key_file(tmp_path, "api.example.com", 80, True).name == "api.example.com:80"
    assert key_file(tmp_path, "10.0.0.7", 8000, False).name == "10.0.0.7:8000"


def write(file: Path, text: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(text)
    file.chmod(mode)
    return file


def test_a_key_is_a_line_and_none_is_none(tmp_path: Path) -> None:
    assert read_key(tmp_path / "nosuch") == ""
    assert read_key(write(tmp_path / "k", b"sk-abc.DEF_1\n")) == "sk-abc.DEF_1"


@pytest.mark.parametrize("text", [b"", b"\n", b"two words", b"two\r\nX-Evil: 1", b"\xff\xfe", b"k" * (KEY_BYTES + 1)])
def test_what_fits_no_header_is_no_key(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(Invalid, match="holds no key") as told:
        read_key(write(tmp_path / "k", text))
    assert "Evil" not in str(told.value) and "words" not in told.value.what


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Invalid, match="chmod 600"):
        read_key(write(tmp_path / "k", b"key", mode))


def test_links_pipes_and_folders_are_no_keys_and_nobody_waits_for_them(tmp_path: Path) -> None:
    write(tmp_path / "k", b"key")
    (tmp_path / "link").symlink_to(tmp_path / "k")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, tmp_path / ".."):
        with pytest.raises(Invalid):
            read_key(path)
