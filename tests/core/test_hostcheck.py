"""What can be wrong with the place a daemon starts in, each with its sentence."""

import os
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from core.errors import Conflict, Failed, StoreError
from core.hostcheck import DaemonLock, check_socket, clear_socket, make_folders, refuse_network
from core.paths import Paths


def paths_in(folder: Path) -> Paths:
    return Paths(folder, folder / "corral.toml", "0badcafe")


def test_folders_are_made_private(tmp_path: Path) -> None:
    paths = paths_in(tmp_path / "home")
    make_folders(paths)
    for folder in (paths.state, paths.records, paths.launches, paths.gateway, paths.models):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    make_folders(paths)
    paths.records.chmod(0o770)
    with pytest.raises(Failed, match="may be written by others"):
        make_folders(paths)


@pytest.mark.parametrize(("mode", "refused"), [(0o755, False), (0o775, False), (0o777, True), (0o1777, False)])
def test_a_home_that_everybody_may_write_is_refused_unless_it_is_sticky(
    tmp_path: Path, mode: int, refused: bool
) -> None:
    paths = paths_in(tmp_path / "home")
    make_folders(paths)
    paths.root.chmod(mode)
    with pytest.raises(Failed, match="may be written by others") if refused else nullcontext():
        make_folders(paths)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    make_folders(paths)
    os.chown(paths.state, 65534, 65534)
    with pytest.raises(Failed, match="belongs to uid 65534"):
        make_folders(paths)


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    paths = paths_in(tmp_path / "home")
    make_folders(paths)
    paths.records.rmdir()
    (tmp_path / "elsewhere").mkdir()
    paths.records.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed, match="not a folder"):
        make_folders(paths)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(Failed):
        make_folders(paths_in(tmp_path / "home"))


def test_a_socket_path_over_107_bytes_is_refused() -> None:
    check_socket(Path("/" + "a" * 106))
    with pytest.raises(Failed, match="108 bytes"):
        check_socket(Path("/" + "a" * 107))


def test_only_one_daemon_gets_the_lock_and_the_other_learns_the_pid(tmp_path: Path) -> None:
    first, second = DaemonLock(tmp_path / "lock"), DaemonLock(tmp_path / "lock")
    first.take()
    with pytest.raises(Conflict, match=f"pid {os.getpid()} on {socket.gethostname()}"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_stale_lock_file_of_a_recycled_pid_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"pid": 1, "boot_id": "x", "start_time": 1, "host": "other"}')
    lock = DaemonLock(tmp_path / "lock")
    lock.take()
    assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
    lock.release()


def test_a_stale_socket_is_removed_and_a_file_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    clear_socket(tmp_path / "s")
    assert not (tmp_path / "s").exists()
    (tmp_path / "f").write_text("mine")
    with pytest.raises(Failed, match="in the way"):
        clear_socket(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "mine"


@pytest.mark.parametrize("kind", ["nfs", "cifs", "fuse.sshfs", "9p", "lustre", "fuse.glusterfs", "ocfs2"])
def test_every_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(f"1 0 0:1 / / rw - {kind} server:/home rw\n")
    with pytest.raises(StoreError, match=f"network file system \\({kind} at /\\)"):
        refuse_network(tmp_path / "corral.db", info)


def test_a_network_file_system_is_refused_also_behind_a_link(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    remote = str(tmp_path / "far away").replace(" ", "\\040")
    info.write_text(f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {remote} rw - nfs4 server:/home rw\n")
    with pytest.raises(StoreError, match="nfs4 at "):
        refuse_network(tmp_path / "far away/alice/corral.db", info)
    refuse_network(tmp_path / "far away too/corral.db", info)
    (tmp_path / "far away").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far away")
    with pytest.raises(StoreError, match="nfs4"):
        refuse_network(tmp_path / "near/corral.db", info)
