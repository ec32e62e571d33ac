"""The tables in docs/ are those of the program."""

import runpy
from pathlib import Path

import pytest

PAGES = runpy.run_path(str(Path(__file__).parents[1] / "documented.py"))["PAGES"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_documentation_are_those_of_the_program(page) -> None:
    assert page.filled() == page.text(), "run python -P tests/documented.py"
