"""Deployments that are sensitive: only on nodes with their labels, no history, no sharing, keys only of some groups.

The mark belongs to the name. It is looked at when something is deployed, started, scaled or moved, once more before
each launch, and for every request with a key: the gateway's rules have it.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from core.access import Access, Gate, tables
from core.access.people import subject_named
from core.errors import Conflict, Invalid, NotFound
from core.nodes.labels import Labels, split
from core.nouns import Actor, DeploymentSpec, Mark

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Sensitive:
    """The marks. `runs` tells on which nodes replicas of a deployment run; `spec` what is deployed under a name."""

    def __init__(
        self, gate: Gate, access: Access, labels: Labels, *, runs: Callable[[str], Iterable[str]],
        spec: Callable[[str], DeploymentSpec | None], clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._gate, self._access, self._labels = gate, access, labels
        self._runs, self._spec, self._clock = runs, spec, clock

    def of(self, deployment: str) -> Mark | None:
        return self._gate.rights.marks.get(deployment)

    def ls(self) -> list[Mark]:
        return list(self._gate.rights.marks.values())

    def hinders(self, deployment: str, node: str) -> str:
        """Why a replica of it may not run on this node, as a sentence; "" if it may."""
        mark = self.of(deployment)
        lacking = self._labels.lacks(node, mark.labels) if mark is not None else []
        return f"{deployment} is sensitive and the node {node} lacks {', '.join(lacking)}" if lacking else ""

    def check(self, spec: DeploymentSpec, node: str) -> None:
        """Raises `Conflict` if what is asked for may not run there."""
        if self.of(spec.name) is not None and spec.engine == "attach":
            raise _elsewhere(spec.name)
        if why := self.hinders(spec.name, node):
            raise Conflict(why, "it may run only where its labels are",
                           f"corral nodes label {node} KEY=VALUE, if that node is fit for it")  # fmt: skip

    def needing(self, node: str, labels: dict[str, str]) -> list[str]:
        """Which deployments run on this node and could not with these labels alone."""
        had = {f"{key}={value}" for key, value in labels.items()}
        return [mark.deployment for mark in self.ls() if node in self._runs(mark.deployment) and set(mark.labels) - had]

    async def mark(
        self, actor: Actor, request: str, deployment: str, *, labels: Sequence[str], groups: Sequence[str] = (),
        reason: str = "",
    ) -> Mark:  # fmt: skip
        """Say that it is sensitive, or how. Raises `Invalid`, `NotFound`, `NotAllowed`, `Conflict` where it runs on a
        node without these labels."""
        if not _NAME.fullmatch(deployment):
            raise Invalid(f"{deployment!r} is no name for a deployment")
        if not labels:
            raise Invalid("no label is named", "a sensitive deployment runs only on nodes with a label",
                          "for example --label zone=secure")  # fmt: skip
        for label in labels:
            split(label)
        if len({label.partition("=")[0] for label in labels}) < len(set(labels)):
            raise Invalid("two labels have the same key", "no node can have both")
        whose = [await subject_named(each) for each in dict.fromkeys(groups)]
        if any(each.kind not in ("group", "team") for each in whose):
            raise Invalid("whose keys may use it is said by groups", todo="say group:NAME or team:NAME")
        made = Mark(
            deployment=deployment, labels=tuple(dict.fromkeys(labels)), groups=tuple(whose), reason=reason[:500],
            by=actor.name, at=self._clock(),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            for team in (each.name for each in whose if each.kind == "team"):
                if team not in self._gate.rights.teams:
                    raise NotFound(f"there is no team {team}", todo="corral access teams")
            spec = self._spec(deployment)
            if spec is not None and spec.engine == "attach":
                raise _elsewhere(deployment)
            for node in sorted(set(self._runs(deployment))):
                if lacking := self._labels.lacks(node, made.labels):
                    raise Conflict(
                        f"{deployment} runs on {node}, which lacks {', '.join(lacking)}",
                        "a sensitive deployment runs only where its labels are",
                        f"stop it first, or: corral nodes label {node} {lacking[0]}",
                    )  # fmt: skip
            old = self.of(deployment)
            tables.put_mark(db, made)
            self._access.put_in_force(db)
            return None, old, made

        await self._gate.act(actor, "deployments.mark", f"deployment:{deployment}", request, work, reason=reason)
        await self._access.changed()
        return made

    async def unmark(self, actor: Actor, request: str, deployment: str, reason: str = "") -> None:
        """It is sensitive no more. Raises `NotFound`, `NotAllowed`."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            old = self.of(deployment)
            if old is None:
                raise NotFound(f"{deployment} is not marked", todo="corral deployments marks")
            tables.delete_mark(db, deployment)
            self._access.put_in_force(db)
            return None, old, None

        await self._gate.act(actor, "deployments.mark", f"deployment:{deployment}", request, work, reason=reason)
        await self._access.changed()


def _elsewhere(deployment: str) -> Conflict:
    return Conflict(f"{deployment} is sensitive and would be a server of somebody else", "where that runs nobody knows",
                    "run the model here, or take its mark away")  # fmt: skip


def said(mark: Mark) -> str:
    """A sentence."""
    keys = f"keys of {', '.join(map(str, mark.groups))} alone" if mark.groups else "no keys"
    why = f": {mark.reason}" if mark.reason else ""
    return (
        f"It is sensitive{why}. It runs only on nodes with {', '.join(mark.labels)}, keeps no chats, and takes {keys}."
    )
