"""Who may do what, and the one gate that every action passes."""

from core.access.gate import Effect, Gate
from core.access.glass import Glass
from core.access.inquiry import Inquiry
from core.access.keys import Keys
from core.access.limits import Limiter
from core.access.rights import Rights
from core.access.service import Access
from core.access.serviceaccounts import ServiceAccounts

__all__ = ["Access", "Effect", "Gate", "Glass", "Inquiry", "Keys", "Limiter", "Rights", "ServiceAccounts"]
