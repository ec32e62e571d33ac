"""Makes the tables of docs/access.md: what each role may, and what each route of the interface asks for."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from core.access import Gate
from core.access.permissions import BUILTIN, PERMISSIONS
from core.api.routes import add_routes
from core.api.server import ANYBODY, Server


def server(gate: Any = None) -> Server:
    """All routes, over services that are not there."""
    made = Server(gate or Mock(Gate), "the log")
    add_routes(made, Mock())
    return made


def table() -> str:
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
