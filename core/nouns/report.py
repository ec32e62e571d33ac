"""The report for an auditor: everything that a page of it says."""

from __future__ import annotations

from core.nouns.access import GrantShown, Held, Role, Team
from core.nouns.audit import (
    AuditArchive,
    AuditKeys,
    AuditRecord,
    ChainReport,
    ReportGap,
    ReportPerson,
    ReportRefusal,
    ReportUse,
    SinkStatus,
)
from core.nouns.base import Noun


class AuditHistory(Noun, frozen=True, kw_only=True):
    """What the trail says of a span of time. Each list has 500 lines at most; `…_all` says how many there would be."""

    first: int
    """seq of the first record of that time; 0 for none."""
    last: int
    records: int
    people: tuple[ReportPerson, ...]
    people_all: int
    changes: tuple[AuditRecord, ...]
    changes_all: int
    break_glass: tuple[AuditRecord, ...]
    break_glass_all: int
    refusals: tuple[ReportRefusal, ...]
    refusals_all: int
    gaps: tuple[ReportGap, ...]
    gaps_all: int
    archives: tuple[AuditArchive, ...]
    """Where records lie that are no longer here."""


class AuditReport(AuditHistory, frozen=True, kw_only=True):
    """`corral audit report`."""

    host: str
    version: str
    mode: str
    made_by: str
    made_at: str
    since: str
    """"" for all."""
    chain: ChainReport
    keys: AuditKeys
    sinks: tuple[SinkStatus, ...]
    almighty: tuple[str, ...]
    """Who needs no grant."""
    grants: tuple[GrantShown, ...]
    matrix: tuple[Held, ...]
    use: tuple[ReportUse, ...]
    """As the gateway counted."""
    use_all: int
    roles: tuple[Role, ...]
    teams: tuple[Team, ...]
