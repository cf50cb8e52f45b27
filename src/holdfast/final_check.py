"""The last check of everything, before a task is called succeeded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from holdfast import errors
from holdfast.rechecks import recheck_claims, workspace_of
from holdfast.reopening import reopen
from holdfast.store import Store, verbs
from holdfast.verifiers import EvidenceVerifier

PAUSE = 5.0
"""Seconds before the last check of a task is tried again that this machine couldn't make."""

log = logging.getLogger("holdfast")


class FinalChecks:
    """Verifies, on behalf of one worker, tasks whose items have all succeeded.

    One worker is named for each such task; when it is gone, another takes the check over. A crash
    at any point leaves the task to be checked again.

    Args:
        store: the database.
        verifier: what checks evidence.
        on_end: called when a check has ended.
    """

    def __init__(
        self,
        store: Store,
        verifier: EvidenceVerifier,
        on_end: Callable[[], None],
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._on_end = on_end
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """Whether any check is under way."""
        return bool(self._running)

    async def start(self, worker_id: str, roots: Sequence[str] | None) -> None:
        """Start the checks that fall to this worker.

        Args:
            worker_id: who it is.
            roots: the tasks to take over checks of, and of what is below them; None for all.
        """
        asked = verbs.tasks_to_verify(worker_id, roots)
        waiting = await self._store.beside(lambda: self._store.read(asked))
        if not all(mine for _, mine in waiting):
            await self._store.commit(verbs.adopt_verification(worker_id, self._store.now()))
        for task_id, _ in waiting:
            if task_id not in self._running:
                checking = asyncio.ensure_future(self._check(task_id, worker_id))
                self._running[task_id] = checking
                checking.add_done_callback(lambda _, task_id=task_id: self._ended(task_id))

    async def stop(self) -> None:
        """Give up what is under way; whoever sees that this worker is gone starts again."""
        running = tuple(self._running.values())
        for checking in running:
            checking.cancel()
        if running:
            await asyncio.wait(running)

    def _ended(self, task_id: str) -> None:
        self._running.pop(task_id).cancelled()
        self._on_end()

    async def _check(self, task_id: str, worker_id: str) -> None:
        try:
            await self._decide(task_id, worker_id)
        except errors.StoreError as failure:
            log.warning("The last check of task %s waits: %s", task_id, failure)
            await asyncio.sleep(PAUSE)
        except Exception:  # whatever it was, it is tried again, and not at once
            log.exception("The last check of task %s broke", task_id)
            await asyncio.sleep(PAUSE)

    async def _decide(self, task_id: str, worker_id: str) -> None:
        root = self._store.read(verbs.get_task(task_id)).workspace
        found = await recheck_claims(
            self._store, self._verifier, lambda: workspace_of(root), task_id
        )
        if found.failed:
            await reopen(self._store, task_id, found.failed_items, found.explain())
        elif found.unavailable:
            log.warning("Task %s waits for its workspace: %s", task_id, found.explain())
            await asyncio.sleep(PAUSE)
        else:
            now = self._store.now()
            await self._store.commit(verbs.finish_task(task_id, worker_id, now))
