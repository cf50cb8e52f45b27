"""Driver: brings tasks to their end in this process, on one database."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from holdfast import errors
from holdfast.changes import Changes
from holdfast.endings import failed_error
from holdfast.handlers import Handler, Handlers, TaskOptions, new_task
from holdfast.invocation import inside_handler
from holdfast.liveness import LEASE
from holdfast.models import Task
from holdfast.needs import find_needs
from holdfast.schedules import Schedules
from holdfast.shared_look import SharedLook
from holdfast.shared_worker import SharedWorker
from holdfast.states import FINAL_TASK, ItemStatus, TaskStatus
from holdfast.store import DEADLINE, Pending, Store, open_store, verbs
from holdfast.store.payload import decode_payload
from holdfast.store.verbs import Submitted
from holdfast.store.verbs.shared import no_task
from holdfast.sweep import Retention
from holdfast.verifiers import EvidenceVerifier
from holdfast.worker import CONCURRENCY, Worker

POLL = 0.05
"""Seconds between looks at a task that is blocked while something of its root still runs here."""

STRANDED = 5.0
"""Seconds after which it is said that a task waits for a handler this program doesn't have."""

log = logging.getLogger("holdfast")

Result: TypeAlias = Any
"""What a task's function returned: its type can't be told from the task's id."""


class Settings(msgspec.Struct, frozen=True):
    """How a driver works; see `TaskRunner`."""

    where: str | Store | None
    worker_id: str | None = None
    concurrency: int = CONCURRENCY
    lease: float = LEASE
    workspace: str | None = None
    retention: Retention | None = None


class _Looks:
    """What those who wait for tasks of one database look at, together."""

    def __init__(self, store: Store) -> None:
        self.statuses = SharedLook(store, verbs.statuses_of)
        self.tasks = SharedLook(store, verbs.get_tasks)
        self.changes = Changes(store)


