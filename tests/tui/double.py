"""A double of core.client.Client for Pilot tests: it says what it is, keeps what it is asked, and starts nothing."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from core.errors import Conflict, NoDaemon, NoRoom, NotFound
from core.nouns import (
    AuditArchive,
    AuditArchives,
    AuditPage,
    AuditPlan,
    AuditRecord,
    ChainReport,
    Chat,
    ChatDetail,
    ChatKey,
    ChatOptions,
    DaemonStatus,
    Decision,
    Deployment,
    DeploymentSpec,
    Difference,
    Event,
    Explanation,
    Forgotten,
    GatewayStatus,
    Grant,
    Held,
    Hold,
    Key,
    Left,
    Limit,
    Limits,
    LimitView,
    LogText,
    Model,
    ModelShape,
    NewKey,
    NodeSample,
    OthersChats,
    Picture,
    Plan,
    PlanParts,
    Replica,
    RetentionRule,
    Role,
    ServiceAccount,
    Status,
    Subject,
    Team,
    Turn,
    Whoami,
)

_spec = importlib.util.spec_from_file_location("models_double", Path(__file__).with_name("models_double.py"))
assert _spec is not None and _spec.loader is not None
of_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(of_models)

NOW = 1_790_000_000.0
MIB = 1 << 20


def deployment(name: str, **fields: Any) -> Deployment:
    base = dict(
        spec=DeploymentSpec(name=name, model="smollm2", ctx=4096),
        wanted="running",
        state="ready",
        reason="",
        since=NOW,
        created_at=NOW,
        created_by="ann",
        ready=1,
        plan_bytes=300 * MIB,
    )
    return Deployment(**{**base, **fields})


def replica(id: str, **fields: Any) -> Replica:
    base = dict(
        id=id,
        deployment=id.partition("/")[0],
        model="smollm2",
        version=1,
        engine="xllamacpp",
        node="local",
        state="ready",
        since=NOW,
        reason="",
        pid=4242,
        rss_bytes=280 * MIB,
    )
    return Replica(**{**base, **fields})


def model(name: str, **fields: Any) -> Model:
    shape = ModelShape(
        arch="llama",
        n_layer=1,
        n_embd=1,
        n_ff=1,
        n_head=1,
        n_head_kv=(1,),
        key_length=1,
        value_length=1,
        n_vocab=1,
        ctx_train=8192,
        n_params=135_000_000,
        quantization="Q4_1",
    )
    base = dict(
        name=name,
        version=1,
        sha256="ab" * 32,
        files=(),
        bytes=91 * MIB,
        shape=shape,
        licence="apache-2.0",
        origin="sample",
        imported_at=NOW,
        imported_by="ann",
    )
    return Model(**{**base, **fields})


def record(seq: int, **fields: Any) -> AuditRecord:
    base = dict(
        seq=seq,
        time="2026-11-24T03:07:12.000153Z",
        actor="ann",
        uid=1000,
        through="console",
        verb="deployments.create",
        object="deployment:chat",
        request="r",
        outcome="done",
        prev="",
        hash="f" * 64,
    )
    return AuditRecord(**{**base, **fields})


def sample(time: float = NOW, cpu: float = 12.0) -> NodeSample:
    return NodeSample(
        time=time,
        node="local",
        cpu_percent=cpu,
        load1=0.5,
        memory_bytes=8192 * MIB,
        free_bytes=5000 * MIB,
        pressure=0.0,
        disk_free_bytes=50_000 * MIB,
        disk_bytes=90_000 * MIB,
    )


def grant(id: str, what: str, subject: Subject, scope: str = "*", **fields: Any) -> Grant:
    return Grant(id=id, what=what, subject=subject, scope=scope, by="root", at=NOW, **fields)


def somebody(
    *held: tuple[str, str], denied: tuple[tuple[str, str], ...] = (), grants: tuple[Grant, ...] = ()
) -> Whoami:
    """A user who holds these permissions on these scopes."""
    lines = [[Held(subject="user:ann", permission=p, scope=s, grant="g1") for p, s in each] for each in (held, denied)]
    return Whoami(
        name="ann", uid=1000, groups=("staff",), through="console", because="", grants=grants, holds=tuple(lines[0]),
        denied=tuple(lines[1]),
    )  # fmt: skip


class Access:
    """Of the double: what `client.access` answers."""

    def __init__(self, double: Double) -> None:
        self._double = double
        staff = Subject(kind="group", name="staff", id=20)
        self.there = [
            grant("g1", "operator", staff, "deployment:chat", reason="on call", until=4e9),
            grant("g2", "deployments.rm", Subject(kind="user", name="bob", id=7), effect="deny"),
        ]
        self.changes = [
            Difference(
                subject="user:bob", permission="models.rm", object="model:gemma", before=False, after=True, why="g3"
            )
        ]
        self.decision = Decision(allowed=False, permission="p", object="o", why="no grant gives it")

    async def grants(self) -> list[Grant]:
        return self.there

    async def roles(self) -> list[Role]:
        return [Role(name="operator", allows=("deployments.stop",), words="runs things", builtin=True)]

    async def teams(self) -> list[Team]:
        return [Team(name="ml", members=(Subject(kind="user", name="bob", id=7),))]

    async def simulate(self, **fields: Any) -> list[Difference]:
        self._double.calls.append(("simulate", fields))
        return self.changes

    async def explain(self, user: str, permission: str, object: str) -> Decision:
        self._double.calls.append(("explain", user, permission, object))
        return self.decision

    async def grant(self, **fields: Any) -> Grant:
        self._double.calls.append(("grant", fields))
        made = grant("g3", fields["what"], Subject(kind="user", name="bob", id=7), fields["scope"])
        self.there = [*self.there, made]
        return made

    async def revoke(self, id: str, reason: str = "") -> Grant:
        self._double.calls.append(("revoke", id))
        return self.there[0]

    async def put_team(self, name: str, members: Any) -> Team:
        self._double.calls.append(("put_team", name, tuple(members)))
        return Team(name=name)

    async def put_role(self, name: str, allows: Any, words: str = "") -> Role:
        self._double.calls.append(("put_role", name, tuple(allows), words))
        return Role(name=name, allows=tuple(allows))


def key(id: str, name: str, **fields: Any) -> Key:
    base = {"owner": Subject(kind="user", name="ann", id=1000), "begins": "corral_ab", "created_at": NOW}
    return Key(id=id, name=name, created_by="ann", **(base | fields))


class Keys:
    """Of the double: what `client.keys` answers."""

    def __init__(self, double: Double) -> None:
        self._double = double
        used = key("k1", "ci", limits=Limits(rpm=60), used_at=NOW, used_from="10.0.0.7")
        self.there = [used, key("k2", "old", state="revoked")]

    async def ls(self) -> list[Key]:
        return self.there

    async def create(self, **fields: Any) -> NewKey:
        self._double.calls.append(("create_key", fields))
        made = key("k3", fields["name"])
        return NewKey(**{name: getattr(made, name) for name in Key.__struct_fields__}, key="corral_SECRET")

    async def revoke(self, name: str, reason: str = "") -> Key:
        self._double.calls.append(("revoke_key", name))
        return self.there[0]


class Accounts:
    """Of the double: what `client.accounts` answers."""

    def __init__(self, double: Double) -> None:
        self._double = double
        ann = Subject(kind="user", name="ann", id=1000)
        self.there = [
            ServiceAccount(name="nightly", owner=ann, words="batch", created_at=NOW, created_by="ann"),
            ServiceAccount(
                name="paused", owner=Subject(kind="user", name="bob", id=7), created_at=NOW, created_by="bob",
                disabled_at=NOW, disabled_by="eve", disabled_for="abuse", state="disabled",
            ),
        ]  # fmt: skip

    async def ls(self) -> list[ServiceAccount]:
        return self.there

    async def create(self, name: str, **fields: Any) -> ServiceAccount:
        self._double.calls.append(("create_account", name, fields))
        return self.there[0]

    async def disable(self, name: str, reason: str = "") -> ServiceAccount:
        self._double.calls.append(("disable_account", name))
        return self.there[0]

    async def enable(self, name: str, reason: str = "") -> ServiceAccount:
        self._double.calls.append(("enable_account", name))
        return self.there[1]

    async def rm(self, name: str, reason: str = "") -> None:
        self._double.calls.append(("rm_account", name))


class Proof:
    """Of the double: what `client.proof` answers. Its search knows words and `actor:`."""

    def __init__(self, double: Double) -> None:
        self._double = double
        self.verified: list[tuple[int, int]] = [(1, 3)]
        self.report_made = ChainReport(
            ok=False, records=3, head="x", wrong=2, how="changed", message="record 2 was changed"
        )
        self.gate = asyncio.Event()
        """A verification and an export pause before their end until this is set."""
        self.gate.set()
        self.pieces = [b""]
        self.page_report: Any = None
        self.failing: Exception | None = None
        self.planned: AuditPlan | Exception = Conflict("there is nothing to archive", "no record is so old")
        self.told: dict[str, Any] = {}
        """Fields of each page beside its records."""
        self.asked: list[str] = []
        """Each search."""

    async def find(
        self, text: str = "", *, before_seq: int | None = None, after_seq: int | None = None, limit: int = 100,
        **filters: Any,
    ) -> AuditPage:  # fmt: skip
        self.asked.append(text)
        if self.failing is not None:
            raise self.failing
        known = sorted(self._double.records, key=lambda each: each.seq)
        low, high = (known[0].seq, known[-1].seq) if known else (0, 0)
        looked = [r for r in known if r.seq < (before_seq or 1 << 60) and r.seq > (after_seq or 0)]
        fits = [r for r in looked if _fits(r, text)]
        shown = fits[:limit] if after_seq is not None else fits[-limit:]
        more = len(shown) < len(fits)
        end = high if after_seq is not None else low
        searched = (shown[-1] if after_seq is not None else shown[0]).seq if more else end
        return AuditPage(records=tuple(shown), searched=searched, more=more, first=low, last=high,
                         **self.told)  # fmt: skip

    async def archive_plan(self, before: float, folder: str = "", *, recent: bool = False) -> AuditPlan:
        self._double.calls.append(("archive plan", before, folder))
        if isinstance(self.planned, Exception):
            raise self.planned
        return msgspec.structs.replace(self.planned, file=f"{folder or '/state'}/trail.corral")

    async def archive(self, before: float, folder: str = "", reason: str = "", *, recent: bool = False) -> AuditArchive:
        self._double.calls.append(("archive", before, folder, reason))
        await self.gate.wait()
        plan = await self.archive_plan(before, folder)
        return AuditArchive(
            number=1, first=plan.first, last=plan.last, began=plan.began, ended=plan.ended, hash="h", digest="d",
            file=plan.file, bytes=2048, there=True, time=plan.ended, key="k",
        )  # fmt: skip

    async def archives(self) -> AuditArchives:
        return AuditArchives(archives=(), working="7 of 9 records are written")

    async def verify(self, watch: Any) -> ChainReport:
        for each in self.verified:
            watch(*each)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self._double.calls.append(("verify ended",))
            raise
        return self.report_made

    async def export(self, since: float | None = None) -> AsyncIterator[bytes]:
        self._double.calls.append(("export", since))
        for piece in self.pieces:
            yield piece
            await self.gate.wait()

    async def report(self, since: float | None = None) -> Any:
        self._double.calls.append(("report", since))
        return self.page_report


def _fits(record: AuditRecord, text: str) -> bool:
    whole = " ".join((record.actor, record.verb, record.object, record.outcome, record.reason)).lower()
    return all(
        record.actor.startswith(word[6:]) if word.startswith("actor:") else word.lower() in whole
        for word in text.split()
        if not word.endswith(":")
    )


class LimitsOfDouble:
    """Of the double: what `client.limits` answers."""

    def __init__(self, double: Double) -> None:
        self._double = double
        staff = Limit(subject="group:people", id="21", limits=Limits(rpm=100), by="root", at=NOW)
        left = Left(subject="group:people", kind="rpm", most=100, used=58, left=42, free_at=NOW + 30)
        each = Limit(subject="each:user", limits=Limits(daily_tokens=5000), by="root", at=NOW)
        self.there = [LimitView(limit=each), LimitView(limit=staff, left=(left,))]

    async def ls(self) -> list[LimitView]:
        return self.there

    async def get(self, subject: str) -> LimitView:
        for view in self.there:
            if view.limit is not None and view.limit.subject == subject:
                return view
        raise NotFound(f"no limit is set for {subject}")

    async def set(self, subject: str, limits: dict[str, Any], reason: str = "") -> Limit:
        self._double.calls.append(("set_limits", subject, limits, reason))
        return Limit(subject=subject, limits=Limits(**limits), by="ann", at=NOW)

    async def rm(self, subject: str, reason: str = "") -> Limit:
        self._double.calls.append(("rm_limits", subject))
        return Limit(subject=subject, limits=Limits(), by="ann", at=NOW)


class Privacy:
    """Of the double: what `client.privacy` answers."""

    def __init__(self, double: Double) -> None:
        self._double = double
        self.rules: list[RetentionRule] = []
        self.held: list[Hold] = []
        self.state = ChatKey(
            state="locked",
            id="k",
            place="a passphrase",
            passphrase=True,
            users=1,
            plain=0,
            why="they wait",
            todo="unlock",
        )

    async def key(self) -> ChatKey:
        return self.state

    async def unlock(self, passphrase: str) -> ChatKey:
        self._double.calls.append(("unlock", passphrase))
        self.state = msgspec.structs.replace(self.state, state="open")
        return self.state

    async def retention(self) -> list[RetentionRule]:
        return self.rules

    async def retain(self, subject: str, days: int | None, reason: str = "") -> None:
        self._double.calls.append(("retain", subject, days, reason))

    async def drop_rule(self, subject: str, reason: str = "") -> None:
        self._double.calls.append(("drop_rule", subject, reason))

    async def holds(self) -> list[Hold]:
        return self.held

    async def hold(self, what: str, reason: str) -> None:
        self._double.calls.append(("hold", what, reason))

    async def release(self, id: str, reason: str) -> None:
        self._double.calls.append(("release", id, reason))

    async def ahead(self, user: str) -> Forgotten:
        return Forgotten(user=user, chats=3, turns=9, keys=1)

    async def forget(self, user: str, reason: str) -> None:
        self._double.calls.append(("forget", user, reason))

    async def others(self, reason: str, *, user: str = "", chat: str = "", titles: bool = False) -> OthersChats:
        self._double.calls.append(("others", user, reason))
        return OthersChats(user=user, reason=reason, chats=(await self._double.chat("c1"),))


class Double:
    """Not the real client. `calls` has what was asked; `push` sends an event; `drop` cuts the connection."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.up = True
        self.database_id = "d"
        self.warnings: tuple[str, ...] = ()
        self.ended = False
        self.deployed = [deployment("chat"), deployment("embed", state="failed", reason="no memory", ready=0)]
        self.running = [replica("chat/0")]
        self.stored = [model("smollm2"), model("gemma")]
        self.records = [record(n) for n in range(1, 4)]
        self.log = "one\ntwo\n"
        self.pieces = ["Hello", " world"]
        self.turns: list[Turn] = []
        self.room = True
        self.context_full = False
        self.context_tokens: int | None = None
        self.finish = "stop"
        self.title = "First"
        self.on_full: Any = "ask"
        self.gate = asyncio.Event()
        """A stream pauses after its first piece until this is set."""
        self.gate.set()
        self.stopped = False
        self.kept: dict[str, Any] = {}
        """Of the chat: `private`, `held`, `goes_at`."""
        self.pictures = 0
        self.me: Whoami | None = None
        self.pulling: tuple[Any, ...] = ()
        self.moving: tuple[Any, ...] = ()
        self.measuring: tuple[Any, ...] = ()
        self.facts: tuple[Any, ...] = ()
        self.access = Access(self)
        self.keys = Keys(self)
        self.accounts = Accounts(self)
        self.proof = Proof(self)
        self.limits = LimitsOfDouble(self)
        self.privacy = Privacy(self)
        self.catalog = of_models.CatalogCalls(self)
        self.curated = of_models.Curated(self)
        self.pulls = of_models.Pulls(self)
        self.tiers = of_models.Tiers(self)
        self.choosing = of_models.Choosing(self)
        self._news: asyncio.Queue[Event | None] = asyncio.Queue()

    async def connect(self) -> Double:
        if not self.up:
            raise NoDaemon("No daemon answers", "the double is down", "wait")
        return self

    async def reconnect(self) -> Double:
        """The next connection of a console that has had one."""
        self.calls.append(("reconnect",))
        if self.ended:
            raise NoDaemon("the daemon was shut down", "by the double", "any verb starts it", ended=True)
        return await self.connect()

    def push(self, type: str, object: str, data: Any = None) -> None:
        self._news.put_nowait(Event(id="e.1", type=type, object=object, time=NOW, data=msgspec.to_builtins(data)))

    def drop(self) -> None:
        self.up = False
        self._news.put_nowait(None)

    async def picture(self) -> Picture:
        self.pictures += 1
        daemon = DaemonStatus(
            pid=1,
            version="0.1.0",
            api=1,
            uid=1000,
            mode="user",
            started_at=NOW,
            home="/h",
            socket="/h/s",
            database="/h/corral.db",
            database_id=self.database_id,
            warnings=self.warnings,
            config="/h/corral.toml",
        )
        status = Status(
            daemon=daemon,
            gateway_socket="/h/g",
            nodes=(sample(),),
            deployments={},
            replicas={},
            models=2,
            gateway_status=GatewayStatus(state="ready", pid=2, version="0.1.0", snapshot=1, acknowledged=1),
            audit_ok=True,
            audit_message="",
            audit_records=3,
        )
        return Picture(
            event="e.0",
            status=status,
            deployments=tuple(self.deployed),
            replicas=tuple(self.running),
            models=tuple(self.stored),
            facts=self.facts,
            me=self.me,
            audit=tuple(self.records),
            pulls=self.pulling,
            moves=self.moving,
            benches=self.measuring,
        )

    async def model(self, wanted: str) -> Model:
        found = next(each for each in self.stored if each.name == wanted.partition("@")[0].partition(":")[0])
        if int(wanted.partition("@")[2] or 1) > max(found.version, found.versions):
            raise NotFound(f"no version {wanted}")
        return found

    async def status(self) -> Status:
        return (await self.picture()).status

    async def events(self, since: str | None = None) -> AsyncIterator[Event]:
        while (event := await self._news.get()) is not None:
            yield event
        raise ConnectionResetError("the double was dropped")

    async def audit(self, **filters: Any) -> list[AuditRecord]:
        return list(self.records)

    async def verify_audit(self) -> ChainReport:
        return ChainReport(ok=False, records=3, head="x", wrong=2, how="changed", message="record 2 was changed")

    async def fit(
        self, spec: DeploymentSpec, gpus: tuple[int, ...] = (), gpu_layers: int | None = None,
        cpu_moe: int | None = None,
    ) -> Plan:  # fmt: skip
        self.calls.append(("fit", spec, *((gpus, gpu_layers, cpu_moe) if gpus else ())))
        parts = PlanParts(weights=91 * MIB, kv_cache=90 * MIB, compute=10 * MIB, repack=0, output=1, base=50 * MIB)
        return Plan(
            model=spec.model,
            ctx=spec.ctx or 4096,
            ctx_per_slot=4096,
            parallel=spec.parallel,
            cache_type="f16",
            rss_bytes=250 * MIB,
            plan_bytes=300 * MIB,
            ready_bytes=240 * MIB,
            full_bytes=260 * MIB,
            parts=parts,
            free_bytes=5000 * MIB,
            reserve_bytes=512 * MIB,
            reserved_bytes=0,
            fits=self.room,
            reason="a plan of the double",
            split=of_models.split(gpus) if gpus else None,
        )

    async def deploy(self, spec: DeploymentSpec, replace: bool = False) -> Deployment:
        self.calls.append(("deploy", spec, replace))
        if not self.room:
            raise NoRoom("Not deployed", "no room in the double", "choose a smaller context")
        return deployment(spec.name, spec=spec)

    async def explain(self, name: str) -> Explanation:
        return Explanation(
            deployment=self.deployed[0], sentences=(f"{name} is well",), replicas=(), launches=(), audit=()
        )

    async def logs(self, name: str, replica: int = 0, start: int = -65536, limit: int = 65536, previous: bool = False,
                   wait: float = 0) -> LogText:  # fmt: skip
        text = self.log if start < 0 else ""
        return LogText(launch="l", start=0, end=len(self.log), text=text, ended=True)

    async def samples(self, seconds: float) -> list[NodeSample]:
        return [sample(NOW - 10 + n, cpu=10.0 * n) for n in range(10)]

    async def search_chats(self, text: str) -> list[Chat]:
        self.calls.append(("search_chats", text))
        return [await self._chat()] if text in "First question about wool" else []

    async def update_chat(self, id: str, **fields: Any) -> Chat:
        self.calls.append(("update_chat", id, fields))
        self.title = fields.get("title", self.title)
        self.on_full = fields.get("on_full", self.on_full)
        return msgspec.structs.replace(await self._chat(), **fields)

    async def export_chat(self, id: str, format: str) -> str:
        self.calls.append(("export_chat", id, format))
        return f"# {self.title}\n"

    async def create_chat(
        self, deployment: str, options: ChatOptions, title: str | None = None, question: str = "", private: bool = False
    ) -> Chat:
        self.calls.append(("create_chat", deployment, options, *(("private",) if private else ())))
        self.kept = {**self.kept, "private": private}
        return await self._chat()

    async def stop_turn(self, chat: str, turn: str) -> None:
        self.calls.append(("stop_turn", chat, turn))
        self.stopped = True
        self.gate.set()

    async def chats(self) -> list[Chat]:
        return [await self._chat()]

    async def _chat(self) -> Chat:
        return Chat(
            id="c1",
            title=self.title,
            deployment="chat",
            options=ChatOptions(),
            owner="ann",
            created_at=NOW,
            updated_at=NOW,
            turns=len(self.turns),
            ctx_per_slot=4096,
            context_tokens=1024,
            on_full=self.on_full,
            **self.kept,
        )

    async def chat(self, id: str) -> ChatDetail:
        return ChatDetail(chat=await self._chat(), messages=tuple(self.turns))

    async def ask(self, chat: str, question: str, **how: Any) -> Turn:
        self.calls.append(("ask", question, how))
        if self.context_full and not how.get("forget_oldest"):
            raise Conflict("the conversation no longer fits the context", "2100 of 2048 tokens", "", context_full=True)
        n = how.get("replace_turn") or (len(self.turns) if how.get("cont") else len(self.turns) + 1)
        last = self.turns[-1] if how.get("cont") else None
        turn = Turn(id=f"t{len(self.calls)}", chat=chat, n=n, question=last.question if last else question,
                    answer=last.answer if last else "", state="streaming", asked_at=NOW)  # fmt: skip
        self.turns = [*(each for each in self.turns if each.n < n), turn]
        return turn

    async def stream_turn(self, chat: str, turn: str, offset: int) -> AsyncIterator[dict[str, Any]]:
        at = 0
        for piece in self.pieces:
            if at >= offset:
                yield {"offset": at, "text": piece}
            at += len(piece)
            await self.gate.wait()
            if self.stopped:
                break
        done = msgspec.structs.replace(
            self.turns[-1],
            answer="".join(self.pieces)[:at],
            state="stopped" if self.stopped else "done",
            ttft_ms=35.0,
            tokens_per_second=44.5,
            prompt_tokens=12,
            answer_tokens=2,
            finish="" if self.stopped else self.finish,
            context_tokens=self.context_tokens,
        )
        self.turns = [*self.turns[:-1], done]
        yield {"turn": done}

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_") or verb == "close":
            raise AttributeError(verb)

        async def asked(*args: Any, **kwargs: Any) -> None:
            self.calls.append((verb, *args, *kwargs.values()))

        return asked
