"""Statuses: what became of tasks, looked up together for all in this process who wait for one."""

from __future__ import annotations

import asyncio
import threading

from holdfast.states import TaskStatus
from holdfast.store import Store, verbs


class _Asked(threading.local):
    """What this thread's event loop is about to look up, and who waits for it."""

    answer: asyncio.Future[dict[str, TaskStatus]] | None = None
    tasks: frozenset[str] = frozenset()
    looking: asyncio.Task[None] | None = None


class Statuses:
    """The statuses of tasks. Whoever asks in the same turn of a loop shares one look.

    A hundred who wait for a task each are woken by whatever happens to any of them.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked = _Asked()

    async def of(self, task_id: str) -> TaskStatus | None:
        """Return the status of a task as it is now; None when there is no such task."""
        asked, loop = self._asked, asyncio.get_running_loop()
        if asked.answer is None or asked.answer.get_loop() is not loop:
            asked.answer, asked.tasks = loop.create_future(), frozenset()
            loop.call_soon(self._look)
        asked.tasks |= {task_id}
        return (await asyncio.shield(asked.answer)).get(task_id)

    def _look(self) -> None:
        asked, answer = self._asked, self._asked.answer
        asked.answer = None
        if answer is not None and not answer.done():
            asked.looking = asyncio.ensure_future(self._tell(answer, sorted(asked.tasks)))

    async def _tell(
        self, answer: asyncio.Future[dict[str, TaskStatus]], task_ids: list[str]
    ) -> None:
        store = self._store
        try:
            found = await store.beside(lambda: store.read(verbs.statuses_of(task_ids)))
        except Exception as error:  # noqa: BLE001  it is the answer to all who asked
            answer.set_exception(error)
        else:
            answer.set_result(found)
