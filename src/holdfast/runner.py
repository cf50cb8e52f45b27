"""TaskRunner: register functions, submit tasks, run them to the end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from holdfast import errors, operations
from holdfast.context import Context
from holdfast.cron import Cron
from holdfast.driver import Driver, Result, Settings
from holdfast.evidence import Evidence, EvidencePack
from holdfast.forking import fork
from holdfast.handlers import Handler, Handlers, Planner, TaskOptions, policy_named
from holdfast.liveness import LEASE
from holdfast.models import Budget, BudgetRecord, Claimed, ItemPolicy, ItemRecord, RetryPolicy, Task
from holdfast.operations import Resolution
from holdfast.rechecks import Recheck, recheck_claims, workspace_of
from holdfast.reopening import reopen
from holdfast.schedules import Scheduled
from holdfast.states import ApprovalPolicy, TaskStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload
from holdfast.submitting import Submitter, TaskHandle, block_on
from holdfast.sweep import Retention
from holdfast.sync_context import SyncContext
from holdfast.verifiers import EvidenceVerifier
from holdfast.worker import CONCURRENCY, Worker

P = ParamSpec("P")
T = TypeVar("T")


class TaskRunner:
    """Runs agent tasks to the end.

    Args:
        where: `sqlite:///file.db`, `postgresql://user@host/database`, or an open store.
        enable_recovery: False runs the same code with nothing on disk: a crash loses everything.
        worker_id: what this process is called; made up when None.
        concurrency: work items executed here at a time.
        lease: seconds without a renewal after which a live worker loses its leases.
        workspace: root of relative paths in evidence; the working directory when None.
        retention: how long ended tasks and old checkpoints are kept.
    """

    def __init__(
        self,
        where: str | Store = "sqlite:///holdfast.db",
        *,
        enable_recovery: bool = True,
        worker_id: str | None = None,
        concurrency: int = CONCURRENCY,
        lease: float = LEASE,
        workspace: str | None = None,
        retention: Retention | None = None,
    ) -> None:
        place = where if enable_recovery or isinstance(where, Store) else None
        self._driver = Driver(Settings(place, worker_id, concurrency, lease, workspace, retention))

    @property
    def store(self) -> Store:
        """The database, opened when it is first needed.

        Raises:
            StoreOpenError: it can't be opened; the file is as it was.
        """
        return self._driver.store

    @property
    def handlers(self) -> Handlers:
        """The functions registered here."""
        return self._driver.handlers

    @property
    def verifier(self) -> EvidenceVerifier:
        """What checks evidence; verifiers of your own are registered with it."""
        return self._driver.verifier

    def close(self) -> None:
        """Close the database. Nothing is lost by not calling it."""
        self._driver.close()

    def use(self, where: str | Store | None = None, *, lease: float | None = None) -> None:
        """Work with another database, or another lease in seconds, from now on.

        The database in use is closed. A program that is started with settings of its own calls
        this before it runs anything.
        """
        self._driver.use(where, lease)

    # -- registering -----------------------------------------------------------------------------

    @overload
    def task(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> Handler[P, T]: ...
    @overload
    def task(self, function: Callable[Concatenate[SyncContext, P], T], /) -> Handler[P, T]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = ...,
        retry: RetryPolicy | None = ...,
        timeout: float | None = ...,
        max_crashes: int = ...,
        queue: str = ...,
        evidence: Sequence[Evidence] | EvidencePack = ...,
        require_evidence: bool = ...,
    ) -> Register: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        max_crashes: int = 3,
        queue: str = "default",
        evidence: Sequence[Evidence] | EvidencePack = (),
        require_evidence: bool = False,
    ) -> Any:
        """Register a function that executes a task, or items of a plan.

        Its first parameter is the context: `Context` for an async function, `SyncContext` for a
        sync one, which runs in a thread.

        Args:
            function: may run twice; see `Context`.
            name: what the database calls it; the function's own name when None.
            retry: how often a failed attempt is tried again, and when.
            timeout: seconds for one attempt.
            max_crashes: crashes of its process without progress before a person is asked.
            queue: which workers may claim it.
            evidence: what each of its items owes.
            require_evidence: refuse to succeed without any verified evidence.

        Raises:
            UsageError: the name is taken, or the function takes no context.
        """

        def register(decorated: Callable[..., Any]) -> Handler[..., Any]:
            handler = Handler(
                decorated,
                name=name,
                policy=ItemPolicy(retry or RetryPolicy(), timeout, max_crashes),
                queue=queue,
                evidence=evidence,
                require_evidence=require_evidence,
            )
            self.handlers.add(handler)
            return handler

        return register if function is None else register(function)

    handler = task

    def planner(self, handler: Handler[..., Any]) -> Callable[[Planner], Planner]:
        """Register the function that turns a task into a plan.

        It is given the task, or a context and the task, and returns work items; the task's own
        function comes after all of them; `ctx.results` holds what those returned that nothing else
        in the plan comes after. A committed plan is pinned to its task. A crash inside runs the
        planner again; what it did through its context is recorded, as in any handler.
        """

        def register(planner: Planner) -> Planner:
            handler.planner = planner
            return planner

        return register

    def schedule(
        self,
        cron: str,
        *,
        timezone: str = "UTC",
        name: str | None = None,
        queue: str | None = None,
        priority: int = 0,
    ) -> Scheduled:
        """Want a task submitted at certain times: `runner.schedule("0 9 * * *")(report, "tides")`.

        Also a decorator above `@runner.task`, for a function that needs no arguments. The workers
        of this program record it when they start, and submit what is due: each time once, however
        many of them run. Times missed while none ran make one task together. The task's key names
        schedule and time.

        Args:
            cron: five fields, as in Debian's cron: minute, hour, day, month, weekday. Or six,
                seconds first.
            timezone: where that is the time of day; a name of the IANA time zone database.
            name: what the schedule is called; the function's name when None. A schedule of that
                name that is recorded already is replaced.
            queue: which workers may claim its tasks; the function's own when None.
            priority: see `TaskOptions`.

        Raises:
            UsageError: the expression or the time zone can't be read.
        """
        options = TaskOptions(queue=queue, priority=priority)
        return Scheduled(self._driver.schedules, Cron(cron, timezone), name, options)

    def arguments(self, task: Task) -> dict[str, Any]:
        """Return what a task was submitted with, by parameter name; what planners plan from."""
        return cast("dict[str, Any]", decode_payload(self.store, task.task_id, task.input))

    # -- running ---------------------------------------------------------------------------------

    def options(
        self,
        *,
        key: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        workspace: str | None = None,
        require_evidence: bool | None = None,
        budget: Budget | None = None,
        approvals: ApprovalPolicy | str = ApprovalPolicy.AUTONOMOUS,
    ) -> Submitter:
        """Return a submitter with options; see `TaskOptions`."""
        options = TaskOptions(
            key, queue, priority, workspace, require_evidence, budget, policy_named(approvals)
        )
        return Submitter(self._driver, options)

    def submit(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[T]:
        """Record a new task for workers to execute; see `Submitter.submit`."""
        return self.options().submit(handler, *args, **kwargs)

    async def asubmit(
        self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]:
        """Do what `submit` does, without blocking the event loop."""
        return await self.options().asubmit(handler, *args, **kwargs)

    def run(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a task to its end in this process and return its result.

        The function and its arguments name the task: a script killed at any moment can simply be
        started again. An unfinished task is continued; one that succeeded returns its result.

        Raises:
            TaskFailedError: it failed; `holdfast retry` runs what failed again.
            TaskBlockedError: nothing can run until a person acts; `needs` says what.
            TaskCanceledError: it was canceled.
            UsageError: an event loop is running here: use `arun`.
        """
        return self.options().run(handler, *args, **kwargs)

    async def arun(self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what `run` does, inside a running event loop."""
        return await self.options().arun(handler, *args, **kwargs)

    def run_with_recovery(self, task_id: str) -> Result:
        """Run an existing task to its end in this process and return its result; see `run`."""
        return block_on(self.drive(task_id), "run_with_recovery", "drive")

    async def drive(self, task_id: str) -> Result:
        """Do what `run_with_recovery` does, inside a running event loop."""
        return await self._driver.drive(task_id)

    def outcome(self, task: Task) -> Result:
        """Return a settled task's result, or raise how it ended; see `run`."""
        return self._driver.outcome(task)

    def resume(self, task_id: str) -> Result:
        """Run a task to its end; one that succeeded has its evidence checked again first.

        Items whose evidence no longer holds are reopened, with what depends on them.

        Raises:
            EvidenceUnavailableError: this machine doesn't have the workspace to check it.
            TaskFailedError, TaskBlockedError, TaskCanceledError: see `run`.
        """
        return block_on(self.aresume(task_id), "resume", "aresume")

    async def aresume(self, task_id: str) -> Result:
        """Do what `resume` does, inside a running event loop."""
        task = self.store.read(verbs.get_task(task_id))
        if task.status is TaskStatus.SUCCEEDED:
            found = await self.collect_evidence(task_id)
            if found.failed:
                await reopen(self.store, task_id, found.failed_items, found.explain())
            elif found.unavailable:
                message = f"Task {task_id} can't be checked here: {found.explain()}"
                raise errors.EvidenceUnavailableError(message, workspace=task.workspace)
        return await self.drive(task_id)

    def resume_from_checkpoint(
        self, checkpoint_id: str, *, state: object = ..., allow_repeat: bool = False
    ) -> Result:
        """Run on from a checkpoint, in a new task, and return its result; see `fork`."""

        async def resume() -> Result:
            task_id = await self.fork(checkpoint_id, state=state, allow_repeat=allow_repeat)
            return await self.drive(task_id)

        return block_on(resume(), "resume_from_checkpoint", "fork")

    async def fork(
        self,
        checkpoint_id: str,
        *,
        state: object = ...,
        allow_repeat: bool = False,
        budget: Budget | None = None,
    ) -> str:
        """Make a new task that goes on from a checkpoint of another; returns its id.

        It has no budget but the one that is given here, and nothing that was approved for the
        original.

        Raises:
            CheckpointNotFoundError: there is none, or its evidence doesn't hold.
            UsageError: the original made `once` calls after it, which the new task would repeat.
        """
        return await fork(
            self.store, self.verifier, checkpoint_id, state=state, allow_repeat=allow_repeat,
            budget=budget,
        )  # fmt: skip

    async def execute_work_item_with_checkpoint(self, task_id: str, item_id: str) -> ItemRecord:
        """Make one attempt at one work item and return its record.

        Raises:
            LeaseHeldError: it isn't ready, or another worker has it.
            TaskNotFoundError: there is no such item.
        """
        worker = self.new_worker()
        await worker.start(claiming=False)
        try:
            claimed = await self.store.commit(
                verbs.claim_by_name(worker.worker_id or "", task_id, item_id, self.store.now())
            )
            if not isinstance(claimed, Claimed):
                message = f"{task_id}/{item_id} can't be claimed: {claimed}. Nothing was changed."
                raise errors.LeaseHeldError(message, holder=str(claimed))
            await worker.execute(claimed)
        finally:
            await worker.stop()
        return cast("ItemRecord", self.store.read(verbs.get_item(task_id, item_id)))

    async def collect_evidence(self, task_id: str) -> Recheck:
        """Check everything a task claims about the world again, and return what that gave."""
        root = self.store.read(verbs.get_task(task_id)).workspace
        return await recheck_claims(self.store, self.verifier, lambda: workspace_of(root), task_id)

    def new_worker(
        self,
        *,
        root_id: str | None = None,
        queues: tuple[str, ...] = ("default",),
        concurrency: int | None = None,
    ) -> Worker:
        """Return a worker for this runner's handlers, not yet started."""
        roots = None if root_id is None else (root_id,)
        return self._driver.new_worker(roots=roots, queues=queues, concurrency=concurrency)

    # -- what people do to tasks -----------------------------------------------------------------

    def cancel(self, task_id: str) -> list[str]:
        """Cancel a task and everything below it; see `holdfast.operations.cancel`."""
        return block_on(operations.cancel(self.store, task_id), "cancel", "operations.cancel")

    def retry(self, task_id: str) -> int:
        """Make what failed runnable again; see `holdfast.operations.retry`."""
        return block_on(operations.retry(self.store, task_id), "retry", "operations.retry")

    def signal(self, task_id: str, name: str, payload: object = None) -> None:
        """Send a signal to a task; see `holdfast.operations.send_signal`."""
        sent = operations.send_signal(self.store, task_id, name, payload)
        block_on(sent, "signal", "operations.send_signal")

    def resolve(self, entry: str, how: Resolution, value: object = None) -> None:
        """Settle a call in doubt; see `holdfast.operations.resolve`."""
        settled = operations.resolve(self.store, entry, how, value)
        block_on(settled, "resolve", "operations.resolve")

    def approve(self, entry: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Let go on what asks for an approval; see `holdfast.operations.approve`."""
        approved = operations.approve(self.store, entry, by=by, reason=reason)
        block_on(approved, "approve", "operations.approve")

    def reject(self, entry: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Say no to what asks for an approval; see `holdfast.operations.reject`."""
        rejected = operations.reject(self.store, entry, by=by, reason=reason)
        block_on(rejected, "reject", "operations.reject")

    def add_to_budget(self, task_id: str, *, tokens: int = 0, cost: float = 0.0) -> BudgetRecord:
        """Raise a task's budget; see `holdfast.operations.add_to_budget`."""
        added = operations.add_to_budget(self.store, task_id, tokens=tokens, cost=cost)
        return block_on(added, "add_to_budget", "operations.add_to_budget")

    # -- queues ----------------------------------------------------------------------------------

    def limit_queue(
        self,
        name: str,
        *,
        running: int | None = None,
        rate: int | None = None,
        per: float = 1.0,
    ) -> None:
        """Set what a queue allows; see `holdfast.operations.limit_queue`."""
        limited = operations.limit_queue(self.store, name, running=running, rate=rate, per=per)
        block_on(limited, "limit_queue", "operations.limit_queue")


class Register(Protocol):
    """What `runner.task(…)` with options returns: a decorator."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> Handler[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[SyncContext, P], T], /) -> Handler[P, T]: ...
