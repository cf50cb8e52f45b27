"""RecoverySweep: takes over from the dead, and removes what retention no longer needs.

It runs in every worker; several at once are harmless, because each statement rechecks what it
decides on.
"""

from __future__ import annotations

import asyncio

import msgspec

from holdfast.liveness import Observer
from holdfast.loops import Loop
from holdfast.store import Store, verbs
from holdfast.store.verbs import TakenBack

INTERVAL = 0.2
"""Seconds between looks for dead workers, more where others look too: see `Observer`. A kill is
noticed within half a second."""

DAY = 86_400.0


class Retention(msgspec.Struct, frozen=True):
    """How long things are kept, in seconds.

    Args:
        tasks: an ended root task, with all below it, after its end. None keeps them.
        checkpoints: how many checkpoints of an unfinished item whose handler restores; the newest
            that may be resumed from is kept in any case.
        workers: the record of a worker that is gone.
        interval: between two rounds of pruning.
        batch: tasks pruned in one round.
    """

    tasks: float | None = 30 * DAY
    checkpoints: int = 10
    workers: float = DAY
    interval: float = 60.0
    batch: int = 100


class Pruned(msgspec.Struct, frozen=True):
    """How much a round of pruning removed."""

    tasks: int = 0
    entries: int = 0
    cached: int = 0
    workers: int = 0


class RecoverySweep(Loop):
    """Takes back the leases of dead workers and prunes.

    Args:
        store: the database.
        retention: how long things are kept.
        interval: seconds between looks for the dead.
    """

    def __init__(
        self, store: Store, retention: Retention | None = None, interval: float = INTERVAL
    ) -> None:
        super().__init__(interval)
        self._store = store
        self._observer = Observer(store, interval)
        self._retention = retention or Retention()
        self._prune_at = store.clock.boottime() + self._retention.interval

    async def tick(self) -> None:
        """Look for the dead; prune when it is time."""
        await self.scan_and_recover()
        if self._store.clock.boottime() >= self._prune_at:
            self._prune_at = self._store.clock.boottime() + self._retention.interval
            await prune(self._store, self._retention)

    async def scan_and_recover(self) -> list[TakenBack]:
        """Look once, and return what was taken back.

        A worker whose process ended is found at once; one that hangs, after it was seen not to
        renew for a whole lease.
        """
        taken = await self._observer.look()
        self.interval = self._observer.interval
        return taken


async def prune(store: Store, retention: Retention) -> Pruned:
    """Remove what retention no longer needs; a crash in between leaves the rest for next time."""
    now = store.now()
    tasks = entries = 0
    if retention.tasks is not None:
        ended = verbs.prunable_tasks(now - retention.tasks, retention.batch)
        for task_id in await store.beside(lambda: store.read(ended)):
            tasks += await store.commit(verbs.prune_task(task_id))
            await asyncio.sleep(0)
    unfinished = verbs.prunable_items(retention.batch)
    for task_id, item_id in await store.beside(lambda: store.read(unfinished)):
        entries += await store.commit(verbs.prune_journal(task_id, item_id, retention.checkpoints))
    cached = await store.commit(verbs.prune_cache(now, now - DAY))
    workers = await store.commit(verbs.prune_workers(now - retention.workers))
    return Pruned(tasks, entries, cached, workers)
