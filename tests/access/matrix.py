"""Writes the tables of docs/access.md: what each role may, and what each route of the interface asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from core.access import Gate
from core.access.permissions import BUILTIN, PERMISSIONS
from core.api.routes import add_routes
from core.api.server import ANYBODY, Server

DOC = Path(__file__).parents[2] / "docs" / "access.md"
BEGIN, END = "<!-- made by tests/access/matrix.py -->", "<!-- end -->"


def server(gate: Any = None) -> Server:
    """All routes, over services that are not there."""
    made = Server(gate or Mock(Gate), "the log")
    add_routes(made, Mock())
    return made


def tables() -> str:
    roles = list(BUILTIN)
    lines = [f"| permission | on | lets one | {' | '.join(roles)} |", "|---|---|---|" + "---|" * len(roles)]
    for each in PERMISSIONS.values():
        marks = ["yes" if each.name in BUILTIN[role].allows else "" for role in roles]
        lines.append(f"| `{each.name}` | {each.kind} | {each.words} | {' | '.join(marks)} |")
    lines += ["", "| route | permission | on |", "|---|---|---|"]
    for right in server().rights:
        on = right.on or ("" if right.permission == ANYBODY else "each thing it touches or shows")
        permission = right.permission if right.permission == ANYBODY else f"`{right.permission}`"
        permission += f" or `{right.or_else}`" if right.or_else else ""
        lines.append(f"| {right.method} `{right.path}` | {permission} | {on} |")
    return "\n".join(lines)


def written() -> str:
    """docs/access.md with the tables of now."""
    text = DOC.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    DOC.write_text(written(), encoding="utf-8")
    sys.exit(0)
