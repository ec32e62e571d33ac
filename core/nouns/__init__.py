"""The vocabulary: frozen Structs that daemon, gateway, terminal and scripts share.

Sizes are bytes, times are UTC seconds since the epoch (float) unless a name says otherwise, `ctx` is the total
number of context cells of a replica and `ctx_per_slot` the share of one conversation. Readers accept words that
they don't know (a newer daemon may have more states), so states are strings and not enums.
"""

from __future__ import annotations

from core.nouns.access import Decision, Difference, Grant, Held, Mark, Role, ServiceAccount, Subject, Team, Whoami
from core.nouns.actors import CORRAL, STRANGER, Actor
from core.nouns.audit import (
    AcceptedFault,
    AuditArchive,
    AuditArchives,
    AuditKey,
    AuditKeys,
    AuditPage,
    AuditPlan,
    AuditRecord,
    ChainFault,
    ChainProgress,
    ChainReport,
    FileKey,
    FileReport,
    Outcome,
    ReportGap,
    ReportPerson,
    ReportRefusal,
    ReportUse,
    SinkStatus,
)
from core.nouns.base import Noun
from core.nouns.chats import (
    Chat,
    ChatDetail,
    ChatKey,
    ChatOptions,
    Forgotten,
    Hold,
    OthersChats,
    RetentionRule,
    Turn,
)
from core.nouns.daemon import DaemonStatus, DoorStatus, Event, GatewayCertificate, GatewayStatus, Picture, Status
from core.nouns.deployments import (
    Change,
    Deployment,
    DeploymentSpec,
    EngineName,
    Explanation,
    LaunchStory,
    LogText,
    Plan,
    PlanParts,
    Replica,
)
from core.nouns.keys import ENDPOINTS, AccountDetail, FoundKey, Key, NewKey
from core.nouns.limits import Left, Limit, Limits, LimitView
from core.nouns.models import ImportJob, Model, ModelFile, ModelShape
from core.nouns.nodes import Counters, NodeFacts, NodeLabels, NodeSample, ProcessSample
from core.nouns.report import AuditHistory, AuditReport
from core.nouns.usage import UsageReport, UsageRow, UsageSums

API_VERSION = 1
"""Of the control interface; its routes lie under /api/v1. A terminal refuses a daemon with another one."""

__all__ = [
    "API_VERSION",
    "CORRAL",
    "ENDPOINTS",
    "STRANGER",
    "AcceptedFault",
    "AccountDetail",
    "Actor",
    "AuditArchive",
    "AuditArchives",
    "AuditHistory",
    "AuditKey",
    "AuditKeys",
    "AuditPage",
    "AuditPlan",
    "AuditRecord",
    "AuditReport",
    "ChainFault",
    "ChainProgress",
    "ChainReport",
    "Change",
    "Chat",
    "ChatDetail",
    "ChatKey",
    "ChatOptions",
    "Counters",
    "DaemonStatus",
    "Decision",
    "Deployment",
    "DeploymentSpec",
    "Difference",
    "DoorStatus",
    "EngineName",
    "Event",
    "Explanation",
    "FileKey",
    "FileReport",
    "Forgotten",
    "FoundKey",
    "GatewayCertificate",
    "GatewayStatus",
    "Grant",
    "Held",
    "Hold",
    "ImportJob",
    "Key",
    "LaunchStory",
    "Left",
    "Limit",
    "LimitView",
    "Limits",
    "LogText",
    "Mark",
    "Model",
    "ModelFile",
    "ModelShape",
    "NewKey",
    "NodeFacts",
    "NodeLabels",
    "NodeSample",
    "Noun",
    "OthersChats",
    "Outcome",
    "Picture",
    "Plan",
    "PlanParts",
    "ProcessSample",
    "Replica",
    "ReportGap",
    "ReportPerson",
    "ReportRefusal",
    "ReportUse",
    "RetentionRule",
    "Role",
    "ServiceAccount",
    "SinkStatus",
    "Status",
    "Subject",
    "Team",
    "Turn",
    "UsageReport",
    "UsageRow",
    "UsageSums",
    "Whoami",
]
