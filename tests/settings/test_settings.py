"""corral.toml is refused with line and reason; paths follow the environment."""

import os
import pwd
from pathlib import Path

import pytest

from core.errors import Invalid
from core.paths import cache_folder, user_paths
from core.settings import Settings, load, parse


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "corral.toml") == Settings()


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match="cannot be read"):
        load(file)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """It names programs that the daemon starts."""
    file = tmp_path / "corral.toml"
    file.write_text("")
    for mode in (0o600, 0o644, 0o444):
        file.chmod(mode)
        assert load(file) == Settings()
    for mode in (0o646, 0o602, *([0o664] if os.getuid() == 0 else [])):
        file.chmod(mode)
        with pytest.raises(Invalid, match=rf"may be written by others .mode {mode:04o}.*names programs.*chmod go-w"):
            load(file)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_text("")
    os.chown(file, 65534, 65534)
    with pytest.raises(Invalid, match=r"belongs to uid 65534.*chown 0 "):
        load(file)


def test_a_passphrase_as_the_next_master_key_is_refused_with_the_way_there() -> None:
    with pytest.raises(Invalid, match=r"corral.toml:2: .*is a file.*master_key = .passphrase.*rekey"):
        parse('[chats]\nnext_master_key = "passphrase"\n')
    assert parse('[chats]\nmaster_key = "passphrase"\nnext_master_key = "/k"\n').chats.next_master_key == "/k"


def test_corral_home_moves_everything() -> None:
    paths = user_paths({"CORRAL_HOME": "/srv/c", "HOME": "/home/x"})
    for path in (paths.config, paths.socket, paths.database, paths.models, paths.gateway_socket, paths.daemon_log):
        assert path.is_relative_to("/srv/c")


def test_a_relative_corral_home_is_refused() -> None:
    with pytest.raises(Invalid, match="absolute"):
        user_paths({"CORRAL_HOME": "here"})


def test_state_and_config_follow_xdg() -> None:
    paths = user_paths({"HOME": "/home/x", "XDG_CONFIG_HOME": "/cfg"})
    assert paths.config == Path("/cfg/corral/corral.toml")
    assert paths.state.is_relative_to("/home/x/.local/state/corral")


@pytest.mark.parametrize("name", ["CORRAL_HOME", "HOME", "XDG_STATE_HOME"])
def test_a_folder_whose_name_is_no_text_is_refused(name: str) -> None:
    """It was a UnicodeEncodeError of whatever wrote it down first."""
    with pytest.raises(Invalid, match=rf"{name} is /srv/\\xff; it is not UTF-8"):
        user_paths({"HOME": "/home/x"} | {name: os.fsdecode(b"/srv/\xff")})


@pytest.mark.parametrize(("home", "words"), [("", "HOME is not set"), ("x", "HOME is 'x'")])
def test_without_a_home_folder_nothing_is_put_below_the_root(home: str, words: str) -> None:
    """The state lay in /.local/state/corral."""
    for find in (user_paths, cache_folder):
        with pytest.raises(Invalid, match=f"{words}.*or CORRAL_HOME"):
            find({"HOME": home})
    paths = user_paths({"HOME": home, "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"})
    assert (paths.root, paths.config) == (Path("/s/corral"), Path("/c/corral/corral.toml"))


def test_without_a_variable_the_home_folder_is_the_accounts_and_a_relative_one_counts_for_nothing() -> None:
    account = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert user_paths({}).root == account / ".local/state/corral"
    assert user_paths({"XDG_STATE_HOME": "here", "HOME": "/h"}).root == Path("/h/.local/state/corral")


@pytest.mark.parametrize("hub", ["https://u:p@h", "ftp://h", "h", "https://h/?q=1", "https://"])
def test_a_hub_is_a_plain_address(hub: str) -> None:
    with pytest.raises(Invalid, match="no address of a hub"):
        parse(f'[pull]\nhub = "{hub}"\n')
    assert parse('[pull]\nhub = "http://10.0.0.7:8080/hf"\n').pull.hub == "http://10.0.0.7:8080/hf"
