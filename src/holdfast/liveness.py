"""Who is alive: a worker's heartbeat, and how others see that it has stopped.

No two clocks are compared. A worker that dies frees its byte of the lock file, which others see
within a sweep. One that lives but no longer renews is taken for dead by an observer who has seen
the same renewal count for a whole lease on its own boot-time clock. The worker itself stops
earlier: local time may only end a lease early. Once nothing that it started can have an effect any
more, it says so.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from holdfast import errors
from holdfast.ids import new_id
from holdfast.models import WorkerRecord
from holdfast.store import Store, verbs
from holdfast.store.processes import this_process
from holdfast.store.verbs import TakenBack
from holdfast.threads import start_thread
from holdfast.under_way import any_may_run
from holdfast.version import VERSION

LEASE = 30.0
"""Seconds without a renewal after which a worker is taken for dead whose death can't be seen."""

RENEWALS_PER_LEASE = 6
"""Renewals in the length of a lease: several may fail before it is lost."""

SAFETY = 0.6
"""Part of the lease after which a worker makes its last try to renew. When that ends, at the latest
after `TRY`, its attempts are stopped: before the lease runs out."""

TRY = 0.25
"""Part of the lease that a try to renew may take."""


_ours: set[str] = set()
"""The workers of this process, those that have stopped included."""

os.register_at_fork(after_in_child=_ours.clear)


def is_ours(worker_id: str) -> bool:
    """Say whether a worker is, or was, one of this process."""
    return worker_id in _ours


def is_gone(store: Store, worker_id: str) -> bool:
    """Say whether another's worker can provably have no effect any more.

    One that stopped renewing isn't gone: it may be asleep. It is when its process has ended, or has
    said that nothing of it runs.
    """
    if is_ours(worker_id):
        return False
    worker = store.read(verbs.get_worker(worker_id))
    return worker is not None and store.engine.alive(worker) is False


def next_look(store: Store, worker_id: str) -> float | None:
    """Return when to look again whether a worker that lost its leases is gone, as wall time.

    It notices, stops what it runs and says so, unless it is asleep or cut off. None where that
    can't be hoped for: it has its leases, or lost them longer ago than they last.
    """
    worker, now = store.read(verbs.get_worker(worker_id)), store.now()
    if worker is None or worker.status != "gone" or is_ours(worker_id):
        return None
    until = worker.seen_at + worker.lease
    return min(until, now + worker.lease / RENEWALS_PER_LEASE) if now < until else None


class Heartbeat:
    """The registration of one worker, and the thread that renews all its leases at once.

    It runs apart from any event loop: a handler that blocks the loop for minutes keeps its lease.

    Args:
        store: the database.
        lease: seconds; see `LEASE`.
        name: a worker id; made up when None.
        on_lost: called once, from any thread, when the leases can no longer be trusted.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease: float = LEASE,
        name: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> None:
        if lease <= 0:
            message = f"A lease of {lease:g} s can't be kept. Use a positive number of seconds."
            raise errors.UsageError(message)
        self._name = name or f"{platform.node()}-{os.getpid()}"
        self.worker_id = name or f"{self._name}-{new_id(store.now())[-6:]}"
        self._store = store
        self._lease = lease
        self._on_lost = on_lost or (lambda: None)
        self._slot: int | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trusted_until = 0.0
        self._renewing = threading.Lock()
        self._telling = threading.Lock()
        self.lost = False

    def start(self) -> None:
        """Register the worker and start renewing. Blocks for one commit.

        Raises:
            StoreError: the database can't be written.
        """
        started = self._store.clock.boottime()
        self._slot = self._register()
        self._trusted_until = started + self._lease * SAFETY
        self._thread = threading.Thread(target=self._run, name="holdfast-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing and take the worker off the list. Safe to call twice and before `start`."""
        with suppress(errors.StoreError):  # whoever sweeps takes back what it held
            self.retire()

    def retire(self) -> None:
        """Do what `stop` does.

        Raises:
            StoreError: it is on the list still. Call it again.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._slot is None:
            return
        over = not any_may_run(self.worker_id)
        if over:  # else this process holds it until it ends
            self._store.engine.release_slot(self._slot)
        retire = verbs.retire_worker(self.worker_id, self._store.now(), over=over)
        self._store.commit(retire).wait()
        self._slot = None

    def check(self) -> None:
        """Raise when the local deadline of the leases has passed.

        A process that was asleep, with its machine or alone, renews first; that blocks for at most
        a quarter of the lease, and once for all who ask meanwhile.

        Raises:
            LeaseLostError: this worker couldn't renew in time; others may take over.
        """
        if not (self.lost or self._is_trusted()):
            with self._renewing:
                renewed = self._is_trusted() or (self._renew() and self._is_trusted())
            if not renewed:
                self._lose()
        if self.lost:
            message = (
                f"Worker {self.worker_id} couldn't renew its leases in time and stops what it "
                f"runs; nothing it recorded is lost, and others take over."
            )
            raise errors.LeaseLostError(message, task_id="", item_id="", token=0)

    async def confirm(self) -> None:
        """Do what `check` does; what blocks doesn't block the event loop."""
        if self.lost or not self._is_trusted():
            await start_thread(self.check)

    def _register(self) -> int:
        while True:
            slot = self._store.read(verbs.next_slot())
            if not self._store.engine.hold_slot(slot):
                continue  # another worker is between holding it and registering
            now = self._store.now()
            record = WorkerRecord(
                self.worker_id, slot, platform.node(), os.getpid(), VERSION, self._lease, 0,
                "alive", now, now, this_process(),
            )  # fmt: skip
            _ours.add(self.worker_id)
            try:
                registered = self._store.commit(verbs.register_worker(record)).wait()
            except BaseException:
                # Held on to, the next try would wait for it for ever.
                self._store.engine.release_slot(slot)
                raise
            if registered:
                return slot
            _ours.discard(self.worker_id)
            self._store.engine.release_slot(slot)
            if self._store.read(verbs.get_worker(self.worker_id)) is not None:
                # An id is used once: what was written under it must not pass for this worker's.
                self.worker_id = f"{self._name}-{new_id(now)[-6:]}"

    def _run(self) -> None:
        while not self._stopping.wait(self._pause()):
            if self.lost or not self._renew():
                self._lose()
                return

    def _lose(self) -> None:
        with self._telling:  # not the other lock: it may be held for as long as a try takes
            told, self.lost = self.lost, True
        if not told:
            self._on_lost()

    def _pause(self) -> float:
        left = self._trusted_until - self._store.clock.boottime()
        return max(0.0, min(self._lease / RENEWALS_PER_LEASE, left))

    def _is_trusted(self) -> bool:
        return self._store.clock.boottime() < self._trusted_until

    def _renew(self) -> bool:
        """Renew; False when the leases can no longer be trusted."""
        clock = self._store.clock
        started = clock.boottime()
        timeout = min(self._store.deadline, self._lease * TRY)
        try:
            pending = self._store.commit(verbs.renew_leases(self.worker_id, self._store.now()))
            if not pending.within(timeout):
                return False
        except errors.StoreError:
            return self._is_trusted()
        self._trusted_until = started + self._lease * SAFETY
        return True


