"""The routes about the audit trail: list, verify, accept, export, report, keys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from core.access import Gate, Inquiry
from core.api.server import Call, Server
from core.api.usage import UsageReader
from core.audit import Archiver, Audit, Exporter, Reader, Signer
from core.audit.log import moment
from core.audit.report import MOST
from core.audit.search import exactly, wanted
from core.audit.signer import Work
from core.audit.verify import Watch
from core.errors import CorralError, NotAllowed
from core.events import Bus
from core.nouns import AuditReport, ChainFault, ChainProgress, ChainReport, ReportUse, Status, UsageRow
from core.proof.statements import Key
from core.telemetry.report import Asked

log = logging.getLogger(__name__)

CHAIN = "audit:chain"
FILTERS = ("actor", "verb", "object", "outcome", "since", "until")
TAKEN_S = 60.0
"""How long a piece of an export may wait to be taken."""


TOLD_S = 0.25
"""How often a verification says how far it is."""


class AcceptBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    faults: list[ChainFault]
    """Those that the person was shown."""


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""
    lost: bool = False


class ArchiveBody(msgspec.Struct, forbid_unknown_fields=True):
    before: float
    """Epoch seconds."""
    folder: str = ""
    reason: str = ""
    recent: bool = False
    """Also records of the last day."""


def add_audit(
    server: Server, audit: Audit, reader: Reader, signer: Signer, exporter: Exporter, archiver: Archiver, gate: Gate,
    bus: Bus, inquiry: Inquiry, usage: UsageReader, status: Callable[[], Awaitable[Status]],
) -> None:  # fmt: skip
    """Declare them."""

    async def audit_ls(call: Call) -> Any:
        return await audit.ls(
            actor=call.text("actor"),
            verb=call.text("verb"),
            object=call.text("object"),
            outcome=call.text("outcome"),
            since=call.text("since"),
            until=call.text("until"),
            before_seq=call.whole("before_seq", 0) if call.text("before_seq") else None,
            after_seq=call.whole("after_seq", 0) if call.text("after_seq") else None,
            limit=call.whole("limit", 100, 1, 10000),
        )

    async def verified(watch: Watch | None, archives: bool) -> ChainReport:
        """The chain, and with `archives` the files that older records lie in."""
        report = await audit.verify(watch)
        if not report.ok:
            bus.publish("warning", "audit:chain", report.message)
        faults = await archiver.faults(watch) if archives else []
        if not faults:
            told = "; every archive is as it was sealed" if archives else ""
            return msgspec.structs.replace(report, message=report.message + told) if report.ok else report
        first = report.faults[0] if report.faults else faults[0]
        return msgspec.structs.replace(
            report, ok=False, wrong=first.wrong, how=first.how, message=first.message, faults=(*report.faults, *faults)
        )

    async def verify(call: Call) -> Any:
        return await verified(None, bool(call.whole("archives", 0)))

    async def archives(call: Call) -> Any:
        return await archiver.archives()

    async def archive(call: Call) -> Any:
        body = await call.body(ArchiveBody)
        if body.folder and call.actor.uid != os.geteuid():  # nobody's deputy: it writes where only itself may
            raise NotAllowed(
                "the daemon writes to no folder that you name", f"it runs as uid {os.geteuid()} and you are another",
                "leave --to out, or have archive_folder set under [audit] in corral.toml",
            )  # fmt: skip
        work = archiver.archive(
            moment(str(body.before)), call.actor, call.request, folder=Path(body.folder) if body.folder else None,
            permitted=lambda: gate.require(call.actor, "audit.archive", CHAIN), reason=body.reason,
            recent=body.recent,
        )  # fmt: skip
        return await asyncio.shield(work)  # who goes away has asked for it all the same

    async def plan(call: Call) -> Any:
        folder = call.text("folder")
        return await archiver.plan(
            moment(call.text("before") or ""), Path(folder) if folder else None, recent=bool(call.whole("recent", 0))
        )

    async def find(call: Call) -> Any:
        asked = wanted(call.text("q") or "", moment)
        fields = {name: value for name in FILTERS if (value := call.text(name))}
        return await reader.find(
            exactly(fields, moment, asked),
            before_seq=call.whole("before_seq", 0) if call.text("before_seq") else None,
            after_seq=call.whole("after_seq", 0) if call.text("after_seq") else None,
            limit=call.whole("limit", 100, 1, 1000),
        )

    async def watch(call: Call) -> web.StreamResponse:
        """A verification that says how far it is. Who goes away ends it."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(call.http)
        at = [0, 0]

        def looked(done: int, of: int) -> None:
            at[:] = done, of

        work = asyncio.create_task(verified(looked, bool(call.whole("archives", 0))))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=TOLD_S)
                if not work.done():
                    await _give(call, response, _line(ChainProgress(done=at[0], of=at[1])))
            report = work.result()
            await _give(call, response, _line(ChainProgress(done=report.records, of=report.records, report=report)))
        except CorralError as error:  # its head is sent: that no report comes is all that can be said now
            log.error("a verification ended early: %s", error)
        except ConnectionResetError:
            log.info("a verification was ended by who asked for it")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return response

    async def accept(call: Call) -> Any:
        body = await call.body(AcceptBody)
        work = await audit.acceptance(body.reason, body.faults)
        await gate.act(call.actor, "audit.accept", "audit:chain", call.request, work, reason=body.reason)
        report = await audit.verify()
        bus.publish("warning", "audit:chain", report.message)  # whoever draws the status reads it anew
        return report

    async def keys(call: Call) -> Any:
        return await signer.show()

    async def rotate(call: Call) -> Any:
        body = await call.body(RotateBody)

        async def act(work: Work) -> Key:
            return await gate.act(
                call.actor, "audit.key-rotate", "audit:keys", call.request, work, reason=body.reason,
                permission="audit.keys", on=CHAIN,
            )  # fmt: skip

        await asyncio.shield(signer.rotate(act, lost=body.lost))
        return await signer.show()

    async def export(call: Call) -> web.StreamResponse:
        since = call.text("since") or None
        told = {"since": moment(since) if since else ""}
        work = lambda db: (None, None, told)  # noqa: E731
        await gate.act(call.actor, "audit.export", CHAIN, call.request, work)  # no record, no export
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        pieces = exporter.pieces(since)
        async with contextlib.aclosing(pieces):  # type: ignore[type-var]
            first = await anext(pieces)
            await response.prepare(call.http)
            try:
                with contextlib.suppress(ConnectionResetError):
                    await _give(call, response, first)
                    async for piece in pieces:
                        await _give(call, response, piece)
            except CorralError as error:  # its head is sent: that the last line is missing is all that can be said now
                log.error("an export was cut off: %s", error)
        return response

    async def report(call: Call) -> AuditReport:
        gate.require(call.actor, "access.read", "access:all")
        asked = call.text("since") or None
        since = moment(asked) if asked else ""
        work = lambda db: (None, None, {"since": since})  # noqa: E731
        await gate.act(call.actor, "audit.report", CHAIN, call.request, work, permission="audit.export")
        found = await exporter.report(since)
        used = await usage.report(
            Asked(("user", "deployment"), datetime.fromisoformat(since).timestamp() if since else None, limit=MOST)
        )
        chain, now, rights = await audit.verify(), await status(), inquiry.rights
        almighty = ["root on this host, who reads and ends the daemon and for more breaks the glass"]
        if rights.mode == "user":
            almighty = ["root on this host", f"uid {rights.owner_uid}, who owns the daemon"]
        return AuditReport(
            host=socket.gethostname(), version=now.daemon.version, mode=rights.mode, made_by=call.actor.name,
            made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), since=since, chain=chain,
            keys=await signer.show(), sinks=now.audit_sinks, almighty=tuple(almighty), grants=tuple(inquiry.grants()),
            matrix=tuple(inquiry.matrix()), use=tuple(_use(row) for row in used.rows),
            use_all=len(used.rows) + used.left_out, roles=tuple(rights.roles.values()),
            teams=tuple(rights.teams.values()),
            **{name: getattr(found, name) for name in found.__struct_fields__},
        )  # fmt: skip

    server.add("GET", "/audit", "audit.read", audit_ls, on=CHAIN)
    server.add("GET", "/audit/find", "audit.read", find, on=CHAIN)
    server.add("GET", "/audit/verify", "audit.verify", watch, on=CHAIN)
    server.add("POST", "/audit/verify", "audit.verify", verify, on=CHAIN)
    server.add("POST", "/audit/accept", "audit.accept", accept, on=CHAIN)
    server.add("GET", "/audit/export", "audit.export", export, on=CHAIN)
    server.add("GET", "/audit/report", "audit.export", report, on=CHAIN)
    server.add("GET", "/audit/archives", "audit.read", archives, on=CHAIN)
    server.add("GET", "/audit/archive", "audit.read", plan, on=CHAIN)
    server.add("POST", "/audit/archive", "audit.archive", archive, on=CHAIN)
    server.add("GET", "/audit/keys", "audit.read", keys, on=CHAIN)
    server.add("POST", "/audit/keys/rotate", "audit.keys", rotate, on=CHAIN)


def _use(row: UsageRow) -> ReportUse:
    of, sums = row.group, row.sums
    return ReportUse(
        str(of["user"]), str(of["deployment"]), sums.requests, sums.prompt_tokens or 0, sums.answer_tokens or 0
    )


def _line(value: ChainProgress) -> bytes:
    return msgspec.json.encode(value) + b"\n"


async def _give(call: Call, response: web.StreamResponse, piece: bytes) -> None:
    """Raises ConnectionResetError for a reader who has gone, or takes nothing."""
    try:
        async with asyncio.timeout(TAKEN_S):
            await response.write(piece)
    except TimeoutError as error:
        if call.http.transport is not None:
            call.http.transport.abort()
        raise ConnectionResetError from error
