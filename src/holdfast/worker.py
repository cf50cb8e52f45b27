"""Worker: claims work items and executes them until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from holdfast import errors
from holdfast.execution import Execution
from holdfast.final_check import FinalChecks
from holdfast.handing_back import hand_back
from holdfast.handlers import Handlers
from holdfast.liveness import LEASE, RENEWALS_PER_LEASE, Heartbeat
from holdfast.loops import PAUSE_MAX, Loop
from holdfast.models import Claimed, Lease
from holdfast.schedules import ScheduleLoop, Schedules
from holdfast.store import Store, verbs
from holdfast.store.verbs import ClaimFilter
from holdfast.sweep import RecoverySweep, Retention
from holdfast.verifiers import EvidenceVerifier

WATCH = 0.03
"""Seconds between looks at whether another process committed anything."""

IDLE = 5.0
"""Seconds after which a worker looks again although nothing is due and no commit was heard of."""

CONCURRENCY = 10
"""Work items one worker executes at a time, unless told otherwise."""

log = logging.getLogger("holdfast")


class Worker:
    """Executes work items: claim, verify, execute, finish.

    A kill at any moment loses nothing that was recorded: another worker takes its items back and
    goes on. A stop in good order hands back what it runs.

    Args:
        store: the database.
        handlers: the functions it can run.
        concurrency: work items at a time.
        queues: which queues it serves.
        roots: serve only these tasks and what is below them, and as many more items at a time as
            there are; see `serve`.
        lease: seconds; see `holdfast.liveness.LEASE`.
        verifier: what checks evidence.
        retention: how long things are kept.
        worker_id: made up when None.
        schedules: what the program wants submitted at certain times. One that serves only some
            tasks submits nothing.
    """

    def __init__(
        self,
        store: Store,
        handlers: Handlers,
        *,
        concurrency: int = CONCURRENCY,
        queues: tuple[str, ...] = ("default",),
        roots: Iterable[str] | None = None,
        lease: float = LEASE,
        verifier: EvidenceVerifier | None = None,
        retention: Retention | None = None,
        worker_id: str | None = None,
        schedules: Schedules | None = None,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._concurrency = concurrency
        self._queues = queues
        self._roots = None if roots is None else set(roots)
        self._lease = lease
        self._verifier = verifier or EvidenceVerifier(clock=store.clock)
        self._name = worker_id
        self._running: dict[asyncio.Task[None], Execution] = {}
        self._wake = asyncio.Event()
        self._alone = False
        self.damage: errors.StoreCorruptError | None = None
        """Set when the database was found damaged; then nothing more is claimed."""
        self._heartbeat: Heartbeat | None = None
        self._checks = FinalChecks(store, self._verifier, self._wake.set)
        self._loops: tuple[Loop, ...] = (
            RecoverySweep(store, retention),
            _Watch(store, self._wake),
            _Claims(self, lease),
        )
        if schedules is not None and schedules.declared and roots is None:
            self._loops += (ScheduleLoop(store, schedules),)
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def worker_id(self) -> str | None:
        """Its id, once it has started."""
        return None if self._heartbeat is None else self._heartbeat.worker_id

    @property
    def busy(self) -> bool:
        """Whether it executes or verifies anything."""
        return bool(self._running) or self._checks.busy

    async def start(self, *, claiming: bool = True) -> None:
        """Register, and start claiming unless items are to be given to `execute` one by one.

        Raises:
            StoreError: the database can't be written.
        """
        loop = asyncio.get_running_loop()
        self._unwatch = self._store.on_wake(lambda: loop.call_soon_threadsafe(self._wake.set))
        await self._register()
        for each in self._loops if claiming else ():
            each.start()

    async def stop(self, grace: float = 0.0) -> None:
        """Stop: claim nothing more, wait up to `grace` seconds, hand back what still runs."""
        for each in reversed(self._loops):
            await each.stop()
        if self._running and grace > 0:
            await asyncio.wait(self._running, timeout=grace)
        await self._stop_running("drained")
        await self._checks.stop()
        self._unwatch()
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            try:
                await self._hand_back_rest(heartbeat.worker_id)
            except errors.StoreError as failure:
                log.warning(
                    "Worker %s leaves its leases to others: %s", heartbeat.worker_id, failure
                )
            await asyncio.to_thread(heartbeat.stop)

    async def _stop_running(self, why: str) -> None:
        for execution in self._running.values():
            execution.stop(why)
        if self._running:
            await asyncio.wait(self._running)

    # -- serving only some tasks -----------------------------------------------------------------

    def serve(self, root_id: str) -> None:
        """Serve a task and what is below it, beside those it serves already."""
        if self._roots is not None:
            self._roots.add(root_id)
            self._wake.set()

    async def leave(self, root_id: str) -> None:
        """Serve a task no longer: what runs of it is stopped and handed back."""
        if self._roots is not None:
            self._roots.discard(root_id)
        left = {
            running: execution
            for running, execution in self._running.items()
            if execution.claimed.item.root_id == root_id
        }
        for execution in left.values():
            execution.stop("drained")
        if left:
            await asyncio.wait(left)

    def runs(self, root_id: str) -> bool:
        """Say whether it executes anything of a task, or of what is below it."""
        return any(
            execution.claimed.item.root_id == root_id for execution in self._running.values()
        )

    # -- being alive -----------------------------------------------------------------------------

    async def _register(self) -> None:
        loop = asyncio.get_running_loop()
        heartbeat: Heartbeat = Heartbeat(
            self._store,
            lease=self._lease,
            name=self._name,
            on_lost=lambda: loop.call_soon_threadsafe(self._lost, heartbeat.worker_id),
        )
        await asyncio.to_thread(heartbeat.start)
        self._heartbeat = heartbeat

    def _lost(self, worker_id: str) -> None:
        log.warning("Worker %s lost its leases and stops what it runs.", worker_id)
        # At once: the next `fill` may be waiting for the database, and the lease runs out.
        for execution in self._running.values():
            execution.stop("lost")
        self._wake.set()

    async def _start_anew(self, lost: Heartbeat) -> None:
        """The leases can't be trusted any more: stop everything, and go on under another id.

        Not before all was told what can be told of the old one: others wait for that with the
        `once` calls that it has begun.

        Raises:
            StoreError: not everything was.
        """
        await self._stop_running("lost")
        await self._hand_back_rest(lost.worker_id)
        await asyncio.to_thread(lost.retire)
        self._heartbeat = None

    # -- claiming --------------------------------------------------------------------------------

    async def fill(self) -> None:
        """Claim as many items as there are free slots, and start them."""
        self._wake.clear()
        if self.damage is not None:
            return
        if self._heartbeat is not None and self._heartbeat.lost:
            await self._start_anew(self._heartbeat)
        if self._heartbeat is None:
            await self._register()
        heartbeat = self._heartbeat
        if heartbeat is not None:
            await self._claim(heartbeat)
            await self._checks.start(heartbeat.worker_id, self._served)

    @property
    def _free(self) -> int:
        """How many items more it can execute now."""
        slots = self._concurrency * (1 if self._roots is None else len(self._roots))
        return 0 if self._alone else max(0, slots - len(self._running))

    @property
    def _served(self) -> tuple[str, ...] | None:
        return None if self._roots is None else tuple(sorted(self._roots))

    @property
    def _wanted(self) -> ClaimFilter:
        return ClaimFilter(self._handlers.names, self._queues, self._served, idle=not self._running)

    async def _claim(self, heartbeat: Heartbeat) -> None:
        free = self._free
        if not free:
            return
        try:
            claimed = await self._store.commit(
                verbs.claim_work_items(heartbeat.worker_id, self._wanted, free, self._store.now())
            )
        except errors.LeaseLostError:
            return  # taken for dead: the heartbeat notices, and the next call starts anew
        for each in claimed if isinstance(claimed, list) else ():
            if self._roots is None or each.item.root_id in self._roots:
                self.execute(each)
            else:  # left while it was being claimed
                await self._hand_back({each.lease})

    def execute(self, claimed: Claimed) -> asyncio.Task[None]:
        """Start executing a claimed item."""
        heartbeat = self._heartbeat
        assert heartbeat is not None  # noqa: S101  claims are made under one
        execution = Execution(
            self._store, claimed, self._handlers, self._verifier, heartbeat.confirm
        )
        self._alone = self._alone or claimed.item.alone
        running = asyncio.ensure_future(execution.run())
        self._running[running] = execution
        running.add_done_callback(self._ended)
        return running

    def _ended(self, running: asyncio.Task[None]) -> None:
        execution = self._running.pop(running)
        if not self._running:
            self._alone = False
        error = None if running.cancelled() else running.exception()
        if isinstance(error, errors.StoreCorruptError):
            log.error("This worker claims nothing more: %s", error)
            self.damage = error
        elif error is not None:
            item = execution.claimed.item
            log.error("The attempt at %s/%s broke", item.task_id, item.item_id, exc_info=error)
        self._wake.set()

    async def watch(self) -> None:
        """Wait until there may be something to claim, at most until time makes something ready."""
        await self._compare_leases()
        due = None
        if self._free and not self._wake.is_set():
            wake = verbs.next_wake(self._wanted, self._store.now())
            due = await self._store.beside(lambda: self._store.read(wake))
        timeout = IDLE if due is None else min(IDLE, due)
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _compare_leases(self) -> None:
        """Stop what was canceled or taken away; hand back what is leased and not executed."""
        worker_id = self.worker_id
        if worker_id is None:
            return
        # Before the reading: what ends meanwhile isn't taken for something nobody executes.
        running = {execution.claimed.lease: execution for execution in self._running.values()}
        held = await self._store.beside(lambda: self._store.read(verbs.held_leases(worker_id)))
        for lease, execution in running.items():
            if lease not in held:
                execution.stop("lost")
            elif held[lease]:
                execution.stop("canceled")
        # A claim whose answer was lost, or an attempt that the database's failure ended.
        await self._hand_back(held.keys() - running.keys())

    async def _hand_back(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            try:
                await hand_back(self._store, lease)
            except errors.LeaseLostError:
                continue  # it was taken back

    async def _hand_back_rest(self, worker_id: str) -> None:
        """Hand back what is still leased though nothing runs, such as a claim cut off by a stop."""
        # A write, so that whatever was under way before it has landed when this returns.
        await self._store.commit(verbs.drain_worker(worker_id, self._store.now()))
        await self._hand_back(self._store.read(verbs.held_leases(worker_id)))


class _Claims(Loop):
    """Fills free slots whenever something may have become ready."""

    def __init__(self, worker: Worker, lease: float) -> None:
        # Others wait as long as a lease for what a worker tells that lost its own.
        super().__init__(0.0, min(PAUSE_MAX, lease / RENEWALS_PER_LEASE))
        self._worker = worker

    async def tick(self) -> None:
        await self._worker.fill()
        await self._worker.watch()


class _Watch(Loop):
    """Notices that another process committed something."""

    def __init__(self, store: Store, wake: asyncio.Event) -> None:
        super().__init__(WATCH)
        self._store = store
        self._wake = wake
        self._version: int | None = None

    async def tick(self) -> None:
        version = self._store.engine.data_version()
        if self._version is not None and version != self._version:
            self._wake.set()
        self._version = version
