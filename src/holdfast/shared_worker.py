"""A shared worker: one for all the tasks that an event loop drives at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from holdfast.worker import Worker


class SharedWorker:
    """Lends a worker to whoever drives a task.

    A worker has a row, a heartbeat and loops of its own, whatever it does; a hundred tasks that are
    driven at once need them once. It starts for the first of them and stops with the last.

    Args:
        new_worker: makes one that serves no task yet.
    """

    def __init__(self, new_worker: Callable[[], Worker]) -> None:
        self._new_worker = new_worker
        self._at_work: dict[asyncio.AbstractEventLoop, _AtWork] = {}

    @asynccontextmanager
    async def serving(self, root_id: str) -> AsyncGenerator[Worker]:
        """Have a task and what is below it executed while the block is running.

        What runs of it at the end is stopped and handed back.

        Raises:
            StoreError: the worker can't start.
        """
        loop = asyncio.get_running_loop()
        here = self._at_work.get(loop)
        if here is None:
            here = self._at_work[loop] = _AtWork(self._new_worker())
        here.serve(root_id)
        try:
            await asyncio.shield(here.started)
            yield here.worker
        finally:
            if here.leave(root_id):
                if here.served:
                    await here.worker.leave(root_id)
                else:
                    self._at_work.pop(loop, None)
                    await here.stop()


class _AtWork:
    """A worker and what it serves."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.served: Counter[str] = Counter()
        self.started = asyncio.ensure_future(worker.start())

    def serve(self, root_id: str) -> None:
        self.served[root_id] += 1
        self.worker.serve(root_id)

    def leave(self, root_id: str) -> bool:
        """Count one less who wants a task served; say whether nobody does any more."""
        self.served[root_id] -= 1
        if self.served[root_id]:
            return False
        del self.served[root_id]
        return True

    async def stop(self) -> None:
        await asyncio.wait((self.started,))
        if not self.started.cancelled() and self.started.exception() is None:
            await self.worker.stop()
