"""Who may use which deployment without a key: peers of the socket, by the rules of the last snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.gateway import wire

KEPT = 4096
"""Peers whose rules are remembered; then all are forgotten."""


class Users:
    """The rules of one snapshot. Asked for each request: what concerns a peer is looked up once."""

    def __init__(self, allowed: wire.Allowed, clock: Callable[[], float] = time.time) -> None:
        self._uids, self._gids = frozenset(allowed.uids), frozenset(allowed.gids)
        self._rules = allowed.rules
        self._clock = clock
        self._of: dict[tuple[int, frozenset[int]], tuple[wire.Rule, ...] | None] = {}

    def _rules_of(self, uid: int, groups: frozenset[int]) -> tuple[wire.Rule, ...] | None:
        """The rules that concern a peer; None: it may use everything."""
        key = (uid, groups)
        try:
            return self._of[key]
        except KeyError:
            pass
        found: tuple[wire.Rule, ...] | None = None
        if uid not in self._uids and self._gids.isdisjoint(groups):
            mine = [rule for rule in self._rules if (rule.id == uid if rule.user else rule.id in groups)]
            found = tuple(sorted(mine, key=lambda rule: not rule.glass))
        if len(self._of) >= KEPT:
            self._of.clear()
        self._of[key] = found
        return found

    def some(self, uid: int, groups: frozenset[int]) -> bool:
        """Is there a deployment that this peer may use?"""
        rules = self._rules_of(uid, groups)
        return rules is None or any(not rule.deny and self._holds(rule) for rule in rules)

    def may(self, uid: int, groups: frozenset[int], deployment: str) -> bool:
        """May this peer use `deployment`?"""
        rules = self._rules_of(uid, groups)
        if rules is None:
            return True
        allowed = False
        object = f"deployment:{deployment}"
        for rule in rules:
            scope = rule.scope
            fits = object.startswith(scope[:-1]) if scope.endswith("*") else object == scope
            if fits and self._holds(rule):
                if rule.deny:
                    return False
                if rule.glass:
                    return True
                allowed = True
        return allowed

    def _holds(self, rule: wire.Rule) -> bool:
        return rule.until is None or self._clock() < rule.until
