"""Makes the table of docs/gateway.md: the routes, what a key names them by, and which engine has them."""

from __future__ import annotations

from core.engines.registry import registry
from core.gateway.apis import APIS, ROUTES
from core.settings import EnginesTable


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
