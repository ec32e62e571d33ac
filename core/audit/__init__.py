"""The hash-chained log: write, read, verify, sign, export."""

from core.audit.archive import Archiver
from core.audit.chain import GENESIS, encode
from core.audit.export import Exporter
from core.audit.log import Audit
from core.audit.reader import Reader
from core.audit.signer import Signer
from core.audit.sinks import Sinks

__all__ = ["GENESIS", "Archiver", "Audit", "Exporter", "Reader", "Signer", "Sinks", "encode"]
