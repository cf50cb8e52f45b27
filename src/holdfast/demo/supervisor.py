"""The supervisor: starts workers, kills them at random moments, starts others, and watches."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from holdfast import errors, operations
from holdfast.clock import SystemClock
from holdfast.demo.account import Kill
from holdfast.demo.processes import WorkerProcess
from holdfast.models import MAIN, PLAN
from holdfast.states import FINAL_TASK, ItemStatus, TaskStatus
from holdfast.store import Store, verbs

LOOK = 0.02
"""Seconds between two looks at the job."""

LONGEST_PAUSE = 0.4
"""Seconds, at most, between a kill falling due and the kill: it may hit anything an item does."""

ITEM = 0.15
"""Seconds that go by, roughly, between the ends of two items: many kills need short pauses."""

LAST = 0.9
"""Part of the items after which no kill falls due any more, so that all find somebody to hit."""

PATIENCE = 120.0
"""Seconds without any progress after which the run is given up."""

ACCIDENTS = 5
"""Workers that may end without having been killed before the run is given up."""


class Progress(msgspec.Struct, frozen=True):
    """Where the job stands."""

    status: TaskStatus
    done: int
    running: tuple[str, ...]
    in_doubt: int


class Strike(msgspec.Struct, frozen=True):
    """A kill to come: when so many items are done, after a pause, this worker."""

    after: int
    pause: float
    victim: int


def plan_strikes(kills: int, modules: int, workers: int, seed: int) -> deque[Strike]:
    """Spread kills over the job: by progress, so that a slow machine gets them in as well."""
    rng = random.Random(seed)  # noqa: S311  chooses victims; nothing secret
    longest = min(LONGEST_PAUSE, ITEM * modules / max(kills, 1))
    return deque(
        Strike(
            int((i + rng.random()) / kills * modules * LAST),
            rng.random() * longest,
            rng.randrange(workers),
        )
        for i in range(kills)
    )


class Supervisor:
    """Has one task executed by workers that it keeps killing.

    Args:
        store: the database, to watch the task.
        task_id: the task.
        directory: of the job.
        workers: how many processes at a time.
        strikes: the kills to come.
        tell: told of everything that happens, and of the progress.
    """

    def __init__(
        self,
        store: Store,
        task_id: str,
        directory: Path,
        *,
        workers: int,
        strikes: deque[Strike],
        tell: Callable[[Progress, str], None],
    ) -> None:
        self._store = store
        self._task_id = task_id
        self._clock = SystemClock()
        self._workers = [WorkerProcess(n + 1, directory) for n in range(workers)]
        self._strikes = strikes
        self._tell = tell
        self._started = self._moved = self._clock.boottime()
        self._due: float | None = None
        self._seen: Progress | None = None
        self.kills: list[Kill] = []
        self.accidents: list[str] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock.boottime() - self._started

    def needs(self) -> list[str]:
        """Return what the task waits for a person to do."""
        return operations.needs_of(self._store, self._task_id)

    def run(self) -> Progress:
        """Run until the task has ended or can't go on. No process is left when this returns."""
        with self._running_workers():
            while True:
                progress = self._look()
                if progress.status in FINAL_TASK or self._is_stuck(progress):
                    return progress
                self._replace_the_fallen(progress)
                self._strike(progress)
                time.sleep(LOOK)

    @contextmanager
    def _running_workers(self) -> Generator[None]:
        try:
            for worker in self._workers:
                worker.start()
            yield
            for worker in self._workers:
                worker.tell_to_stop()
            for worker in self._workers:
                worker.wait()
        finally:
            for worker in self._workers:
                worker.kill()

    def _look(self) -> Progress:
        try:
            items = self._store.read(verbs.list_items(self._task_id))
            status = self._store.read(verbs.get_task(self._task_id)).status
        except errors.StoreUnavailableError:
            if self._seen is None:
                raise
            return self._seen
        work = [item for item in items if item.item_id not in {MAIN, PLAN}]
        progress = Progress(
            status,
            sum(item.status is ItemStatus.SUCCEEDED for item in work),
            tuple(item.item_id for item in items if item.status is ItemStatus.RUNNING),
            sum(item.status is ItemStatus.IN_DOUBT for item in work),
        )
        if progress != self._seen:
            self._moved = self._clock.boottime()
            self._tell(progress, "")
        self._seen = progress
        return progress

    def _is_stuck(self, progress: Progress) -> bool:
        if progress.status is TaskStatus.BLOCKED:
            return not progress.running
        if len(self.accidents) > ACCIDENTS:
            return True
        if self._clock.boottime() - self._moved < PATIENCE:
            return False
        self.accidents.append(f"nothing happened for {PATIENCE:g} s")
        return True

    def _replace_the_fallen(self, progress: Progress) -> None:
        for worker in self._workers:
            code = worker.ended()
            if code is not None:
                accident = f"worker {worker.worker_id} ended by itself, with {code}; see its log"
                self.accidents.append(accident)
                self._tell(progress, accident)
                worker.kill()
                worker.start()

    def _strike(self, progress: Progress) -> None:
        """Kill the next victim when its moment has come, and start another worker."""
        if not self._strikes or progress.done < self._strikes[0].after:
            return
        now = self._clock.boottime()
        if self._due is None:
            self._due = now + self._strikes[0].pause
        overtaken = progress.done > self._strikes[0].after  # by items that ended in the pause
        if now < self._due and not overtaken:
            return
        victim = self._workers[self._strikes.popleft().victim]
        self._due = None
        items = tuple(
            lease.item_id for lease in self._store.read(verbs.held_leases(victim.worker_id))
        )
        kill = Kill(round(self.elapsed, 2), victim.worker_id, victim.pid, items)
        victim.kill()
        self.kills.append(kill)
        doing = f"while it audited {', '.join(items)}" if items else "while it had nothing to do"
        self._tell(progress, f"kill {len(self.kills)}: worker {kill.worker}, {doing}")
        victim.start()
