"""Access: roles, grants, teams, and why somebody may or may not do something."""

from __future__ import annotations

from typing import Literal

from core.nouns.base import Noun
from core.nouns.limits import Left


class Role(Noun, frozen=True, kw_only=True):
    """A named set of permissions. `allows` has permissions (`deployments.stop`) and patterns (`deployments.*`, `*`)."""

    name: str
    allows: tuple[str, ...]
    words: str = ""
    builtin: bool = False


class Subject(Noun, frozen=True, kw_only=True):
    """Whom a grant is for. `kind` is `user` or `group` (of the host), `team` (Corral's own group) or `account` (a
    service account). `id` is the uid or gid that the name had when it was written down, -1 for a team or an account: a
    name or a number alone proves nothing, since users are renamed and numbers are given out again."""

    kind: Literal["user", "group", "team", "account"]
    name: str
    id: int = -1

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Grant(Noun, frozen=True, kw_only=True):
    """`subject` may (or, with `effect` deny, may not) do `what` on what `scope` matches."""

    id: str
    effect: Literal["allow", "deny"] = "allow"
    what: str
    """A role, or with a dot a permission or pattern of permissions."""
    subject: Subject
    scope: str = "*"
    """`*`, `deployment:chat`, `model:phi-*`: a star stands at the end only."""
    reason: str = ""
    by: str
    at: float
    until: float | None = None
    """When it ends by itself (epoch seconds); None: when somebody revokes it."""
    glass: bool = False
    """Taken in an emergency by breaking the glass: everybody is told as long as it lasts."""


class GrantShown(Grant, frozen=True, kw_only=True):
    """A grant as it is listed."""

    gone: str = ""
    """Why it holds for nobody: its user has left the host, or was renamed; else empty."""


class Team(Noun, frozen=True, kw_only=True):
    """A group of Corral's own: users and groups of the host."""

    name: str
    members: tuple[Subject, ...] = ()


class ServiceAccount(Noun, frozen=True, kw_only=True):
    """A program with a name of its own. It acts through API keys alone, may what it was granted, and never more than
    its owner may at that moment."""

    name: str
    owner: Subject
    """A user or a team."""
    words: str = ""
    created_at: float
    created_by: str
    disabled_at: float | None = None
    disabled_by: str = ""
    disabled_for: str = ""
    """The reason."""
    state: str = "active"
    """active, disabled, or `owner gone`: the host no longer knows the user, or the team is no more."""

    @property
    def subject(self) -> Subject:
        """As grants and keys name it."""
        return Subject(kind="account", name=self.name)


class Mark(Noun, frozen=True, kw_only=True):
    """A deployment is sensitive: it runs only where its labels are, no conversation with it is kept or seen by others,
    and only some groups' keys may use it. It holds for the name, whether something is deployed under it or not."""

    deployment: str
    labels: tuple[str, ...]
    """`zone=secure`: a node must have all of them."""
    groups: tuple[Subject, ...] = ()
    """Groups of the host and teams whose keys may use it; none: no key may."""
    reason: str = ""
    by: str
    at: float


class Decision(Noun, frozen=True, kw_only=True):
    """Whether `actor` may do `permission` on `object`, and why."""

    allowed: bool
    permission: str
    object: str
    why: str
    """A sentence."""
    grant: Grant | None = None
    """The one that decided; None where none did."""
    also: tuple[Grant, ...] = ()
    """Others that say the same: it is so without the one that decided too. Told where somebody asks (`explain`)."""


class Held(Noun, frozen=True, kw_only=True):
    """One line of a matrix: `subject` holds (or is denied) `permission` on `scope`, by this grant."""

    subject: str
    permission: str
    scope: str
    effect: Literal["allow", "deny"] = "allow"
    grant: str = ""
    until: float | None = None


class Difference(Noun, frozen=True, kw_only=True):
    """What a change of the rights would give or take: `subject` could do `permission` on `object` before, or after."""

    subject: str
    permission: str
    object: str
    before: bool
    after: bool
    why: str
    """What decides afterwards."""


class Whoami(Noun, frozen=True, kw_only=True):
    """Who asks, as the daemon sees it, and what he may do."""

    name: str
    uid: int
    groups: tuple[str, ...]
    through: str
    because: str
    """Why he needs no grant; "" if he does."""
    grants: tuple[Grant, ...]
    holds: tuple[Held, ...]
    denied: tuple[Held, ...] = ()
    limits: tuple[Left, ...] | None = ()
    """What is left of those that apply to him and his keys; None: the gateway does not say."""
    gateway: str = ""
    """Where his programs find the gateway: its base URL, without /v1; "" while it does not listen for them."""