class Driver:
    """Submits tasks, executes them, and says what came of them.

    Args:
        settings: how.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.handlers = Handlers()
        self.schedules = Schedules(self.handlers, settings.workspace)
        self.verifier = EvidenceVerifier()
        self._opening = threading.Lock()
        self._store: Store | None = None
        self._looks: _Looks | None = None
        self._worker = self._new_shared_worker()

    @property
    def store(self) -> Store:
        """The database, opened when it is first needed.

        Raises:
            StoreOpenError: it can't be opened; the file is as it was.
        """
        if self._store is None:
            with self._opening:  # several threads may be the first to need it
                if self._store is None:
                    deadline = min(DEADLINE, self.settings.lease / 3)
                    self._store = open_store(self.settings.where, deadline=deadline)
                    self._looks = _Looks(self._store)
        return self._store

    def close(self) -> None:
        """Close the database, unless it was given open. It is opened again when needed."""
        if self._store is not None and self._store is not self.settings.where:
            self._store.close()
        self._store = self._looks = None

    def use(self, where: str | Store | None, lease: float | None) -> None:
        """Work with another database or lease from now on; what is None stays."""
        self.close()
        given = self.settings
        self.settings = msgspec.structs.replace(
            given, where=where or given.where, lease=lease or given.lease
        )

    def submit(
        self, handler: Handler[..., Any], arguments: dict[str, Any], options: TaskOptions
    ) -> Pending[Submitted]:
        """Return the write that records a task, not yet under way.

        Raises:
            EncodingError, PayloadTooLargeError: an argument can't be kept; nothing was recorded.
        """
        now = self.store.now()
        workspace = options.workspace or self.settings.workspace
        options = msgspec.structs.replace(options, workspace=workspace)
        new = new_task(handler, arguments, options, now)
        return self.store.commit(verbs.create_task(new, now))

    def new_worker(
        self,
        *,
        roots: Iterable[str] | None = None,
        queues: tuple[str, ...] = ("default",),
        concurrency: int | None = None,
    ) -> Worker:
        """Return a worker for the registered handlers, not yet started."""
        given = self.settings
        return Worker(
            self.store,
            self.handlers,
            concurrency=concurrency or given.concurrency,
            queues=queues,
            roots=roots,
            lease=given.lease,
            verifier=self.verifier,
            retention=given.retention,
            worker_id=given.worker_id,
            schedules=self.schedules,
        )

    # -- executing -------------------------------------------------------------------------------

    async def drive(self, task_id: str) -> Result:
        """Execute a task here until it ends or is blocked, and return its result.

        Raises:
            TaskFailedError, TaskBlockedError, TaskCanceledError: how it ended.
            TaskNotFoundError: there is none.
        """
        task = await self._look_up(task_id)
        if task.status not in FINAL_TASK:
            # A handler's own call may wait for a worker that waits for the handler.
            shared = self._new_shared_worker() if inside_handler.get() else self._worker
            async with shared.serving(task.root_id) as worker:
                task = await self._until_settled(task, worker)
        return self.outcome(task)

    def _new_shared_worker(self) -> SharedWorker:
        return SharedWorker(lambda: self.new_worker(roots=()))

    async def _until_settled(self, task: Task, worker: Worker) -> Task:
        loop = asyncio.get_running_loop()
        stranded = loop.call_later(STRANDED, self._tell_what_strands, task.task_id)
        try:
            return await self.settled(task.task_id, worker, task.root_id)
        finally:
            stranded.cancel()

    async def settled(self, task_id: str, worker: Worker | None = None, root_id: str = "") -> Task:
        """Wait until a task has ended, or is blocked while `worker` runs nothing of its root.

        See `Changes` for how soon it hears of that.

        Raises:
            StoreCorruptError: the worker found the database damaged.
        """
        looks = self._shared_looks
        while True:
            change = looks.changes.next()
            status = await looks.statuses.of(task_id)
            ended = status is None or status in FINAL_TASK
            if not ended and worker is not None and worker.damage is not None:
                raise worker.damage
            blocked = status is TaskStatus.BLOCKED
            if ended or (blocked and not (worker and worker.runs(root_id))):
                task = await self._look_up(task_id)
                if task.status is status:
                    return task
                continue  # it was taken up again
            await asyncio.wait((change,), timeout=POLL if blocked else None)

    async def _look_up(self, task_id: str) -> Task:
        task = await self._shared_looks.tasks.of(task_id)
        if task is None:
            raise no_task(task_id)
        return task

    @property
    def _shared_looks(self) -> _Looks:
        store = self.store
        return self._looks or _Looks(store)

    def _tell_what_strands(self, task_id: str) -> None:
        known = self.handlers.names
        for item in self.store.read(verbs.list_items(task_id)):
            if item.status is ItemStatus.READY and item.handler not in known:
                log.warning(
                    "%s/%s waits for a program that has a handler named %r; this one hasn't.",
                    task_id, item.item_id, item.handler,
                )  # fmt: skip

    # -- what came of it -------------------------------------------------------------------------

    def outcome(self, task: Task) -> Result:
        """Return a settled task's result, or raise how it ended.

        Raises:
            TaskFailedError, TaskBlockedError, TaskCanceledError: how it ended.
        """
        task_id, name = task.task_id, task.name
        match task.status:
            case TaskStatus.SUCCEEDED:
                found = task.result
                return None if found is None else decode_payload(self.store, task_id, found)
            case TaskStatus.FAILED:
                error = (task.error or "no reason was recorded").rstrip(".")
                message = (
                    f"Task {task_id} ({name}) failed: {error}. What it recorded is safe; "
                    f"`holdfast retry {task_id}` runs what failed again."
                )
                raise failed_error(self.store, task, message)
            case TaskStatus.CANCELED:
                message = f"Task {task_id} ({name}) was canceled."
                raise errors.TaskCanceledError(message, task_id=task_id)
            case _:
                found = find_needs(self.store, task_id)
                needs = [need.text for need in found]
                listed = "\n".join(f"  {need}" for need in needs)
                message = (
                    f"Task {task_id} ({name}) waits for a person; nothing was repeated. It "
                    f"needs:\n{listed}"
                )
                entries = [need.entry for need in found if need.entry is not None]
                raise errors.TaskBlockedError(
                    message, task_id=task_id, needs=needs, entries=entries
                )
