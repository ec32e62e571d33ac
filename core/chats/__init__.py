"""Conversations: a turn belongs to the daemon, so that a closed terminal loses nothing. What was said is sealed."""

from core.chats.forgetting import Forgetting
from core.chats.holds import Holds
from core.chats.master import Masters
from core.chats.others import Others
from core.chats.retention import Retention
from core.chats.rooms import PRIVATE_S
from core.chats.rules import Rules
from core.chats.sealing import Sealing
from core.chats.service import Chats
from core.chats.vault import Vault

__all__ = ["PRIVATE_S", "Chats", "Forgetting", "Holds", "Masters", "Others", "Retention", "Rules", "Sealing", "Vault"]
