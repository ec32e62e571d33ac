"""The report for an auditor: everything that a page of it says."""

from __future__ import annotations

from core.nouns.access import Grant, Held, Role, Team
from core.nouns.audit import (
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


class AuditReport(Noun, frozen=True, kw_only=True):
    """`corral audit report`. Each list has 500 lines at most; `…_all` says how many there would be."""

    host: str
    version: str
    mode: str
    made_by: str
    made_at: str
    since: str
    """"" for all."""
    first: int
    """seq of the first record of that time; 0 for none."""
    last: int
    records: int
    chain: ChainReport
    keys: AuditKeys
    sinks: tuple[SinkStatus, ...]
    almighty: tuple[str, ...]
    """Who needs no grant."""
    grants: tuple[Grant, ...]
    matrix: tuple[Held, ...]
    roles: tuple[Role, ...]
    teams: tuple[Team, ...]
    people: tuple[ReportPerson, ...]
    people_all: int
    use: tuple[ReportUse, ...]
    use_all: int
    changes: tuple[AuditRecord, ...]
    changes_all: int
    refusals: tuple[ReportRefusal, ...]
    refusals_all: int
    gaps: tuple[ReportGap, ...]
    gaps_all: int
