"""What daemon and gateway say to each other: JSON lines on the gateway's control socket.

The gateway listens on `control.sock` (0600) in its folder; the daemon connects, checks the peer's uid and sends
`Hello`. A line is one tagged Struct and a newline, 16 MiB at most. Unknown tags are answered with `Refused`.
The formats carry `WIRE_VERSION`; a gateway of one release back is understood.

daemon -> gateway: Hello, Snapshot, UsageAck, HandOver, Ask
gateway -> daemon: Welcome, SnapshotAck, UsageBatch, Live, Refused, Report
gateway -> its successor: Handed, Busy (on a socket of their own); back: Report
"""

from __future__ import annotations

from core.gateway.wire.limits import Four, Held, Kept, Limited, Limits, Spent, Use
from core.gateway.wire.live import DoorLive, RouteLive
from core.gateway.wire.messages import (
    WIRE_VERSION,
    Ask,
    Busy,
    FromDaemon,
    FromGateway,
    Handed,
    HandOver,
    Hello,
    Live,
    Message,
    Refused,
    Report,
    Snapshot,
    SnapshotAck,
    ToSuccessor,
    UsageAck,
    UsageBatch,
    Welcome,
)
from core.gateway.wire.routes import ReplicaRoute, Route
from core.gateway.wire.settings import Files, GatewayLimits
from core.gateway.wire.usage import SEVERAL, Denied, UsageLine
from core.gateway.wire.who import Allowed, Ended, Key, Rule

__all__ = [
    "SEVERAL",
    "WIRE_VERSION",
    "Allowed",
    "Ask",
    "Busy",
    "Denied",
    "DoorLive",
    "Ended",
    "Files",
    "Four",
    "FromDaemon",
    "FromGateway",
    "GatewayLimits",
    "HandOver",
    "Handed",
    "Held",
    "Hello",
    "Kept",
    "Key",
    "Limited",
    "Limits",
    "Live",
    "Message",
    "Refused",
    "ReplicaRoute",
    "Report",
    "Route",
    "RouteLive",
    "Rule",
    "Snapshot",
    "SnapshotAck",
    "Spent",
    "ToSuccessor",
    "UsageAck",
    "UsageBatch",
    "UsageLine",
    "Use",
    "Welcome",
]
