"""Which model to take: every candidate weighed against the wishes, by figures, each rank with its reasons in words.

Pure: `recommend` reads nothing and asks nobody. A wish that is stronger never adds a candidate, and more users at once
never make one of them faster (tests/catalog/test_choosing.py).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence

import msgspec

from core.catalog import sizing
from core.catalog.quality import Quality, qualities
from core.catalog.sizing import human
from core.catalog.speed import Seat, busy_words, predict, reading
from core.catalog.work import Work, main_type
from core.engines.base import Abilities
from core.nouns import Advice, Choice, HostBench, ModelShape, Noun, Recommendation, Score, Seen, Speed, Wishes

APART = ("embedding", "rerank")
"""Uses for which a model that chats is no substitute, and the other way round."""
CACHE_RAM_MIB = 256
"""As a deployment's (core/deployments/capacity.py)."""
READ_S = 5.0
"""Tokens a second that one reads at: below it one waits."""
NEAREST = 3
UNSAID_CTX = Wishes().ctx
"""What is wished where nobody says a context: a model of which nobody knows what it was made for meets no more."""
LICENCE = 60
"""Characters of a licence in a sentence."""
COARSE = ("Q2_K", "Q3_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0")
"""Types of fewer than four bits: taken only where nothing else of a model meets the wishes."""
WIDE = ("F16", "BF16", "F32")
"""Of no fewer bits than models are made with: twice the bytes of Q8_0, and half its speed."""


class Candidate(Noun, frozen=True, kw_only=True):
    """One model with one quantisation. What is not known is empty, 0 or None."""

    name: str
    title: str
    stored: bool
    quantization: str
    bytes: int
    family: str = ""
    params: int = 0
    uses: tuple[str, ...] = ()
    ctx: int = 0
    licence: str = ""
    scores: tuple[Score, ...] = ()
    shape: ModelShape | None = None
    work: Work | None = None
    seen: tuple[Seen, ...] = ()
    load_s: float | None = None
    repo: str = ""
    entry: str = ""
    """The name in the catalogue that its uses and scores are of: one model is recommended once."""
    flags: tuple[str, ...] = ()
    """What in it a person should look at first, as sentences."""
    mistaken: str = ""
    """Why it is not what its name or origin lets one expect, as a sentence."""
    lacks: str = ""
    """What a stored one would need to be started at all: a tier that is away."""

    @property
    def model(self) -> str:
        """What is one model, in whichever quantisation. One that is no entry is called as it likes: `=` before it."""
        return self.entry or f"={self.name}"


class Host(Noun, frozen=True, kw_only=True):
    """What they are weighed against. `room_bytes` is what a replica may take now."""

    room_bytes: int
    threads: int
    bench: HostBench | None = None
    engine: Abilities = sizing.DEFAULT


def recommend(
    wishes: Wishes, candidates: Sequence[Candidate], host: Host, plain: Mapping[str, Advice] = {}
) -> Recommendation:
    """The answer. One choice a model, in its best quantisation that meets every wish."""
    room = wishes.memory or host.room_bytes
    known = qualities({each.model: each.scores for each in candidates}, wishes.use)
    fitting = [each for each in candidates if _is_for(each, wishes.use)]
    by_model: dict[str, list[Choice]] = {}
    families: dict[str, str] = {}
    for each in fitting:
        by_model.setdefault(each.model, []).append(_weigh(each, wishes, host, room, known.get(each.model)))
        families[each.model] = families.get(each.model) or each.family
    advice = plain.get(wishes.use)
    met = {model: best for model, found in by_model.items() if (best := _best(found)) is not None}
    for_it = {each.model for each in fitting if each.uses}
    ranked = sorted(met.items(), key=lambda item: (item[0] not in for_it, *_order(item[1], families[item[0]], advice)))
    choices = tuple(
        msgspec.structs.replace(choice, rank=n) for n, (_, choice) in enumerate(ranked[: max(1, wishes.limit)], start=1)
    )  # fmt: skip
    nearest: tuple[Choice, ...] = ()
    if not choices:
        closest = [min(found, key=lambda each: _closest(each, wishes)) for found in by_model.values()]
        nearest = tuple(
            msgspec.structs.replace(choice, rank=n)
            for n, choice in enumerate(sorted(closest, key=_distance)[:NEAREST], start=1)
        )
    return Recommendation(
        wishes=wishes, choices=choices, nearest=nearest, plain=_plain(advice),
        overruled=_overruled(advice, ranked, by_model, families),
        notes=(
            *_behind([choice for _, choice in ranked]), *_untied(wishes, ranked, for_it),
            *_notes(wishes, host, candidates, by_model),
        ),
        weighed=len(fitting), room_bytes=room,
    )  # fmt: skip


