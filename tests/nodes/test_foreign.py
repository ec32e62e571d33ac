"""A launch folder belongs to an engine that reads hostile files: what it puts there fools nobody."""

import os
import socket
from pathlib import Path

import pytest

from core.nodes import foreign


def test_a_plain_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "port").write_bytes(b"12345")
    assert foreign.read(tmp_path, "port", 3) == b"123"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "folder", "device", "nothing"])
def test_anything_else_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    folder, secret = tmp_path / "launch", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("not for engines")
    at = folder / "engine.log"
    if kind == "symlink":
        at.symlink_to(secret)
    elif kind == "hard link":
        os.link(secret, at)
    elif kind == "pipe":
        os.mkfifo(at)
    elif kind == "folder":
        at.mkdir()
    elif kind == "device":
        at.symlink_to("/dev/zero")
    with pytest.raises(OSError):
        foreign.read(folder, "engine.log", 100)


def test_a_link_to_a_socket_is_no_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "real.sock"))
        (tmp_path / "e.sock").symlink_to(tmp_path / "real.sock")
        assert foreign.is_socket(tmp_path / "real.sock")
        assert not foreign.is_socket(tmp_path / "e.sock")
        assert not foreign.is_socket(tmp_path / "none.sock")
