"""corral.toml is refused with line and reason; paths follow the environment."""

from pathlib import Path

import pytest

from core.errors import Invalid
from core.settings import Settings, load, user_paths


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "corral.toml") == Settings()


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "corral.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match="cannot be read"):
        load(file)


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
