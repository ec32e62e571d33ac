"""The forms about versions of a model: aliases, notes, what differs, and what nothing needs any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import Changed
from core.nouns import AliasMoved, Collected, Model, VersionDifference
from tui.plain import line, plain, visible
from tui.screens.whole import Whole
from tui.widgets.asking import Asking
from tui.widgets.entry import Entry
from tui.widgets.form import Field
from tui.words import several, size, subject

SHOWN = 12
"""Things that a form lists one by one."""
YES = ("yes", "y")
NO = ("", "no", "n")


def agreed(text: str, what: str) -> bool:
    """A field that takes yes or no. Raises ValueError."""
    if text.casefold() in YES:
        return True
    if text.casefold() in NO:
        return False
    raise ValueError(f"{what} is yes or no, not {text!r}")


class OfModels(Asking):
    """One that goes back to the Models screen when it is done."""

    REPLACED = True

    def leave(self, words: str, row: str = "") -> None:
        """Done: back to the screen, with a sentence on it."""
        self.app.pop_screen()
        self.corral.go("models", row, say=line(words))


class OfModel(OfModels):
    """About one model, whose versions its fields name."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def version(self, key: str = "which") -> str:
        """What a field says, as the daemon takes it: `chat@3`, `chat:previous`. Raises ValueError."""
        which = self.value(key)
        if not which:
            raise ValueError("Name the version: its number, or an alias")
        return f"{self.model.name}{'@' if which.isdecimal() else ':'}{which}"


class AliasForm(OfModel):
    """Have an alias mean a version, or take it away."""

    HEADLINE = "Say what an alias means; `live` is what the bare name means, `previous` the way back"
    SENDS = "Move it"

    def fields(self) -> list[Field]:
        newest = "" if self.model.versions < 2 else "previous" if self.model.version == self.model.versions else ""
        return [
            Field("alias", "alias", "live", "live, canary, or any other word"),
            Field("to", "means", newest, "3, previous, canary, sha256:ab12...; empty takes it away"),
            Field("restart", "restart", "no", "yes: the deployments that it touches go over now"),
        ]

    def typed(self) -> tuple[str, str, bool]:
        """Alias, what it shall mean ("" for nothing), and whether deployments go over. Raises ValueError."""
        alias, to = self.value("alias"), self.value("to")
        if not alias:
            raise ValueError("Name the alias: live, canary, or any other word")
        if not to and alias == "live":
            raise ValueError("Say which version it shall mean: a number, another alias, or sha256: and its hash")
        return alias, to, agreed(self.value("restart"), "restart")

    def question(self) -> Callable[[Any], Awaitable[str]]:
        alias, to, restart = self.typed()

        async def ask(client: Any) -> str:
            versions = "\n".join(_listed(await client.catalog.versions(self.model.name)))
            if not to:
                return f"Takes {self.model.name}:{alias} away\n\n{versions}"
            return f"{told(await client.catalog.alias(self.model.name, alias, to, move=False), restart)}\n\n{versions}"

        return ask

    def action_send(self) -> None:
        try:
            alias, to, restart = self.typed()
        except ValueError as error:
            self.say(str(error))
            return
        name = self.model.name
        if not to:
            self.confirmed(
                f"Take the alias {name}:{alias} away?",
                lambda client: client.catalog.drop_alias(name, alias),
                then=lambda _: self.leave(f"{name}:{alias} is gone", name),
            )
            return

        def asked(found: AliasMoved) -> None:
            async def move(client: Any) -> AliasMoved:
                try:
                    moved: AliasMoved = await client.catalog.alias(
                        name, alias, str(found.version), seen=found.before or 0
                    )
                except Changed:
                    self.weigh()  # what it would mean by now
                    raise
                for each in moved.touches:
                    if restart and each in found.touches:  # no other was asked about
                        await client.restart_deployment(each)
                return moved

            def done(moved: AliasMoved) -> None:
                left = [each for each in moved.touches if not restart or each not in found.touches]
                later = f"; restart to go over: {', '.join(left)}" if left else ""
                self.leave(f"{name}:{alias} means version {moved.version}{later}", name)

            if found.before == found.version:
                self.say(f"{name}:{alias} means version {found.version} already")
            else:
                self.confirmed(f"{told(found, restart)}. Go on?", move, then=done)

        self.corral.act(lambda client: client.catalog.alias(name, alias, to, move=False), asked)


def told(found: AliasMoved, restart: bool) -> str:
    """What moving an alias would do."""
    was = f"it means {found.before}" if found.before else "it is new"
    touched = "it touches no deployment"
    if found.touches:
        when = "ARE RESTARTED WITH IT NOW" if restart else "get it when they are next restarted"
        touched = f"deployments that {when}: {', '.join(found.touches)}"
    return f"{found.model}:{found.alias} will mean version {found.version}; {was}; {touched}"


def _listed(found: Sequence[Model]) -> list[str]:
    """Versions, newest first."""
    shown = sorted(found, key=lambda each: -each.version)[:SHOWN]
    out = [
        f"@{m.version}  {size(m.bytes):>9}  {m.shape.quantization:8} {m.state}{'!' if m.flags else ''}"
        f"  {' '.join(m.aliases)}  {m.label}".rstrip()
        for m in shown
    ]
    return [*map(line, out), *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])]