def _is_for(candidate: Candidate, use: str) -> bool:
    """A model whose uses are not known may be for anything but what takes a model of its own."""
    if use in APART:
        return use in candidate.uses
    if not candidate.uses:
        return True
    if set(candidate.uses) <= set(APART):
        return False
    return use in candidate.uses or any(score.use == use for score in candidate.scores)


# ---------------------------------------------------------------------------------------- one of them


def _weigh(candidate: Candidate, wishes: Wishes, host: Host, room: int, quality: Quality | None) -> Choice:
    plan, bound = _plan(candidate, wishes, host)
    speed = _speed(candidate, wishes, host)
    short = max(0, (plan or candidate.bytes) - room)
    needs = [candidate.lacks] if candidate.lacks else []
    if not plan:
        needs.append(f"its memory, which is not known: {_files_words(candidate)}")
    elif short:
        needs.append(
            f"{human(short)} more memory: it takes {'up to ' if bound else ''}{human(plan)}, and {human(max(0, room))}"
            f" is {'wished' if wishes.memory else 'free'}"
        )
    if made_for := _ctx(candidate):
        if wishes.ctx > made_for:
            needs.append(f"--context {made_for}: it was made for no more")
    elif wishes.ctx > UNSAID_CTX:
        needs.append(f"--context {UNSAID_CTX}: for how much it was made is not known")
    if wishes.min_speed:
        if not speed.known:
            needs.append("its speed, which is not known: `corral nodes bench` measures this host")
        elif speed.each < wishes.min_speed:
            needs.append(_slower(speed, wishes))
    if wishes.licences and not _licensed(candidate.licence, wishes.licences):
        needs.append(
            f"--licence {_wished(candidate.licence)}" if candidate.licence else "its licence, which is not known"
        )
    return Choice(
        rank=0, name=candidate.name, title=candidate.title, quantization=candidate.quantization,
        stored=candidate.stored, fits=bool(plan) and not short, plan_bytes=plan, bound=bound, short_bytes=short,
        bytes=candidate.bytes, params=candidate.params, licence=candidate.licence, speed=speed,
        quality=quality.value if quality is not None else None, load_s=candidate.load_s,
        reasons=tuple(_reasons(candidate, wishes, room, plan, bound, speed, quality)), needs=tuple(needs),
        commands=_commands(candidate, wishes),
    )  # fmt: skip


def _ctx(candidate: Candidate) -> int:
    """Tokens that it was made for; 0 = not known."""
    return candidate.ctx or (candidate.shape.ctx_train if candidate.shape is not None else 0)


def _files_words(candidate: Candidate) -> str:
    """What is to be said of one without a shape: its cache may be many times its files."""
    files = f"its files alone are {human(candidate.bytes)}, and " if candidate.bytes else ""
    return f"{files}what its cache takes is read from its file, once it is stored"


