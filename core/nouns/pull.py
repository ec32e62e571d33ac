"""Pulls: models on their way from a hub or a web server, and the choice among what a repository has."""

from __future__ import annotations

from core.errors import ErrorBody
from core.nouns.base import Noun
from core.nouns.deployments import DeploymentSpec
from core.nouns.models import Model
from core.nouns.tiers import HOME

PULL_ENDED = ("done", "failed", "cancelled")
"""States of a pull that is over: nothing of it lies on the disk any more but the model."""


class PullFile(Noun, frozen=True, kw_only=True):
    """One file of a pull."""

    name: str
    bytes: int
    sha256: str = ""
    """What it must have, "" where nobody says: then it is what it was found to have."""
    done: int = 0
    """Bytes that are here."""
    kind: str = ""
    """`projector`: it goes beside the model; "": it is the model's own."""
    stored: bool = False
    """Its bytes are in the store already: they are not fetched."""


class PulledDeploy(Noun, frozen=True, kw_only=True):
    """What the daemon deploys when a pull is stored. States: waits, done, failed, dropped (somebody said so, or the
    pull came to nothing)."""

    spec: DeploymentSpec
    """Its model is the pull's, whatever stands here; which version, once it is stored."""
    replace: bool = False
    """A deployment of that name is changed."""
    state: str = "waits"
    error: ErrorBody | None = None
    """Why it failed, or still waits though the model is here."""
    changed: bool = True
    """False: it was deployed just so before; told by the daemon that did it."""


class Pull(Noun, frozen=True, kw_only=True):
    """A pull that the daemon carries out; it lives on when the terminal closes, and in the next daemon. States:
    waiting (for its turn), pulling, paused, needs token, storing, done, failed, cancelled."""

    id: str
    name: str
    """Of the model that it becomes."""
    source: str
    """`hf:ORG/REPO` or an address, without what may be secret in it."""
    state: str
    owner: str
    started_at: float
    files: tuple[PullFile, ...]
    bytes_done: int = 0
    bytes_total: int = 0
    quantization: str = ""
    revision: str = ""
    """Of a hub's repository: the commit."""
    licence: str = ""
    """As the hub has it; "" where nobody says."""
    rate: float = 0.0
    """Bytes a second, over the last seconds."""
    left_s: float | None = None
    """Seconds that it takes at this rate."""
    limit: int = 0
    """At most so many bytes a second; 0: no cap of its own."""
    tier: str = HOME
    """Where its bytes lie on their way, and then."""
    notes: tuple[str, ...] = ()
    """What happened on the way, as sentences: began anew, waits as it was asked to."""
    ended_at: float | None = None
    model: Model | None = None
    error: ErrorBody | None = None
    """Why it failed, or is paused or waiting."""
    deploy: PulledDeploy | None = None
    """What is deployed when it is stored; None: nothing, or nothing that the asker may see."""

    @property
    def open(self) -> bool:
        """Something is still to come of it: it is not over, or what it is to be deployed as still waits."""
        return self.state not in PULL_ENDED or (self.deploy is not None and self.deploy.state == "waits")


class PullChoice(Noun, frozen=True, kw_only=True):
    """One quantisation that a repository has, against what is free here."""

    quantization: str
    files: tuple[PullFile, ...]
    bytes: int
    need_bytes: int
    """Memory that a replica would reserve; 0: not known."""
    fits: bool
    chosen: bool
    why: str


class PullPlan(Noun, frozen=True, kw_only=True):
    """What a source has, and what would be taken of it."""

    source: str
    revision: str
    licence: str
    gated: bool
    """Whoever pulls it must have been let in, and give a token."""
    architecture: str
    params: int
    ctx: int
    """Context of the one conversation that memory is planned for; 0: the header could not be read."""
    left_bytes: int
    """Memory that is left for it here."""
    disk_bytes: int
    """Room for it where new models land, or where that spills to; what is promised to others is left out."""
    choices: tuple[PullChoice, ...]
    """The best first."""
    why: str
    """Which is chosen and why, or why none."""
    notes: tuple[str, ...] = ()
    """What else is there, and is not taken."""
    projectors: tuple[PullFile, ...] = ()
    """What turns pictures or sound into tokens, the usual one first: taken if it is asked for."""