class NoteForm(OfModel):
    """A version's label and notes."""

    REPLACED = False
    HEADLINE = "What people call a version, and what they should know of it"
    SENDS = "Note"

    def fields(self) -> list[Field]:
        return [
            Field("which", "version", str(self.model.version), "its number, or an alias"),
            Field("label", "label", self.model.label, "as 2026-11 or v2-rc1; empty: none"),
            Field("notes", "notes", self.model.notes, "empty: none"),
        ]

    def question(self) -> Callable[[Any], Awaitable[str]]:
        wanted = self.version()

        async def ask(client: Any) -> str:
            there: Model = await client.model(wanted)
            return f"{there.reference} now: label {there.label or 'none'}, notes {there.notes or 'none'}"

        return ask

    def action_send(self) -> None:
        try:
            wanted = self.version()
        except ValueError as error:
            self.say(str(error))
            return
        label, notes = self.value("label"), self.value("notes")
        self.corral.act(
            lambda client: client.catalog.note(wanted, label=label, notes=notes),
            lambda model: self.leave(f"{model.reference} is noted", model.name),
        )


class DiffForm(OfModel):
    """In what two versions differ, while one types which."""

    HEADLINE = "Compare two versions: header, template, tokenizer, size, licence"
    SENDS = "Read in whole"

    def fields(self) -> list[Field]:
        return [
            Field("old", "before", "previous", "a number or an alias of it"),
            Field("new", "after", "live", "a number or an alias of it"),
        ]

    def on_mount(self) -> None:
        super().on_mount()
        if self.corral.client is not None:
            self.corral.act(lambda client: client.catalog.versions(self.model.name), self._begin)

    def _begin(self, there: Sequence[Model]) -> None:
        """Where nothing was live before, begin with the newest of the others."""
        others = [each.version for each in there if each.version != self.model.version]
        box = self.query_one("#field-old", Entry)
        if others and box.value == "previous" and not any("previous" in each.aliases for each in there):
            box.value = str(max(others))

    def pair(self) -> tuple[str, str]:
        """`chat:previous`, `chat@3`. Raises ValueError."""
        return self.version("old"), self.version("new")

    def question(self) -> Callable[[Any], Awaitable[str]]:
        old, new = self.pair()

        async def ask(client: Any) -> str:
            return differing(await client.catalog.diff(old, new), old, new, most=SHOWN)

        return ask

    def action_send(self) -> None:
        try:
            old, new = self.pair()
        except ValueError as error:
            self.say(str(error))
            return
        self.corral.act(
            lambda client: client.catalog.diff(old, new),
            lambda found: self.app.push_screen(Whole(differing(found, old, new))),
        )


def differing(found: Sequence[VersionDifference], old: str, new: str, most: int = 0) -> str:
    """Differences line by line; at most `most` of them, each on one line then."""
    if not found:
        return f"{old} and {new} are the same"
    out = []
    for each in found[: most or len(found)]:
        before, after = each.old, each.new
        if most == 0 and ("\n" in (before or "") + (after or "") or each.kind == "template"):
            out.append(f"{subject(each)}:")
            for mark, text in (("-", before), ("+", after)):
                out += [f"  {mark} {piece}" for piece in visible(text).split("\n")] if text else []
        else:
            out.append(line(f"{subject(each)}: {_few(before)} -> {_few(after)}"))
    if most and len(found) > most:
        out.append(f"and {len(found) - most} more: ctrl+s shows all")
    return plain("\n".join(out))


def _few(text: str | None, most: int = 60) -> str:
    shown = visible("none" if text is None else text).replace("\n", " ")
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


class GcForm(OfModels):
    """Remove the versions that no alias means and no deployment wants."""

    HEADLINE = "Remove versions that no alias means and no deployment wants"
    SENDS = "Remove them"

    def fields(self) -> list[Field]:
        return [Field("days", "older than, days", "0", "days since they were imported; 0: all of them")]

    def days(self) -> float:
        """Raises ValueError."""
        text = self.value("days") or "0"
        try:
            days = float(text)
        except ValueError:
            days = -1.0
        if not 0 <= days <= 36500:
            raise ValueError(f"older than is a number of days, not {text!r}")
        return days

    def question(self) -> Callable[[Any], Awaitable[str]]:
        days = self.days()

        async def ask(client: Any) -> str:
            return going(await client.catalog.gc(dry_run=True, older_than_days=days))

        return ask

    def action_send(self) -> None:
        try:
            days = self.days()
        except ValueError as error:
            self.say(str(error))
            return

        def asked(found: Collected) -> None:
            if not found.gone:
                self.say("Nothing would go")
                return
            names = [each.name for each in found.gone]

            async def remove(client: Any) -> Collected:
                try:
                    done: Collected = await client.catalog.gc(dry_run=False, older_than_days=days, seen=names)
                except Changed:
                    self.weigh()  # what would go by now
                    raise
                return done

            self.confirmed(
                f"Remove {several(names)} for good, which frees {size(found.bytes)}?",
                remove,
                then=lambda done: self.leave(f"Removed {len(done.gone)}, freed {size(done.bytes)}"),
            )

        self.corral.act(lambda client: client.catalog.gc(dry_run=True, older_than_days=days), asked)


def going(found: Collected) -> str:
    """What would go and what that frees, and what stays though nothing serves it."""
    if not found.gone:
        out = ["Nothing would go"]
    else:
        out = [f"{len(found.gone)} would go, which frees {size(found.bytes)}:"]
        out += [line(f"  {each.name}  {size(each.bytes):>9}  {each.why}") for each in found.gone[:SHOWN]]
        if len(found.gone) > SHOWN:
            out.append(f"  and {len(found.gone) - SHOWN} more")
    if found.kept:
        out += ["", "Stays, though nothing serves it:"]
        out += [line(f"  {each.name}  {each.why}") for each in found.kept[:SHOWN]]
    return "\n".join(out)