HUNG = 30.0
"""Seconds after which a transaction is ended that nobody goes on with, whoever began it."""

MOST_BETWEEN = 0.5
"""Seconds between looks at most, however many workers of a machine share them."""

ROUND = 10.0
"""Seconds between looks for what nobody waits for at this moment."""


class _Seen(msgspec.Struct):
    renewals: int
    at: float
    unchanged: float = 0.0


class Observer:
    """Watches the other workers of a database and takes back what the dead held.

    Harmless when several run: the statement that takes back rechecks.

    Args:
        store: the database.
        interval: seconds between looks, where no other worker is on this machine.
    """

    def __init__(self, store: Store, interval: float) -> None:
        self._store = store
        self._interval = interval
        self.interval = interval
        """Seconds until the next look: with many workers on a machine, each looks less often."""
        self._seen: dict[str, _Seen] = {}
        self._round_at = store.clock.boottime()

    async def look(self) -> list[TakenBack]:
        """Look once, and take back what dead workers held."""
        watched, gone = await self._store.beside(self._read)
        shared = min(MOST_BETWEEN, self._interval * len(watched))
        self.interval = max(self._interval, shared)
        known = {worker.worker_id for worker, _ in watched}
        self._seen = {name: seen for name, seen in self._seen.items() if name in known}
        late = [
            worker
            for worker, overdue in watched
            if worker not in gone and (self._is_silent(worker) or overdue)
        ]
        on_round = self._store.clock.boottime() >= self._round_at
        if late or on_round:
            await self._store.beside(lambda: self._end_hung(late))
        taken: list[TakenBack] = []
        for worker in gone:
            taken += await self._expire(worker, None)
        for worker in late:
            taken += await self._expire(worker, worker.renewals)
        if on_round:
            await self._tell_of_ended()
            self._round_at = self._store.clock.boottime() + ROUND
        return taken

    def _read(self) -> tuple[list[tuple[WorkerRecord, bool]], list[WorkerRecord]]:
        """Return the workers with whether they are overdue, and those whose process has ended."""
        watched = self._store.read(verbs.watched_workers(platform.node()))
        return watched, self._of_ended([worker for worker, _ in watched])

    def _of_ended(self, workers: list[WorkerRecord]) -> list[WorkerRecord]:
        return [each for each in workers if self._store.engine.alive(each) is False]

    def _end_hung(self, late: list[WorkerRecord]) -> None:
        """Free the rows that a worker which lost its lease, or anybody, may still have locked.

        Its last transaction is younger than its lease: it began after the last renewal. A third of
        a lease is as long as a program waits for an answer.
        """
        seconds = min([HUNG, *(worker.lease / 3 for worker in late)])
        self._store.read(verbs.end_hung_transactions(seconds))

    async def _tell_of_ended(self) -> None:
        """Tell other machines of workers of this one that they took for dead, and that are gone."""
        lingering = verbs.lingering_workers(platform.node())
        for worker in await self._store.beside(lambda: self._of_ended(self._store.read(lingering))):
            await self._store.commit(verbs.mark_ended(worker.worker_id))

    async def _expire(self, worker: WorkerRecord, seen: int | None) -> list[TakenBack]:
        now = self._store.now()
        return await self._store.commit(verbs.expire_worker(worker.worker_id, seen, now))

    def _is_silent(self, worker: WorkerRecord) -> bool:
        now = self._store.clock.boottime()
        seen = self._seen.get(worker.worker_id)
        if seen is None or seen.renewals != worker.renewals:
            self._seen[worker.worker_id] = _Seen(worker.renewals, now)
            return False
        # After a longer gap this process, or the whole machine, was asleep itself.
        seen.unchanged += min(now - seen.at, 2 * self.interval)
        seen.at = now
        return seen.unchanged >= worker.lease
