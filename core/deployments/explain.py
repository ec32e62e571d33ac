"""Why a deployment is in its state, in sentences for somebody who was woken up."""

from __future__ import annotations

from collections.abc import Sequence

from core.engines.base import ADAPTER, PROJECTOR
from core.nouns import Deployment, LaunchStory, Replica


def sentences(
    deployment: Deployment, replicas: Sequence[Replica], stories: Sequence[LaunchStory], now: float
) -> tuple[str, ...]:
    """What is, since when, why, and what to do; `now` in UTC seconds."""
    spec = deployment.spec
    told = [
        f"{spec.name} has been {deployment.state} for {span(now - deployment.since)}"
        + (f": {deployment.reason}." if deployment.reason else ".")
    ]
    told.append(f"It should be {deployment.wanted}, with {spec.replicas} of {spec.model} on {spec.engine}.")
    if deployment.version:
        told.append(f"It got version {deployment.version} of {spec.model_name}.")
    if deployment.newer:
        told.append(
            f"{spec.model} means version {deployment.newer} now: `corral restart {spec.name}` has it go over to that."
        )
    for replica in replicas:
        line = f"{replica.id} has been {replica.state} for {span(now - replica.since)}"
        if replica.reason and (replica.reason != deployment.reason or len(replicas) > 1):
            line += f": {replica.reason}"
        if replica.state == "backoff" and replica.next_try is not None:
            line += f"; it is started again in {span(max(0.0, replica.next_try - now))}"
        if replica.restarts and "it was restarted" not in replica.reason:
            line += f" ({replica.restarts} {'restart' if replica.restarts == 1 else 'restarts'})"
        told.append(line + ".")
    newest = stories[0] if stories else None
    if newest is not None and newest.rss_measured and newest.rss_planned:
        off = (newest.rss_measured - newest.rss_planned) * 100 / newest.rss_planned
        told.append(
            f"Memory: planned {_mib(newest.rss_planned)} MiB, measured {_mib(newest.rss_measured)} MiB"
            f" when it was ready ({off:+.1f} %)."
        )
    for story in stories:
        if story.ended_at is not None:  # the newest that has ended, and no older one
            ended = f"Before launch {story.launch} ended {span(now - story.ended_at)} ago the engine said"
            told += [f"{ended}: {line}" for line in story.lines]
            break
    if deployment.state == "failed":
        told += _remedy(deployment)
        told.append(f"Mend the cause, then: corral start {spec.name}. Its log: corral logs --previous {spec.name}.")
    return tuple(told)


def _remedy(deployment: Deployment) -> Sequence[str]:
    """What to do about a version that no engine can be started with."""
    name = deployment.spec.model_name
    return [
        f"No engine starts {name}@{deployment.version} as it is: import the model again without the {what}, or with one"
        f" that was made for it: corral models import FILE --name {name} --{what} OTHER --live."
        for what, why in (("adapter", ADAPTER), ("projector", PROJECTOR))
        if why in deployment.reason
    ]


def _mib(size: int) -> int:
    """Bytes in MiB, rounded as everywhere else."""
    return round(size / (1 << 20))


def span(seconds: float) -> str:
    """A length of time as people say it: 42 s, 5 min, 3 h 10 min, 2 d 4 h. Its units change where tables' do."""
    whole = int(max(0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
