"""The hash-chained log: write, read, verify, sign."""

from core.audit.chain import GENESIS, encode
from core.audit.log import Audit
from core.audit.signer import Signer

__all__ = ["GENESIS", "Audit", "Signer", "encode"]
