"""Labels of nodes (`zone=secure`), the local one's too: what a deployment may ask of where it runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping

from core.access import Gate
from core.errors import Conflict, Invalid, missing
from core.nouns import Actor, NodeLabels
from core.store import Store

MOST = 64
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def split(label: str) -> tuple[str, str]:
    """`zone=secure` in two. Raises `Invalid`."""
    key, _, value = label.partition("=")
    if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
        raise Invalid(f"{label!r} is no label", "it is KEY=VALUE of letters, digits, ., _ and -, the key in lower case",
                      "for example zone=secure")  # fmt: skip
    return key, value


class Labels:
    """The service that owns them. `nodes` names the hosts that there are; `needed` tells which deployments would run
    where they must not if a node had these labels alone."""

    def __init__(
        self, store: Store, gate: Gate, nodes: Callable[[], list[str]],
        needed: Callable[[str, Mapping[str, str]], list[str]],
    ) -> None:  # fmt: skip
        self._store, self._gate = store, gate
        self._nodes, self._needed = nodes, needed
        self._of: dict[str, dict[str, str]] = {}

    async def start(self) -> None:
        """Read them."""
        self._of = await self._store.read(_all)

    def ls(self) -> list[NodeLabels]:
        """Of every node, by name."""
        return [NodeLabels(node=name, labels=self.of(name)) for name in sorted(self._nodes())]

    def of(self, node: str) -> dict[str, str]:
        return self._of.get(node, {})

    def lacks(self, node: str, labels: tuple[str, ...]) -> list[str]:
        """Those of `labels` that the node does not have."""
        there = self.of(node)
        return [label for label in labels if there.get(label.partition("=")[0]) != label.partition("=")[2]]

    async def change(self, actor: Actor, request: str, node: str, changes: Mapping[str, str | None]) -> NodeLabels:
        """Set labels, or with None remove them. Raises `Invalid`, `NotFound`, `Conflict` (what runs needs one)."""
        for key, value in changes.items():
            split(f"{key}={'x' if value is None else value}")
        if node not in self._nodes():
            raise missing("node", node)

        def work(db: sqlite3.Connection) -> tuple[dict[str, str], object, object]:
            old = _all(db).get(node, {})
            new = {key: value for key, value in {**old, **changes}.items() if value is not None}
            if len(new) > MOST:
                raise Invalid(f"{node} would have {len(new)} labels", f"it may have {MOST}")
            if needed := self._needed(node, new):
                raise Conflict(
                    f"{', '.join(needed)} runs on {node} and is sensitive", "it may run only where its labels are",
                    "stop it first, or take its mark away",
                )  # fmt: skip
            db.execute("DELETE FROM node_labels WHERE node = ?", (node,))
            db.executemany(
                "INSERT INTO node_labels (node, key, value) VALUES (?, ?, ?)",
                [(node, key, value) for key, value in sorted(new.items())],
            )
            self._store.on_commit(lambda: self._of.__setitem__(node, new))
            return new, old, new

        new = await self._gate.act(actor, "nodes.label", f"node:{node}", request, work)
        return NodeLabels(node=node, labels=new)


def _all(db: sqlite3.Connection) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for node, key, value in db.execute("SELECT node, key, value FROM node_labels ORDER BY node, key"):
        found.setdefault(node, {})[key] = value
    return found
