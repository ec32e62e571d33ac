"""`python -P tests/documented.py` writes the tables of docs/ that are made from the program.

Each stands between a line that names its maker, a file with a function `table`, and an end. Without -P tests/core would
be taken for core.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
END = "<!-- end -->"


class Page(NamedTuple):
    """A file with one such table; both from the clone's folder on."""

    name: str
    maker: str

    def text(self) -> str:
        """As it stands there."""
        return (ROOT / self.name).read_text(encoding="utf-8")

    def filled(self) -> str:
        """With the table of now."""
        begin = f"<!-- made by {self.maker} -->"
        before, found, rest = self.text().partition(begin)
        assert found, f"{self.name} has no line {begin}"
        table = runpy.run_path(str(ROOT / self.maker))["table"]()
        return f"{before}{begin}\n{table}\n{END}{rest.partition(END)[2]}"


PAGES = (Page("docs/access.md", "tests/access/matrix.py"), Page("docs/gateway.md", "tests/gateway/routes.py"))


if __name__ == "__main__":
    for each in PAGES:
        (ROOT / each.name).write_text(each.filled(), encoding="utf-8")
