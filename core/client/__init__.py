"""What a terminal or a script calls: the daemon's routes as methods, errors as `core.errors`, events as a stream.

asyncio streams and httptools, no aiohttp: a client starts in some 100 ms instead of 300.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from core import http, outbox, starting
from core.client.access import AccessCalls
from core.client.accounts import AccountCalls
from core.client.audit import ProofCalls
from core.client.catalog import CatalogCalls, model_path, part
from core.client.catalogue import CuratedCalls
from core.client.chats import ChatCalls
from core.client.choosing import ChoosingCalls
from core.client.keys import KeyCalls
from core.client.limits import LimitCalls
from core.client.nodes import NodeCalls
from core.client.privacy import PrivacyCalls
from core.client.pull import PullCalls
from core.client.sizes import SizeCalls
from core.client.tiers import TierCalls
from core.client.transport import PREFIX, begun, error_of, lives, query, went_away
from core.client.usage import UsageCalls
from core.errors import CorralError, Failed, TimedOut
from core.nouns import (
    NO_OPTIONS,
    AuditRecord,
    ChainFault,
    ChainReport,
    Deployment,
    DeploymentSpec,
    Event,
    Explanation,
    GatewayCertificate,
    ImportJob,
    ImportOptions,
    LogText,
    Model,
    NodeSample,
    Picture,
    Plan,
    Replica,
    Status,
)

STOP_TIMEOUT_S = 600.0
"""How long answers and models may take to end."""
UPLOAD_TIMEOUT_S = 60.0
"""How long a piece of an upload may wait to be taken, and its answer to come."""


class Client(ChatCalls):
    """One caller of one daemon. Each call is a connection of its own, so calls may run at the same time."""

    def __init__(self, socket: Path, *, through: str = "cli") -> None:
        super().__init__(socket, through)
        self.access = AccessCalls(self)
        self.accounts = AccountCalls(self)
        self.catalog = CatalogCalls(self)
        self.curated = CuratedCalls(self)
        self.sizes = SizeCalls(self)
        self.choosing = ChoosingCalls(self)
        self.keys = KeyCalls(self)
        self.limits = LimitCalls(self)
        self.nodes = NodeCalls(self)
        self.privacy = PrivacyCalls(self)
        self.proof = ProofCalls(self)
        self.pulls = PullCalls(self)
        self.tiers = TierCalls(self)
        self.usage = UsageCalls(self)

    @classmethod
    async def connect(cls, *, start: bool = True, through: str = "cli", user: bool = False) -> Client:
        """A client of the daemon that answers, which is started if none does. Raises `NoDaemon`."""
        return cls(await starting.find(start=start, user=user), through=through)

    @classmethod
    async def reconnect(cls, *, through: str = "cli", user: bool = False) -> Client:
        """A client after a lost connection: a daemon that died is started again, one that was shut down is not. Raises
        `NoDaemon`, with `ended` in its details for the latter."""
        return cls(await starting.find_again(user=user), through=through)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # ---------------------------------------------------------------------------------------- daemon

    async def status(self, timeout: float = 30.0) -> Status:
        return await self.call("GET", "/status", Status, timeout=timeout)

    async def picture(self) -> Picture:
        return await self.call("GET", "/picture", Picture)

    async def events(self, since: str | None = None, until: str = "") -> AsyncIterator[Event]:
        """Events after `since` that one may see; up to the id `until`, or to a resync, which stands for it. Raises
        `NoDaemon` when the connection is lost."""
        response = await self._open("GET", "/events" + query(since=since))
        async with response:
            try:
                async for id, data in http.events(response):
                    event = msgspec.json.decode(data, type=Event) if data else None
                    resync = event is not None and event.type == "resync"
                    if event is not None and (resync or not until or _seq(id) <= _seq(until)):
                        yield event
                    if until and (resync or _seq(id) >= _seq(until)):
                        return
            except OSError as error:
                raise went_away() from error
        raise went_away()

    async def shutdown(self, models: bool) -> None:
        """Tell the daemon to end and wait until its process is gone. Raises `Failed` with what did not end of the
        `models`, and `TimedOut`."""
        status = await self.status()
        pid, gateway = status.daemon.pid, status.gateway_status.pid
        left = await self.call("POST", "/shutdown", list[Replica], {"models": models}, timeout=STOP_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + 90
        while lives(pid):
            if asyncio.get_running_loop().time() > deadline:
                raise TimedOut("the daemon has not ended within 90 s", todo="look at its log")
            await asyncio.sleep(0.03)
        names = ", ".join(f"{each.id} (pid {each.pid})" for each in left)
        if models and gateway is not None and lives(gateway):  # the daemon has waited for it
            names = ", ".join(filter(None, (names, f"the gateway (pid {gateway})")))
        if names:
            raise Failed("the daemon is gone, but not everything has ended", names, "end it by its pid")

    async def reload(self) -> None:
        await self.call("POST", "/reload", dict)

    async def make_certificate(self, names: Sequence[str], days: int, *, replace: bool) -> GatewayCertificate:
        body = {"names": list(names), "days": days, "replace": replace}
        return await self.call("POST", "/gateway/certificate", GatewayCertificate, body)

    async def samples(self, seconds: float) -> list[NodeSample]:
        return await self.call("GET", "/samples" + query(seconds=seconds), list[NodeSample])

    async def audit(self, **filters: Any) -> list[AuditRecord]:
        """actor, verb, object, outcome, since, until, before_seq, after_seq, limit."""
        return await self.call("GET", "/audit" + query(**filters), list[AuditRecord])

    async def verify_audit(self) -> ChainReport:
        return await self.call("POST", "/audit/verify", ChainReport, timeout=600)

    async def accept_audit(self, reason: str, faults: Sequence[ChainFault]) -> ChainReport:
        """Accept `faults`, which a person was shown; the verification afterwards. Raises `Conflict` if they are not
        what is wrong now."""
        return await self.call("POST", "/audit/accept", ChainReport, {"reason": reason, "faults": faults}, timeout=600)

    # ---------------------------------------------------------------------------------------- models

    async def models(self) -> list[Model]:
        return await self.call("GET", "/models", list[Model])

    async def model(self, name: str) -> Model:
        """`chat`, `chat:previous`, `chat@3`."""
        return await self.call("GET", model_path(name), Model)

    async def import_model(
        self, path: str, name: str | None = None, sent: Callable[[int, int], None] | None = None, *,
        options: ImportOptions = NO_OPTIONS, projector: str = "", adapters: Sequence[str] = (),
    ) -> ImportJob:  # fmt: skip
        """The daemon opens the files if it has our uid; else this process reads them and sends them, and `sent` is told
        how many bytes of how many."""
        if (await self.status()).daemon.uid == os.getuid():
            beside = {"projector": projector, "adapters": list(adapters)}
            return await self._begin("/models", {"path": path, "name": name, "options": options, **beside})
        return await self._upload(Path(path), name, sent, options, projector, adapters)

    async def _begin(self, path: str, body: Any) -> ImportJob:
        """Begin an import. Cancelled before the daemon has named it, it is cancelled there too."""
        return await begun(self.call("POST", path, ImportJob, body), lambda job: self.cancel_import(job.id))

    async def _upload(
        self, path: Path, name: str | None, sent: Callable[[int, int], None] | None, options: ImportOptions,
        projector: str, adapters: Sequence[str],
    ) -> ImportJob:  # fmt: skip
        beside = [Path(each) for each in ([projector] if projector else []) + list(adapters)]
        files = await asyncio.to_thread(outbox.check, [*outbox.find(path), *beside])
        body = {
            "name": name, "files": [{"name": file.name, "bytes": size} for file, size in files], "options": options,
            "projector": Path(projector).name, "adapters": [Path(each).name for each in adapters],
        }  # fmt: skip
        job = await self._begin("/models/upload", body)
        before, total = 0, sum(size for _, size in files)

        def tell(done: int) -> None:
            if sent is not None:
                sent(before + done, total)

        try:
            for n, (file, size) in enumerate(files):
                await self._send(job.id, n, file, size, tell)
                before += size
        except BaseException:
            with contextlib.suppress(CorralError):
                await self.cancel_import(job.id)
            raise
        return await self.import_job(job.id)

    async def _send(self, job: str, n: int, file: Path, size: int, tell: Callable[[int], None]) -> None:
        try:
            response = await http.request(
                self.socket, "PUT", f"{PREFIX}/imports/{part(job)}/files/{n}", headers=self._headers,
                upload=outbox.pieces(file, size, tell), length=size, timeout=UPLOAD_TIMEOUT_S,
            )  # fmt: skip
        except TimeoutError as error:
            raise TimedOut(f"the daemon took nothing of {file.name} for {UPLOAD_TIMEOUT_S:.0f} s") from error
        except http.Lost as error:
            raise went_away("PUT") from error
        except OSError as error:
            raise Failed(f"{file.name} could not be sent", str(error)) from error
        async with response:
            raw = await response.read(1 << 20)
            if response.status >= 400:
                raise error_of(response.status, raw)

    async def import_sample(self, name: str | None = None) -> ImportJob:
        return await self._begin("/models/sample", {"name": name})

    async def import_job(self, id: str) -> ImportJob:
        return await self.call("GET", f"/imports/{part(id)}", ImportJob)

    async def cancel_import(self, id: str) -> ImportJob:
        return await self.call("DELETE", f"/imports/{part(id)}", ImportJob, timeout=60)

    async def remove_model(self, name: str, seen: Sequence[str] | None = None) -> None:
        """All its versions, or the one that `chat@3` names. `seen`: those that were shown; raises `Changed` where there
        are others by now."""
        await self.call("DELETE", model_path(name), dict, {"seen": seen})

    async def fit(
        self, spec: DeploymentSpec, gpus: Sequence[int] = (), gpu_layers: int | None = None, cpu_moe: int | None = None
    ) -> Plan:
        """What a replica would take, and whether that fits; also over GPUs with so many bytes free each."""
        asked = query(gpus=",".join(map(str, gpus)) or None, gpu_layers=gpu_layers, cpu_moe=cpu_moe)
        return await self.call("POST", "/fit" + asked, Plan, spec)

    async def engines(self) -> list[dict[str, Any]]:
        return await self.call("GET", "/engines", list[dict[str, Any]])

    # ---------------------------------------------------------------------------------------- deployments

    async def deployments(self) -> list[Deployment]:
        return await self.call("GET", "/deployments", list[Deployment])

    async def deployment(self, name: str) -> Deployment:
        return await self.call("GET", f"/deployments/{part(name)}", Deployment)

    async def deploy(self, spec: DeploymentSpec, replace: bool = False) -> Deployment:
        return (await self.apply(spec, replace))[0]

    async def apply(
        self, spec: DeploymentSpec, replace: bool = False, mark: dict[str, Any] | None = None
    ) -> tuple[Deployment, bool]:  # fmt: skip
        """The deployment, and whether anything changes: not, if the same runs already. `mark`: it is sensitive, with
        `labels` and `groups`."""
        body = {"spec": spec, "replace": replace, **({"mark": mark} if mark else {})}
        status, found = await self._call("POST", "/deployments", Deployment, body)
        return found, status == 201

    async def remove_deployment(self, name: str) -> None:
        await self.call("DELETE", f"/deployments/{part(name)}", dict)

    async def stop_deployment(self, name: str) -> Deployment:
        return await self.call("POST", f"/deployments/{part(name)}/stop", Deployment)

    async def start_deployment(self, name: str) -> Deployment:
        return await self.call("POST", f"/deployments/{part(name)}/start", Deployment)

    async def restart_deployment(self, name: str) -> Deployment:
        return await self.call("POST", f"/deployments/{part(name)}/restart", Deployment)

    async def scale(self, name: str, replicas: int) -> Deployment:
        return await self.call("POST", f"/deployments/{part(name)}/scale", Deployment, {"replicas": replicas})

    async def wait_deployment(self, name: str, timeout: float) -> Deployment:
        """The deployment when it is settled, or as it is after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            left = max(0.0, min(30.0, deadline - loop.time()))
            path = f"/deployments/{part(name)}/wait" + query(timeout=left)
            found = await self.call("GET", path, Deployment, timeout=left + 10)
            if found.state in ("ready", "failed", "stopped") or loop.time() >= deadline:
                return found

    async def explain(self, name: str) -> Explanation:
        return await self.call("GET", f"/deployments/{part(name)}/explain", Explanation)

    async def replicas(self, *, pss: bool = False) -> list[Replica]:
        """All of them; `pss`: measured now, instead of within the last 30 s."""
        return await self.call("GET", f"/replicas{query(pss=1) if pss else ''}", list[Replica])

    async def logs(
        self, name: str, replica: int = 0, start: int = -65536, limit: int = 65536, previous: bool = False,
        wait: float = 0, since: float | None = None,
    ) -> LogText:  # fmt: skip
        """Up to `limit` bytes from byte `start` on (negative: from the end), or from the unix time `since` on."""
        which = query(replica=replica, start=start, limit=limit, previous=int(previous), wait=wait, since=since)
        return await self.call("GET", f"/deployments/{part(name)}/logs{which}", LogText, timeout=wait + 30)


def _seq(id: str) -> int:
    """The place of an event among those of its daemon, by its id."""
    return int(id.rpartition(".")[2])
