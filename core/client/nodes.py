"""The calls about labels of nodes, and about deployments that are sensitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from core.client.access import Caller
from core.nouns import Mark, NodeLabels


class NodeCalls:
    """`client.nodes`."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def ls(self) -> list[NodeLabels]:
        return await self._client.call("GET", "/nodes", list[NodeLabels])

    async def label(self, node: str, labels: Mapping[str, str | None]) -> NodeLabels:
        """Set labels; None removes one."""
        path = f"/nodes/{quote(node, safe='')}/labels"
        return await self._client.call("PATCH", path, NodeLabels, {"labels": dict(labels)})

    async def marks(self) -> list[Mark]:
        return await self._client.call("GET", "/marks", list[Mark])

    async def mark(
        self, deployment: str, labels: Sequence[str], groups: Sequence[str] = (), reason: str = ""
    ) -> Mark:  # fmt: skip
        """`labels` as `zone=secure`; `groups` as `team:ml`, `group:staff`: whose keys may use it."""
        body = {"labels": list(labels), "groups": list(groups), "reason": reason}
        return await self._client.call("PUT", f"/deployments/{quote(deployment, safe='')}/mark", Mark, body)

    async def unmark(self, deployment: str, reason: str = "") -> None:
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        await self._client.call("DELETE", f"/deployments/{quote(deployment, safe='')}/mark{query}", dict[str, str])
