"""corral.toml is refused with line and reason; paths follow the environment."""

from pathlib import Path

import pytest

from core.errors import Invalid
from core.settings import Settings, load, parse, user_paths


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("[daemon]\nlog_level='loud'\n", 2, "loud"),
        ("[daemon]\nfoo=1", 2, "unknown key 'foo'"),
        ("\n\nbar=2", 3, "unknown key 'bar'"),
        ("[gateway]\n\nqueue = -1", 3, ">= 0"),
        ("[gateway\n", 1, "TOML"),
        ("[replicas]\n# pauses\nbackoff_s=[1,'x']", 3, "float"),
        ("[samples]\nevery_s = 0.1", 2, "0.2"),
        ("[capacity]\nthreads = 'many'", 2, "int"),
    ],
)
def test_a_wrong_file_names_its_line_and_the_reason(text: str, line: int, word: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text, "corral.toml")
    assert f"corral.toml:{line}:" in str(caught.value)
    assert word in str(caught.value)


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