def _plan(candidate: Candidate, wishes: Wishes, host: Host) -> tuple[int, bool]:
    """What a replica would reserve (0: not known, as its shape is not), and whether that is a bound only."""
    shape = candidate.shape
    if shape is None or not shape.tensor_bytes:
        return 0, False
    users, embedding = max(1, wishes.users), wishes.use in APART
    ctx = min(wishes.ctx, shape.ctx_train or wishes.ctx) * users
    found = sizing.parts(shape, ctx, users, "f16", engine=host.engine, embedding=embedding)
    most = sizing.full(found, shape, ctx, users, engine=host.engine)
    return sizing.reserved(most, CACHE_RAM_MIB), bool(shape.open_questions)


def _speed(candidate: Candidate, wishes: Wishes, host: Host) -> Speed:
    seat = Seat(threads=host.threads, parallel=max(1, wishes.users))
    filled = max(1, wishes.ctx // 2)
    prompt = min(wishes.prompt, wishes.ctx)
    if candidate.work is None:
        return Speed(
            known=False, threads=host.threads, users=wishes.users, ctx=filled, prompt=prompt,
            basis=("neither its shape nor its active parameters are known",),
        )  # fmt: skip
    found = predict(
        candidate.work, host.bench, seat, users=wishes.users, ctx=filled, prompt=prompt, seen=candidate.seen
    )  # fmt: skip
    return reading(found) if wishes.use in APART else found


def _slower(speed: Speed, wishes: Wishes) -> str:
    words = f"--min-speed {math.floor(speed.each * 10) / 10:g} instead of {wishes.min_speed:g}"
    return words + (", or fewer users" if wishes.users > 1 and speed.decode >= wishes.min_speed else "")


def _licensed(licence: str, wanted: Sequence[str]) -> bool:
    """One that is not known is none of those that are wanted."""
    said = licence.lower()
    return bool(said) and any(
        said.startswith(each[:-1].lower()) if each.endswith("*") else said == each.lower() for each in wanted
    )


def _said(licence: str) -> str:
    """A licence in a sentence: a file may hold a whole one."""
    return licence if len(licence) <= LICENCE else licence[: LICENCE - 1] + "…"


def _wished(licence: str) -> str:
    """As --licence takes it."""
    return shlex.quote(licence if len(licence) <= LICENCE else licence[:LICENCE] + "*")


def _commands(candidate: Candidate, wishes: Wishes) -> tuple[str, ...]:
    users = max(1, wishes.users)
    ctx = min(wishes.ctx, _ctx(candidate) or wishes.ctx) * users
    how = f"--ctx {ctx} --parallel {users}"
    how += {"embedding": " --embedding", "rerank": " --rerank"}.get(wishes.use, "")
    name = shlex.quote(candidate.name)
    if candidate.stored:
        return (f"corral deploy {name} {how}",)
    if not candidate.repo:
        return ()
    source = shlex.quote(f"hf:{candidate.repo}:{candidate.quantization}")
    return (f"corral models pull {source} --name {name} --deploy {name} {how}",)


# ---------------------------------------------------------------------------------------- in words


def _reasons(
    candidate: Candidate, wishes: Wishes, room: int, plan: int, bound: bool, speed: Speed, quality: Quality | None
) -> list[str]:
    """What speaks for it and against it, the weightiest first."""
    words = [f"{flag}: look at it before you serve it" for flag in candidate.flags]
    words += [candidate.mistaken] if candidate.mistaken and candidate.mistaken not in candidate.flags else []
    if quality is not None:
        told = [each for each in candidate.scores if each.use == wishes.use][:2]
        words.append(
            f"quality {quality.value:.2f} for {wishes.use}: "
            + ", ".join(f"{each.benchmark} {each.value:g} of {each.of:g}" for each in told)
            + f"; beside {quality.others} others that were measured so"
        )
    elif any(each.use == wishes.use for each in candidate.scores):
        words.append(f"its scores for {wishes.use} are of benchmarks that nobody else here has: not compared")
    else:
        words.append(f"no score for {wishes.use} is known")
    if not candidate.uses:
        words.append("what it is for is not known, as it is not in the catalogue: it comes after those that are for it")
    elif wishes.use not in candidate.uses:
        words.append(f"it was not made for {wishes.use} in the first place, but has scores for it")
    words.append(_speed_words(speed, wishes))
    if plan:
        left = room - plan
        size = f"{'up to ' if bound else ''}{human(plan)}"
        if copied := candidate.shape.repack_bytes if candidate.shape is not None else 0:
            size += f" (of it {human(copied)} a copy of the weights for the CPU)"
        words.append(
            f"takes {size} with {max(1, wishes.users)} x {wishes.ctx} of context; "
            + (f"{human(left)} is left" if left >= 0 else f"{human(-left)} is missing")
        )
    else:
        words.append(f"its memory is not known: {_files_words(candidate)}")
    if not _ctx(candidate):
        words.append("for how much context it was made is not known")
    if main_type(candidate.quantization) in COARSE:
        words.append(f"{candidate.quantization} has fewer than four bits a weight, which costs quality; how much of"
                     " this model, nobody has said")  # fmt: skip
    words.append(f"licence {_said(candidate.licence)}" if candidate.licence else "its licence is not known")
    words.append(f"loads in {candidate.load_s:.1f} s" if candidate.load_s is not None else "its load time is not known")
    words.append("stored here" if candidate.stored else f"to be pulled, {human(candidate.bytes)}")
    return words


def _speed_words(speed: Speed, wishes: Wishes) -> str:
    if not speed.known:
        why = f": {speed.basis[0]}" if speed.basis else ""
        return f"its speed is not known{why}; it comes after those of which it is"
    users = max(1, wishes.users)
    if not speed.writes:
        texts = f"{speed.prefill / max(1, speed.prompt):.1f} texts of {speed.prompt} tokens a second"
        shared = f", {speed.each:.0f} for each of {users}" if users > 1 else ""
        return f"reads {speed.prefill:.0f} tokens/s (± {speed.error:.0%}){shared}, which is {texts}"
    each = f"{speed.each:.1f} tokens/s for each of {users}" if users > 1 else f"{speed.each:.1f} tokens/s"
    slow = ", slower than one reads" if speed.each < READ_S else ""
    return f"{each} (± {speed.error_each:.0%}){slow}, first token after {speed.ttft_s:.1f} s"


def _plain(advice: Advice | None) -> str:
    return advice.reason if advice is not None else ""


def _overruled(
    advice: Advice | None, ranked: Sequence[tuple[str, Choice]], by_model: Mapping[str, Sequence[Choice]],
    families: Mapping[str, str],
) -> str:  # fmt: skip
    """Why the first one is of another family than the plain advice."""
    if advice is None or not advice.family or not ranked or families[ranked[0][0]] == advice.family:
        return ""
    first = ranked[0][1]
    own = [each for model, found in by_model.items() if families[model] == advice.family for each in found]
    meeting = [choice for model, choice in ranked if families[model] == advice.family]
    plain = f"the models made for {advice.use}" if advice.family == advice.use else advice.family
    in_words = f"{first.title} comes before {plain}: "
    by_figures = f"the figures say {first.title} rather than {plain}: "
    if not own:
        return in_words + f"nothing of {plain} is in the list for this"
    if not meeting:
        near = min(own, key=_distance)
        return in_words + f"{near.title} would need {near.needs[0] if near.needs else 'more'}"
    best = meeting[0]
    if _slow(best) and not _slow(first):
        lead = by_figures if first.speed.known else in_words
        return lead + f"{best.title} would make {best.speed.each:.1f} tokens/s, slower than one reads"
    if first.quality is not None and best.quality is not None:
        return by_figures + f"{first.quality:.2f} against {best.quality:.2f} by their scores"
    return in_words + f"the plain choice, {best.title}, cannot be compared, for want of a score that others have"


def _behind(ranked: Sequence[Choice]) -> tuple[str, ...]:
    """That speed alone has put some behind: nobody should wonder where the larger ones are."""
    behind = f" of the {len(ranked)} that meet the wishes come after the others, whatever their quality, because"
    notes = []
    if 0 < (slow := sum(map(_slow, ranked))) < len(ranked):
        notes.append(f"{slow}{behind} they make fewer than {READ_S:g} tokens/s, slower than one reads")
    if 0 < (unknown := sum(not each.speed.known for each in ranked)) < len(ranked):
        notes.append(f"{unknown}{behind} their speed is not known")
    return tuple(notes)


def _untied(wishes: Wishes, ranked: Sequence[tuple[str, Choice]], for_it: Collection[str]) -> tuple[str, ...]:
    """That nobody has said of any of them that it is for this."""
    if not ranked or any(model in for_it for model, _ in ranked):
        return ()
    return (f"none of these is known to be for {wishes.use}: nobody has said what they are for",)


def _notes(
    wishes: Wishes, host: Host, candidates: Sequence[Candidate], by_model: Mapping[str, Sequence[Choice]]
) -> tuple[str, ...]:
    notes = []
    if host.bench is None:
        notes.append("this host was not measured, so that speeds are not known: `corral nodes bench`")
    elif busy := busy_words(host.bench):
        notes.append(busy)
    unknown = [found[0].title for found in by_model.values() if found[0].quality is None]
    if unknown and len(unknown) < len(by_model):
        notes.append(f"{len(unknown)} of {len(by_model)} have no score for {wishes.use} that can be compared: they come"
                     " after those that have")  # fmt: skip
    elif unknown:
        notes.append(f"no scores for {wishes.use} can be compared: the plain advice goes first, then the larger models")
    unsized = [found[0].title for found in by_model.values() if not any(each.plan_bytes for each in found)]
    if unsized:
        notes.append(f"of {', '.join(unsized[:3])}{' and others' if unsized[3:] else ''} nobody knows what it takes, as"
                     " the catalogue has no shape of it: it is no choice before it is stored")  # fmt: skip
    if any(found[0].bound for found in by_model.values()):
        notes.append("where a model's shape is not known for certain, its memory is a bound and not a plan")
    if not candidates:
        notes.append("nothing is stored, and the catalogue is empty")
    return tuple(notes)


# ---------------------------------------------------------------------------------------- order


def _best(found: Sequence[Choice]) -> Choice | None:
    """Of one model: what meets every wish; what is stored first, then four bits and more, then the most."""
    met = [each for each in found if not each.needs]
    if not met:
        return None
    return min(met, key=_preference)


def _preference(choice: Choice) -> tuple[object, ...]:
    kind = main_type(choice.quantization)
    return _wait(choice), not choice.stored, kind in COARSE, kind in WIDE, -choice.bytes


def _slow(choice: Choice) -> bool:
    return choice.speed.known and choice.speed.writes and choice.speed.each < READ_S


def _wait(choice: Choice) -> int:
    """What one need not wait for comes first, and what is known to be slow before what nobody knows."""
    return int(_slow(choice)) if choice.speed.known else 2


def _order(choice: Choice, family: str, advice: Advice | None) -> tuple[object, ...]:
    plain = advice is not None and bool(advice.family) and family == advice.family
    return (
        _wait(choice),
        choice.quality is None,
        -(choice.quality or 0.0),
        not plain,
        not choice.stored,
        -choice.params,
        -choice.speed.each,
        choice.load_s if choice.load_s is not None else math.inf,
        choice.name,
    )


def _closest(choice: Choice, wishes: Wishes) -> tuple[object, ...]:
    """Of one model that meets not every wish: what misses the least; among equals, what would be taken."""
    missed, short, *_ = _distance(choice)
    return missed, short, max(0.0, wishes.min_speed - choice.speed.each), _preference(choice)


def _distance(choice: Choice) -> tuple[float, ...]:
    """How far from meeting the wishes: how many are not, then by how much memory, then by speed."""
    return (
        len(choice.needs),
        choice.short_bytes / (choice.plan_bytes or math.inf) if choice.plan_bytes else 1.0,
        -choice.speed.each,
        -(choice.quality or 0.0),
    )
