"""Where the trail goes besides the database: a file of JSON lines, journald, syslog over TLS."""

from core.audit.sinks.service import Sinks

__all__ = ["Sinks"]
