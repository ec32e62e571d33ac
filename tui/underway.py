"""What is under way with models, in one list: pulls, imports, moves between tiers, measurements, the verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.errors import ErrorBody
from core.nouns import BenchJob, ImportJob, MoveJob, Pull, Verified
from tui.moving import along
from tui.spoken import spoken
from tui.state import State
from tui.words import lasting, plural, size, state, why_unread

OVER = ("done", "failed", "cancelled")
"""States of what has ended."""


class Job(NamedTuple):
    """One of them. `key` is kind and id: `pull:ab12`."""

    key: str
    model: str
    state: str
    done: int
    total: int
    rate: float = 0.0
    """Bytes a second; 0: not known."""
    left_s: float | None = None
    why: str = ""
    """What it is about, or why it stands or failed."""
    unit: str = ""
    """What is counted in place of bytes."""

    @property
    def kind(self) -> str:
        """pull, import, move, bench or verify."""
        return self.key.partition(":")[0]

    @property
    def id(self) -> str:
        return self.key.partition(":")[2]

    @property
    def share(self) -> str:
        return f"{100 * self.done // self.total} %" if self.total else "-"

    @property
    def amount(self) -> str:
        """All of it: `1.2 GiB`, `9 points`."""
        return f"{self.total} {self.unit}" if self.unit else size(self.total)

    @property
    def to_go(self) -> str:
        """What is to be done yet: `840 MiB to go`; "" where nothing is counted."""
        if self.over or self.unit or not 0 <= self.done < self.total:
            return ""
        return f"{size(self.total - self.done)} to go"

    @property
    def over(self) -> bool:
        return self.state in OVER


def jobs(known: State) -> list[Job]:
    """All that one sees, what goes on first and of that the newest first."""
    found = [_pull(each) for each in known.pulls.values()]
    found += [_import(each) for each in known.imports.values()]
    found += [_move(each) for each in known.moves.values()]
    found += [of_bench(each) for each in known.benches.values() if each.kind == "model"]
    if known.verified is not None:
        found.append(of_verify(known.verified))
    return sorted(reversed(found), key=lambda each: each.over)


def _why(error: ErrorBody | None) -> str:
    return spoken(error) if error is not None else ""


def _pull(pull: Pull) -> Job:
    why = _why(pull.error) or "; ".join(pull.notes[-1:]) or pull.source
    wanted = pull.deploy
    if wanted is not None and wanted.state == "waits":
        why = f"then deployed as {wanted.spec.name}; {_why(wanted.error) or why}"
    elif wanted is not None and wanted.state == "done":
        why = f"deployed as {wanted.spec.name}; {why}"
    elif wanted is not None and wanted.state == "failed":
        why = f"NOT DEPLOYED as {wanted.spec.name}, though it is here: {_why(wanted.error)}"
    return Job(f"pull:{pull.id}", pull.name, pull.state, pull.bytes_done, pull.bytes_total, pull.rate, pull.left_s, why)


def _import(job: ImportJob) -> Job:
    why = _why(job.error) or "; ".join([*job.spilled, job.origin])
    return Job(f"import:{job.id}", job.name, job.state, job.bytes_done, job.bytes_total, why=why)


def _move(job: MoveJob) -> Job:
    words = [f"from {job.from_tier} to {job.to_tier}", *along(job), *([job.why] if job.why else [])]
    return Job(
        f"move:{job.id}", job.model, job.state, job.bytes_done, job.bytes_total, job.rate, job.left_s,
        why=_why(job.error) or ", ".join(words),
    )  # fmt: skip


def of_bench(job: BenchJob) -> Job:
    """A measurement, whose share is of its points."""
    name = job.object.partition(":")[2]
    why = _why(job.error) or job.step or f"by {job.by}"
    return Job(f"bench:{job.id}", name, job.state, job.done, job.total, why=why, unit=plural(job.total, "point"))


def of_verify(found: Verified) -> Job:
    words = f"{found.objects_done} of {found.objects_total} files"
    bad = [each for each in (*found.rotten, *found.missing) if not each.settled]
    healed = dict.fromkeys(name for each in (*found.rotten, *found.missing) if each.healed for name in each.versions)
    if healed:
        words += f"; whole again: {', '.join(healed)}"
    if found.state == "done":
        words += "".join(f"; {each.version} not read: {why_unread(each)}" for each in found.unread)
    if bad:
        names = ", ".join(dict.fromkeys(name for each in bad for name in each.versions)) or bad[0].sha256[:16]
        users = ", ".join(dict.fromkeys(name for each in bad for name in each.deployments))
        words += f"; NOT WHOLE: {names}" + (f", used by {users}" if users else "") + ": import it again"
    return Job(
        f"verify:{found.started_at}", "stored files", found.state, found.bytes_done, found.bytes_total, why=words
    )


def troubles(found: Sequence[Job]) -> list[Job]:
    """Of jobs, the newest first, those that went wrong and were not followed by one of their kind that is done."""
    done: set[str] = set()
    wrong = []
    for each in found:
        if each.state == "failed" or (each.over and ("NOT WHOLE" in each.why or "NOT DEPLOYED" in each.why)):
            wrong += [each] if each.kind not in done else []
        elif each.state == "done":
            done.add(each.kind)
    return wrong


def told(job: Job, ascii: bool = False) -> str:
    """One of them as a sentence."""
    words = f"{job.kind} {job.model}: {state(job.state, ascii)}"
    if job.total and not job.over:
        words += f" {job.share} of {job.amount}"
    if job.rate and not job.over:
        words += f", {size(job.rate)}/s" + (f", {lasting(job.left_s)} left" if job.left_s is not None else "")
    if job.state in ("failed", "paused", "needs token") or job.kind in ("verify", "bench"):
        words += f": {job.why}"
    return words
