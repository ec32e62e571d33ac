"""Writes the table of docs/gateway.md: the routes, what a key names them by, and which engine has them."""

from __future__ import annotations

import sys
from pathlib import Path

from core.engines.registry import registry
from core.gateway.apis import APIS, ROUTES
from core.settings import EnginesTable

DOC = Path(__file__).parents[2] / "docs" / "gateway.md"
BEGIN, END = "<!-- made by tests/gateway/routes.py -->", "<!-- end -->"


def table() -> str:
    engines = registry(EnginesTable())
    lines = [
        f"| route | endpoint of a key | tokens | {' | '.join(engines.names)} |",
        "|---|---|---|" + "---|" * len(engines.names),
    ]
    for api in APIS:
        names = [target.decode() for target, each in ROUTES.items() if each is api]
        has = ["yes" if api.path in engines.get(name).abilities.routes else "" for name in engines.names]
        paths = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {paths} | `{api.scope}` | {'yes' if api.costs else ''} | {' | '.join(has)} |")
    return "\n".join(lines)


def written() -> str:
    """docs/gateway.md with the table of now."""
    text = DOC.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOC.write_text(written(), encoding="utf-8")
    sys.exit(0)
