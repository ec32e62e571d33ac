"""What an actor sees: lists, pictures and events without what no grant lets him read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from core.access import Gate
from core.nouns import (
    Actor,
    AuditRecord,
    BenchJob,
    Deployment,
    Event,
    ImportJob,
    Mark,
    Model,
    MoveJob,
    NodeFacts,
    NodeLabels,
    Picture,
    Pull,
    Replica,
    Status,
    Tier,
)


class Sight:
    """One actor's, by the rights of the moment."""

    def __init__(
        self, gate: Gate, actor: Actor, verifying: Callable[[Actor], bool] = lambda actor: False
    ) -> None:  # fmt: skip
        """`verifying`: whether the verification of stored files is about something that an actor may see."""
        self._gate = gate
        self._actor = actor
        self._verifying = verifying

    def _sees(self, permission: str, object: str) -> bool:
        return self._gate.may(self._actor, permission, object)

    def deployments(self, found: Iterable[Deployment]) -> list[Deployment]:
        return [each for each in found if self._sees("deployments.read", f"deployment:{each.spec.name}")]

    def replicas(self, found: Iterable[Replica]) -> list[Replica]:
        return [each for each in found if self._sees("deployments.read", f"deployment:{each.deployment}")]

    def models(self, found: Iterable[Model]) -> list[Model]:
        return [each for each in found if self._sees("models.read", f"model:{each.name}")]

    def facts(self, found: Iterable[NodeFacts]) -> list[NodeFacts]:
        return [each for each in found if self._sees("nodes.read", f"node:{each.name}")]

    def labels(self, found: Iterable[NodeLabels]) -> list[NodeLabels]:
        return [each for each in found if self._sees("nodes.read", f"node:{each.node}")]

    def marks(self, found: Iterable[Mark]) -> list[Mark]:
        return [each for each in found if self._sees("deployments.read", f"deployment:{each.deployment}")]

    def records(self, found: Iterable[AuditRecord]) -> list[AuditRecord]:
        return list(found) if self._sees("audit.read", "audit:chain") else []

    def job(self, job: ImportJob) -> bool:
        return self._sees("models.read", f"model:{job.name}") or self._sees("models.import", f"model:{job.name}")

    def pulls(self, found: Iterable[Pull]) -> list[Pull]:
        """Of what they are to be deployed as too."""
        return [self._shown(each) for each in found if self._pull(each.name)]

    def _shown(self, pull: Pull) -> Pull:
        if pull.deploy is None or pull.owner == self._actor.name:
            return pull
        sees = self._sees("deployments.read", f"deployment:{pull.deploy.spec.name}")
        return pull if sees else msgspec.structs.replace(pull, deploy=None)

    def told(self, event: Event) -> Event:
        """An event that is for him, without what is not."""
        if event.type != "pull" or not isinstance(event.data, dict) or not event.data.get("deploy"):
            return event
        shown = self._shown(msgspec.convert(event.data, Pull))
        return (
            event if shown.deploy is not None else msgspec.structs.replace(event, data={**event.data, "deploy": None})
        )

    def _pull(self, model: str) -> bool:
        return self._sees("models.read", f"model:{model}") or self._sees("models.import", f"model:{model}")

    def tiers(self, found: Iterable[Tier]) -> list[Tier]:
        return [each for each in found if self.tier(each.name)]

    def tier(self, name: str) -> bool:
        return self._sees("tiers.read", f"tier:{name}")

    def moves(self, found: Iterable[MoveJob]) -> list[MoveJob]:
        return [each for each in found if self._sees("models.read", f"model:{each.name}")]

    def benches(self, found: Iterable[BenchJob]) -> list[BenchJob]:
        return [each for each in found if self._measured(each.object)]

    def _measured(self, object: str) -> bool:
        return self._sees(f"{object.partition(':')[0]}s.read", object)

    def status(self, whole: Status) -> Status:
        """The daemon's, with the figures of the hosts that are seen."""
        nodes = tuple(each for each in whole.nodes if self._sees("nodes.read", f"node:{each.node}"))
        return whole if len(nodes) == len(whole.nodes) else msgspec.structs.replace(whole, nodes=nodes)

    def picture(self, whole: Picture) -> Picture:
        """The same without what is not seen."""
        return Picture(
            event=whole.event,
            status=self.status(whole.status),
            deployments=tuple(self.deployments(whole.deployments)),
            replicas=tuple(self.replicas(whole.replicas)),
            models=tuple(self.models(whole.models)),
            facts=tuple(self.facts(whole.facts)),
            audit=tuple(self.records(whole.audit)),
            me=whole.me,
            pulls=tuple(self.pulls(whole.pulls)),
            tiers=tuple(self.tiers(whole.tiers)),
            moves=tuple(self.moves(whole.moves)),
            benches=tuple(self.benches(whole.benches)),
        )

    def event(self, event: Event) -> bool:
        """Whether this event is for him. What is new and unknown here is for nobody."""
        kind, name = event.type.partition(".")[0], event.object.partition(":")[2]
        match kind:
            case "deployment":
                return self._sees("deployments.read", event.object)
            case "replica":
                return self._sees("deployments.read", f"deployment:{name.rpartition('/')[0]}")
            case "model" | "import":
                return self._sees("models.read", f"model:{_model(event)}")
            case "pull":
                return self._pull(_model(event))
            case "bench":
                return self._measured(event.object)
            case "move":
                moved = str(event.data.get("model", "")) if isinstance(event.data, dict) else ""
                return self._sees("models.read", f"model:{moved.partition('@')[0]}")
            case "verify":  # that it went on, and nothing else
                return event.data is None and self._verifying(self._actor)
            case "tier":
                return self._sees("tiers.read", event.object)
            case "sample" | "node":
                return self._sees("nodes.read", event.object)
            case "audit":
                return self._sees("audit.read", "audit:chain")
            case "chat" | "turn":
                return event.to == self._actor.name
            case "daemon" | "warning" | "resync" | "access":  # of access only that it changed is told
                return True
        return False


def _model(event: Event) -> str:
    """The model's name: the object of an import or a pull is its own id."""
    if event.type in ("import", "pull") and isinstance(event.data, dict):
        return str(event.data.get("name", ""))
    return event.object.partition(":")[2]
