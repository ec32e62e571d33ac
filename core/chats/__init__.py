"""Conversations: a turn belongs to the daemon, so that a closed terminal loses nothing."""

from core.chats.retention import Retention
from core.chats.service import Chats

__all__ = ["Chats", "Retention"]
