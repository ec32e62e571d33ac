"""The screens, one a mode, each imported when it is first opened, or ahead of that while nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.screen import Screen

STYLES = Path(__file__).parent / "screens"
AHEAD = (
    "deployments",
    "models",
    "chat",
    "access",
    "audit",
    "chatforms",
    "accessforms",
    "auditforms",
    "deploy",
    "confirm",
    "palette",
    "help",
    "log",
    "explain",
    "importing",
    "models_curve",
    "models_fit",
    "models_info",
    "models_jobs",
    "models_pull",
    "models_recommend",
)
"""Screens that are imported while nobody waits, after the first paint: 20-60 ms less at their first opening."""


def _overview() -> Screen[Any]:
    from tui.screens.overview import Overview

    return Overview()


def _deployments() -> Screen[Any]:
    from tui.screens.deployments import Deployments

    return Deployments()


def _models() -> Screen[Any]:
    from tui.screens.models import Models

    return Models()


def _chat() -> Screen[Any]:
    from tui.screens.chat import ChatRoom

    return ChatRoom()


def _access() -> Screen[Any]:
    from tui.screens.access import Access

    return Access()


def _audit() -> Screen[Any]:
    from tui.screens.audit import Audit

    return Audit()


MODES: dict[str, str | Callable[[], Screen[Any]]] = {
    "overview": _overview, "deployments": _deployments, "models": _models, "chat": _chat, "access": _access,
    "audit": _audit,
}  # fmt: skip
"""Makes the screen of each mode."""
