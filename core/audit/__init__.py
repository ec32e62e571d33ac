"""The hash-chained log: write, read, verify."""

from core.audit.chain import GENESIS, encode
from core.audit.log import Audit

__all__ = ["GENESIS", "Audit", "encode"]
