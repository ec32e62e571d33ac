"""How a launch ended and what follows: the sentence for a person, and whether and when it is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGKILL, Signals
from typing import NamedTuple

from core.engines.base import Failure
from core.nodes.base import ExitRecord, LaunchState

LOST = "keeper lost"
"""What the host says of a launch of which nobody wrote how it ended."""
ENDED = "its process has ended"
"""Of one whose keeper has not said yet how it ended, which it does within milliseconds."""
TOLD_LOST = (
    "keeper lost: the process that watched over the engine was killed (nobody saw by whom), and the engine ended"
    " with it"
)


class Verdict(NamedTuple):
    """The state after a death. `pause`: seconds to the next try, None if there is none."""

    state: str
    reason: str
    restarts: int
    pause: float | None


def of_ours(error: Exception) -> str:
    """The reason for a person of an error that nobody foresaw. Its words stay in the log: they may hold anything."""
    return f"an error of the daemon, told in its log: {type(error).__name__}"


def reason_of(exit: ExitRecord, failure: Failure, rss_planned: int, limit: int) -> str:
    """The engine's reason, or the keeper's where the engine could say nothing, with the kernel's line and with the
    memory at its death beside the plan."""
    reason = failure.reason
    if exit.code is None and exit.signal is None and exit.reason:
        reason = TOLD_LOST if exit.reason == LOST else exit.reason
    elif exit.oom_line:
        reason = f"{reason}; the kernel says: {exit.oom_line}"
    if exit.signal == SIGKILL and exit.peak_rss_bytes:
        sizes = [size >> 20 for size in (exit.peak_rss_bytes, rss_planned, limit)]
        reason += " (memory at its peak {} MiB, planned {} MiB, limit {} MiB)".format(*sizes)
    return reason


def verdict(
    *, wanted: bool, reason: str, permanent: bool, restarts: int, steady: bool, pauses: Sequence[float]
) -> Verdict:
    """`steady`: it was ready for so long that earlier deaths don't count. A start that can never work is not repeated,
    and one that died after the last of the `pauses` is not either."""
    count = 0 if steady else restarts
    if not wanted:
        return Verdict("stopped", reason, restarts, None)
    if permanent:
        return Verdict("failed", reason, restarts, None)
    if count >= len(pauses):
        return Verdict("failed", f"{reason}; it was restarted {count} times", restarts, None)
    return Verdict("backoff", reason, count + 1, pauses[count])


def never_ran(launch: str, owner: str, started_at: float, exit: ExitRecord) -> LaunchState:
    """A launch that is in the database and on no host."""
    return LaunchState(
        id=launch, kind="replica", owner=owner, alive=False, keeper_pid=None, pid=None, started_at=started_at,
        boot_id="", same_boot=True, spec={}, folder="", exit=exit,
    )  # fmt: skip


def signal_name(signal: int | None) -> str | None:
    """`SIGKILL` for 9; the number where the host has no name for it."""
    try:
        return None if signal is None else Signals(signal).name
    except ValueError:
        return str(signal)
