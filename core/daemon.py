"""The composition root: builds the services, serves them, shuts down in order."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import signal
import time

from aiohttp import web

from core import program_version, systemd
from core.access import Access, Gate, Glass, Keys, Limiter, Rights, ServiceAccounts, people
from core.access.accounts import Accounts
from core.api.peer import Names, user_name
from core.api.routes import Services, add_routes
from core.api.server import Call, Server
from core.api.socket import Socket
from core.api.usage import UsageReader
from core.audit import Archiver, Audit, Exporter, Reader, Signer, Sinks
from core.catalog import Catalog, curated
from core.catalog.advising import Advisor
from core.catalog.bench import Benches, probes_folder
from core.catalog.pull import Pulls
from core.catalog.speeds import Speeds
from core.chats import PRIVATE_S, Chats, Forgetting, Holds, Masters, Others, Retention, Rules, Sealing, Vault
from core.deployments import told
from core.deployments.certificates import Certificates
from core.deployments.service import Deployments
from core.deployments.tables import uses
from core.engines.registry import registry
from core.errors import CorralError
from core.events import Bus
from core.gateway import wire
from core.hostcheck import clear_socket
from core.inforce import InForce
from core.logfile import LogFile
from core.nodes.local import Local
from core.nouns import API_VERSION, CORRAL, Catalogue, DaemonStatus, Deployment, Replica, Status
from core.paths import Paths
from core.settings import AuditTable, Settings
from core.starts import leave_crash, record_start
from core.store import Store
from core.telemetry.keeping import Days, UsageRetention
from core.telemetry.rollups import Rollups
from core.telemetry.sampler import Sampler
from core.warned import Warned, at_first, of_the_chain, of_the_gateway

log = logging.getLogger("corral")

MEND_S = 2.0
"""Seconds between two tries to make good what a full or failing disk left undone."""


class Daemon:
    """One daemon's life. `serve` returns when it has been told to stop."""

    def __init__(
        self, paths: Paths, settings: Settings, logfile: LogFile, accounts: Accounts | None = None, swapped: str = ""
    ) -> None:
        """`swapped`: why our memory may be written to swap, "" if it is not."""
        self.paths = paths
        self.in_force = InForce(paths, settings, accounts)
        self.logfile = logfile
        self._swapped = swapped
        self._stop = asyncio.Event()
        self._with_models = False
        self._started = time.time()

    async def serve(self) -> None:
        """Open, recover, serve, close. Raises `CorralError` if it cannot start."""
        paths = self.paths

        def audit_settings() -> AuditTable:
            return self.in_force.settings.audit

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.in_force.hangup.set)
        self.bus = Bus()
        self.store = await Store.open(paths)  # may take minutes, and leaves nothing that a SIGTERM could spoil
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            self.audit = Audit(self.store, paths)
            self.signer = Signer(self.store, self.audit, paths, audit_settings)
            self.sinks = Sinks(self.store, self.audit, paths, audit_settings)
            self.gate = Gate(self.store, self.audit, Rights(mode=paths.mode, owner_uid=os.getuid()))
            await self.audit.compare()
            self.exporter = Exporter(self.audit, self.signer, paths, self.store.database_id)
            self.archiver = Archiver(
                self.store, self.audit, self.signer, self.exporter, paths, audit_settings, self.sinks.sent
            )
            await self.archiver.tidy()  # before the record that its effect was interrupted
            died = await record_start(self.store, self.gate, self.audit, paths)
            self.access = Access(self.store, self.gate)
            await self.access.start(self.in_force.first_admins())
            self.glass = Glass(self.gate, self.access)
            self.keys = Keys(self.store, self.gate)
            await self.keys.start()
            self.service_accounts = ServiceAccounts(self.gate, self.access, self.keys)
            self.limiter = Limiter(self.store, self.gate, self.keys)
            await self.limiter.start()
            await self._build(died)
            try:
                await self._run()
            except Exception as error:
                log.exception("the daemon ends by an error of its own")
                leave_crash(paths, error)
                raise
            with contextlib.suppress(CorralError):
                await self.keys.write_uses()
            await self.gate.record(CORRAL, "daemon.stop", "daemon:local", f"d-{os.getpid()}", "done")
            with contextlib.suppress(CorralError):  # the next start signs it
                await self.signer.checkpoint()
            await self.sinks.flush()
        finally:
            await self.store.close()

    async def _build(self, died: str) -> None:
        """`died`: what must be seen of the daemons before."""
        paths, accounts = self.paths, self.in_force.accounts

        def settings() -> Settings:
            return self.in_force.settings

        self.names = Names()
        self.node = Local(paths, accounts=accounts)
        self.engines = registry(settings().engines)
        engines = (accounts.engine.uid, accounts.engine.gid) if accounts else None
        self.catalog = Catalog(self.store, self.gate, paths, self.bus, uses=uses, engines=engines)
        self.deployments = Deployments(
            store=self.store, gate=self.gate, audit=self.audit, node=self.node, engines=self.engines,
            catalog=self.catalog, bus=self.bus, paths=paths, settings=settings, allowed=self._allowed,
            keys=lambda: told.keys(self.keys.told()), access=self.access, limited=self.limiter.told,
            gateway_uid=accounts.gateway.uid if accounts else None, name=self.names.of,
        )  # fmt: skip

        self.pulls = Pulls(
            self.store, self.gate, self.catalog, paths, self.bus, lambda: settings().pull,
            plan=self.deployments.plan_shape, left=self.deployments.left, deployer=self.deployments, who=people.as_now,
        )  # fmt: skip
        self.speeds = Speeds(
            self.store, self.catalog, self.node.name, served=self.deployments.served,
            version=lambda engine: self.engines.get(engine).availability().version,
        )  # fmt: skip
        self.benches = Benches(
            self.store, self.gate, self.bus, self.node, self.engines, self.catalog, self.speeds,
            folder=probes_folder(paths.models), lend=self.deployments.lending.lend,
            running=lambda: len(self.deployments.launches()), ready_s=lambda: settings().replicas.start_timeout_s,
        )  # fmt: skip
        self.advisor = Advisor(
            self.speeds, node=self.node.name, catalogue=self._catalogue, room=self.deployments.left,
            threads=self.deployments.threads, loads=self.catalog.loads.where_they_lie,
        )  # fmt: skip

        async def deployment(name: str) -> Deployment | None:
            return next((each for each in self.deployments.ls() if each.spec.name == name), None)

        self.vault = Vault(self.store, self.gate, Masters(paths, lambda: settings().chats, os.environ))
        ring = self.vault.ring
        self.rules = Rules(self.store, self.gate, time.time, lambda: settings().chats.keep_days)
        self.holds = Holds(self.store, self.gate, time.time)
        self.chats = Chats(
            self.store, self.gate, self.bus, ring, self.rules, gateway_socket=paths.gateway_socket,
            deployment=deployment, queued=self.deployments.link.queued,
        )  # fmt: skip
        self.forgetting = Forgetting(self.store, self.gate, self.bus, ring, self.chats)
        self.others = Others(self.gate, ring)
        self.sealing = Sealing(self.store, self.gate, ring)
        self.vault.on_open += [self.chats.opened, self.sealing.opened]
        self.rollups = Rollups(self.store)
        self.usage_retention = UsageRetention(self.store, self.gate, days=self._usage_days)
        self.retention = Retention(
            self.store, self.gate, self.bus, self.rules, end_private=lambda: self.chats.end_private(PRIVATE_S)
        )  # fmt: skip
        self.sampler = Sampler(
            self.node, self.bus, lambda: settings().samples,
            launches=self.deployments.launches, sink=self.deployments.sampled,
        )  # fmt: skip
        self.audit.on_record.append(lambda record: self.bus.publish("audit", record.object, record) and None)
        self.access.on_change += [
            self.deployments.derive_all,
            self.deployments.link.touch,
            self.chats.obey,
            self._tell_of_access,
        ]
        self.glass.on_ring.append(lambda words: self.bus.publish("warning", "access:glass", words))
        self.keys.on_change += [self.deployments.link.touch, self._tell_of_access]
        self.limiter.on_change += [self.deployments.link.touch, self._tell_of_access]
        self.limiter.ask = self.deployments.link.spent
        self.deployments.link.doors.on_moved.append(lambda words: self.bus.publish("warning", "gateway:local", words))
        self.deployments.link.crowded.on_crowded.append(
            lambda words: self.bus.publish("warning", "gateway:local", words)
        )
        self.deployments.link.on_used = self.keys.used
        self.deployments.link.key_of = self.keys.known
        self.deployments.link.ended = lambda: told.ended(self.keys.ended())
        first = [*self.store.warnings, *filter(None, [systemd.logout_ends(user_name(os.getuid()))])]
        self.warned = Warned(
            self.bus,
            (
                self.glass.troubles, lambda: first, at_first(died), of_the_chain(self.audit),
                of_the_gateway(self.deployments.link), self.store.troubles, self.audit.troubles, self.gate.troubles,
                self.signer.troubles, self.sinks.troubles, self.vault.troubles, self.catalog.tiers.troubles,
                self.deployments.troubles, self.access.troubles,
            ),
        )  # fmt: skip
        await self.rules.start()
        await self.vault.start()
        await self.catalog.start()
        self.catalog.on_moved = self.deployments.follow
        self.catalog.moves.loading = self.deployments.opening
        await self.speeds.start()
        await self.benches.start()
        await self.deployments.start()
        await self.pulls.start()

    async def _run(self) -> None:
        accounts = self.in_force.accounts
        server = Server(self.gate, self.logfile.place, self.names)
        server.in_force = self.deployments.link.in_force
        add_routes(
            server,
            Services(
                bus=self.bus, gate=self.gate, access=self.access, glass=self.glass, keys=self.keys,
                service_accounts=self.service_accounts, limiter=self.limiter, store=self.store, audit=self.audit,
                signer=self.signer,
                exporter=self.exporter, reader=Reader(self.store, self.paths),
                archiver=self.archiver, catalog=self.catalog, pulls=self.pulls,
                speeds=self.speeds, benches=self.benches, advisor=self.advisor,
                deployments=self.deployments,
                engines=self.engines, chats=self.chats, vault=self.vault, rules=self.rules, holds=self.holds,
                forgetting=self.forgetting, others=self.others, sampler=self.sampler, facts=self.node.facts,
                usage=UsageReader(self.store, lambda: self.in_force.settings.usage),
                status=self.status, shutdown=self._asked_to_stop, reload=self._asked_to_reload,
                certificates=Certificates(self.gate, self.paths, accounts.gateway.uid if accounts else None),
                owner_uid=os.getuid(), own_entries=self.paths.catalogue,
            ),
        )  # fmt: skip
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
        await runner.setup()
        work = asyncio.create_task(self._work(server))
        tasks: list[asyncio.Task[object]] = [work]
        try:
            await self.sampler.try_look()
            await self.chats.start()
            socket = Socket(runner, self.paths)
            await socket.listen()
            tasks.append(asyncio.create_task(socket.guard()))
            tasks.append(asyncio.create_task(self._stop.wait()))
            systemd.tell("READY=1")
            log.info("daemon %s serves on %s", program_version(), self.paths.socket)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            systemd.tell("STOPPING=1")
            if self._with_models:
                await _ended(tasks)  # it would start the gateway again
                await self.deployments.link.stop()
        finally:
            await self.pulls.close()
            await self.catalog.close()
            await self.chats.close()
            await self.benches.close()
            self.bus.close()
            await _ended(tasks)
            await runner.cleanup()
            server.close()
            await server.refusals.settle(all=True)
            with contextlib.suppress(CorralError):  # a file that somebody put there is not ours to remove
                clear_socket(self.paths.socket)

    async def _work(self, server: Server) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.refusals.run())
            group.create_task(self.deployments.run())
            group.create_task(self.sampler.run())
            group.create_task(self.speeds.run())
            group.create_task(self.catalog.tiers.run())
            group.create_task(self.catalog.demoting.run())
            group.create_task(self._mend())
            group.create_task(self._verify())
            group.create_task(self.warned.run())
            group.create_task(self.signer.run())
            group.create_task(self.sinks.run())
            group.create_task(self.archiver.run())
            group.create_task(self.retention.run())
            group.create_task(self.sealing.run())
            group.create_task(self.rollups.run())
            group.create_task(self.usage_retention.run())
            group.create_task(self.in_force.run(self.gate, self._follow))
            group.create_task(self.access.run())
            group.create_task(self.glass.run())
            group.create_task(self.keys.run())
            group.create_task(self.limiter.run())

    async def _verify(self) -> None:
        """Verify the chain beside serving: a million records take some 4 s, which no start should wait for."""
        while True:
            try:
                report = await self.audit.verify()
                break
            except CorralError as error:
                log.error("%s", error)
                await asyncio.sleep(MEND_S)
        if not report.ok:
            self.bus.publish("warning", "audit:chain", f"the audit chain does not verify: {report.message}")

    async def _mend(self) -> None:
        """Make good what a full or failing disk left undone, as soon as it can be."""
        while True:
            await asyncio.sleep(MEND_S)
            await self.store.recover()
            try:
                await self.audit.recover()
                await self.gate.recover()
                await self.vault.follow()
                await self.vault.mind()
                await self.pulls.mend()
            except CorralError as error:
                log.debug("not yet: %s", error)

    # ---------------------------------------------------------------------------------------- what callers ask

    async def status(self) -> Status:
        """`corral status`."""
        chain = self.audit.status
        return Status(
            daemon=DaemonStatus(
                pid=os.getpid(),
                version=program_version(),
                api=API_VERSION,
                uid=os.getuid(),
                mode=self.paths.mode,
                started_at=self._started,
                home=str(self.paths.root),
                socket=str(self.paths.socket),
                database=str(self.paths.database),
                database_id=self.store.database_id,
                warnings=self.warned.now(),
                config=str(self.paths.config),
                defaults=self.in_force.defaults,
                swapped=self._swapped,
            ),
            gateway=self.deployments.link.url,
            gateway_socket=str(self.paths.gateway_socket),
            gateway_status=self.deployments.link.status(),
            nodes=(self.sampler.last,) if self.sampler.last else (),
            deployments=dict(collections.Counter(each.state for each in self.deployments.ls())),
            replicas=dict(collections.Counter(each.state for each in self.deployments.replicas())),
            models=len(await self.catalog.ls()),
            audit_ok=chain.ok,
            audit_message=chain.message,
            audit_records=chain.records,
            audit_sinks=self.sinks.status(),
        )

    async def _asked_to_stop(self, call: Call, models: bool) -> list[Replica]:
        """The answer is what runs on though it should not."""
        after = {"models": "stopped first" if models else "run on"}
        await self.gate.record(
            call.actor, "daemon.shutdown", "daemon:local", call.request, "done", after=after
        )  # fmt: skip
        left = await self.deployments.stop_all() if models else []
        self._with_models = models
        asyncio.get_running_loop().call_later(0.05, self._stop.set)
        return left

    async def _asked_to_reload(self, call: Call) -> None:
        await self.in_force.reload(self.gate, call.actor, call.request, self._follow)

    async def _follow(self) -> None:
        """Obey the settings in force."""
        settings = self.in_force.settings
        if self.in_force.accounts is not None:
            await self.access.start(self.in_force.first_admins())  # a group that was not there before
        self.logfile.follow(settings.daemon)
        self.engines.follow(settings.engines)
        self.sampler.touch()
        await self.deployments.link.renew()
        await self.signer.follow()
        await self.vault.follow()
        self.sinks.follow()
        self.pulls.follow()

    async def _catalogue(self) -> Catalogue:
        return await asyncio.to_thread(curated.read, self.paths.catalogue)

    def _usage_days(self) -> Days:
        return Days(self.in_force.settings.usage.keep_days, self.in_force.settings.usage.keep_rollup_days)

    def _tell_of_access(self) -> None:
        self.bus.publish("access", "access:all")

    def _allowed(self) -> wire.Allowed:
        uids = () if self.in_force.accounts else {0, os.getuid()}
        return told.allowed(self.access.uses("deployments.use"), uids)


async def _ended(tasks: list[asyncio.Task[object]]) -> None:
    """Cancel, and wait until it has happened."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
