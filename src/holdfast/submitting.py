"""Submitting tasks with options, and following what was submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec

from holdfast import codec, errors
from holdfast.driver import Driver
from holdfast.handlers import Handler, TaskOptions
from holdfast.models import Task
from holdfast.states import TaskStatus
from holdfast.store import Pending, verbs
from holdfast.store.committer import running_loop
from holdfast.store.verbs import Submitted

P = ParamSpec("P")
T = TypeVar("T")


class TaskHandle(Generic[T]):
    """A submitted task. `task_id` names it for the command line and for other programs."""

    def __init__(self, driver: Driver, task_id: str) -> None:
        self._driver = driver
        self.task_id = task_id

    def __repr__(self) -> str:
        """Name the task."""
        return f"<task {self.task_id}>"

    @property
    def task(self) -> Task:
        """The task as it is recorded now."""
        return self._driver.store.read(verbs.get_task(self.task_id))

    @property
    def status(self) -> TaskStatus:
        """Where the task stands now."""
        return self.task.status

    def run(self) -> T:
        """Execute the task here until it ends, and return its result; see `TaskRunner.run`."""
        return cast("T", block_on(self._driver.drive(self.task_id), "run", "arun"))

    async def arun(self) -> T:
        """Do what `run` does, inside a running event loop."""
        return cast("T", await self._driver.drive(self.task_id))

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109  a plain setting
        """Wait for workers elsewhere to end the task, and return its result.

        Raises:
            TimeoutError: it didn't end within `timeout` seconds.
            TaskFailedError, TaskCanceledError, TaskBlockedError: how it ended.
        """
        async with asyncio.timeout(timeout):
            task = await self._driver.settled(self.task_id)
        return cast("T", self._driver.outcome(task))


class Submitter:
    """Submits and runs tasks with options; see `TaskRunner.options`."""

    def __init__(self, driver: Driver, options: TaskOptions) -> None:
        self._driver = driver
        self._options = options

    def submit(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[T]:
        """Record a task for workers to execute; durable when this returns.

        A new one each time, unless `options(key=…)` names it: then the same key is the same task.

        Raises:
            UnknownHandlerError, ArgumentsError, EncodingError: refused; nothing was recorded.
        """
        submitted = self._submission(handler, args, kwargs).wait()
        return TaskHandle(self._driver, submitted.task.task_id)

    async def asubmit(
        self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]:
        """Do what `submit` does, without blocking the event loop."""
        submitted = await self._submission(handler, args, kwargs)
        return TaskHandle(self._driver, submitted.task.task_id)

    def run(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a task to its end and return its result; see `TaskRunner.run`."""
        return block_on(self.arun(handler, *args, **kwargs), "run", "arun")

    async def arun(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a task to its end and return its result; see `TaskRunner.run`."""
        return await (await self.aensure(handler, *args, **kwargs)).arun()

    async def aensure(
        self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]:
        """Record the task that `run` executes, unless it is there, and execute nothing yet."""
        found = self._driver.handlers.get(handler)
        arguments = found.bind(args, kwargs)
        options = self._options
        if options.key is None:
            key = "run:" + codec.digest(arguments).hex()
            options = msgspec.structs.replace(options, key=key)
        submitted = await self._driver.submit(found, arguments, options)
        return TaskHandle(self._driver, submitted.task.task_id)

    def _submission(
        self, handler: Handler[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Pending[Submitted]:
        found = self._driver.handlers.get(handler)
        return self._driver.submit(found, found.bind(args, kwargs), self._options)


def block_on(call: Coroutine[Any, Any, T], name: str, other: str) -> T:
    """Run a coroutine to its end, from code that isn't async.

    Raises:
        UsageError: an event loop is running in this thread.
    """
    if running_loop() is None:
        return asyncio.run(call)
    call.close()
    message = f"{name} would block the running event loop; nothing was done. Use `await {other}`."
    raise errors.UsageError(message)
