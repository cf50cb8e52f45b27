"""Verbs about whole tasks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast import errors
from holdfast.models import GENESIS, MAIN, SECONDS_PER_PRIORITY, Budget, Lease, Task, nanos_of
from holdfast.states import ApprovalPolicy, ItemStatus, TaskStatus
from holdfast.store.payload import Payload, keep_blob
from holdfast.store.verb import Refused, Rows, Steps, run, verb
from holdfast.store.verbs.approvals import use_approval_of
from holdfast.store.verbs.shared import (
    Append,
    appended,
    event,
    fence,
    lock_task,
    no_task,
    refresh_task,
    release_free,
    succeed,
    tasks_of,
    to_item,
    to_task,
)


class NewItem(msgspec.Struct, frozen=True):
    """A work item to insert."""

    item_id: str
    handler: str
    input: Payload
    queue: str
    priority: int
    policy: bytes
    max_crashes: int
    owes: bytes | None = None
    after: tuple[str, ...] = ()


class NewTask(msgspec.Struct, frozen=True):
    """A task to insert, with the items it starts with."""

    task_id: str
    name: str
    input: Payload
    items: tuple[NewItem, ...]
    key: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    parent_item: str | None = None
    queue: str = "default"
    priority: int = 0
    workspace: str | None = None
    workspace_id: str | None = None
    require_evidence: bool = False
    forked_from: str | None = None
    budget: Budget | None = None
    approvals: ApprovalPolicy = ApprovalPolicy.AUTONOMOUS


class Submitted(msgspec.Struct, frozen=True):
    """What became of a submission: the task, and whether this call made it."""

    task: Task
    created: bool


@verb(wakes=True, keeps=True)
def create_task(new: NewTask, now: float) -> Steps[Submitted]:
    """Insert a task with its first items, or return the one that has its name and key."""
    return (yield from insert_task(new, now))


def insert_task(new: NewTask, now: float) -> Steps[Submitted]:
    """Insert a task, inside a verb, or find the one that has its name and key."""
    rows: Rows = []
    while not rows:
        # Looked for first: an insert would wait for whoever is changing the task that is there.
        found = yield from _with_its_key(new)
        if found:
            return Submitted(to_task(found[0]), created=False)
        rows = yield from _put(new, now)
    yield from keep_blob(new.task_id, new.input)
    if new.parent_id is None:
        yield from put_budget(new.task_id, new.budget)
    yield from insert_items(new.task_id, new.root_id or new.task_id, new.items, now)
    yield from event(new.task_id, None, "task_submitted", now, name=new.name, key=new.key)
    return Submitted(to_task(rows[0]), created=True)


def _with_its_key(new: NewTask) -> Steps[Rows]:
    if new.key is None:
        return []
    # Under its own id, as it may be looked for beside others: what they insert, the insert finds.
    names = {"task_id": new.task_id, "name": new.name, "key": new.key}
    return (yield from run("task.by_key", **names))


def _put(new: NewTask, now: float) -> Steps[Rows]:
    return (
        yield from run(
            "task.put",
            task_id=new.task_id,
            root_id=new.root_id or new.task_id,
            parent_id=new.parent_id,
            parent_item=new.parent_item,
            name=new.name,
            key=new.key,
            input=new.input.column,
            status=TaskStatus.PLANNING if len(new.items) > 1 else TaskStatus.RUNNING,
            queue=new.queue,
            priority=new.priority,
            workspace=new.workspace,
            workspace_id=new.workspace_id,
            require_evidence=int(new.require_evidence),
            forked_from=new.forked_from,
            budget=encode_budget(new.budget),
            approvals=new.approvals,
            now=now,
        )
    )


def encode_budget(budget: Budget | None) -> bytes | None:
    """Return a budget as its task's row has it."""
    return None if budget is None else msgspec.msgpack.encode(budget)


def put_budget(root_id: str, budget: Budget | None) -> Steps[None]:
    """Give a root task its budget, where it is to have one, inside a verb."""
    if budget is not None:
        yield from run(
            "budget.put",
            task_id=root_id,
            token_limit=budget.tokens,
            nano_limit=None if budget.cost is None else nanos_of(budget.cost),
        )


def insert_items(task_id: str, root_id: str, items: Sequence[NewItem], now: float) -> Steps[None]:
    """Insert work items and their edges; those that wait for nothing are ready."""
    for position, item in enumerate(items):
        yield from keep_blob(task_id, item.input)
        yield from run(
            "item.put",
            task_id=task_id,
            item_id=item.item_id,
            root_id=root_id,
            position=position,
            handler=item.handler,
            input=item.input.column,
            status=ItemStatus.PENDING if item.after else ItemStatus.READY,
            queue=item.queue,
            priority=item.priority,
            claim_order=now - item.priority * SECONDS_PER_PRIORITY,
            remaining=len(set(item.after)),
            policy=item.policy,
            max_crashes=item.max_crashes,
            owes=item.owes,
            chain_head=GENESIS,
            now=now,
        )
        for after in item.after:
            yield from run("edge.put", task_id=task_id, item_id=item.item_id, after_id=after)


@verb(wakes=True, witness=appended)
def commit_plan(  # noqa: PLR0917  the facts of one plan
    lease: Lease,
    append: Append,
    items: Sequence[NewItem],
    main_after: Sequence[str],
    now: float,
    approval: int | None = None,
) -> Steps[Refused | None]:
    """Pin a plan to its task: insert its items, put them before `main`, finish planning.

    One transaction: a crash leaves either no plan or the whole of it. When the task was canceled
    meanwhile, the planner's item is canceled, and nothing is planned. `approval` is the entry that
    asked for this plan to be approved, where that was needed; it is used up.

    Raises:
        JournalError: the plan isn't approved (any more); nothing was recorded.
    """
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "commit_plan", now)
    if refused:
        return refused
    task = yield from _require(lease.task_id)
    planner = yield from run("item.get", task_id=lease.task_id, item_id=lease.item_id)
    if to_item(planner[0]).cancel:
        yield from run("item.end_canceled", task_id=lease.task_id, item_id=lease.item_id, now=now)
        yield from event(lease.task_id, lease.item_id, "item_canceled", now)
        yield from refresh_task(lease.task_id, now)
        return None
    yield from use_approval_of(lease, approval)
    yield from insert_items(task.task_id, task.root_id, items, now)
    for after in main_after:
        yield from run("edge.put", task_id=task.task_id, item_id=MAIN, after_id=after)
    yield from run("item.recount_main", task_id=task.task_id, position=len(items) + 1, now=now)
    yield from run("item.end_planning", task_id=lease.task_id, item_id=lease.item_id, now=now)
    yield from event(task.task_id, None, "planned", now, items=len(items))
    yield from refresh_task(task.task_id, now)
    return None


@verb()
def get_task(task_id: str) -> Steps[Task]:
    """Return a task.

    Raises:
        TaskNotFoundError: there is none.
    """
    return (yield from _require(task_id))


def _require(task_id: str) -> Steps[Task]:
    rows = yield from run("task.get", task_id=task_id)
    if not rows:
        raise no_task(task_id)
    return to_task(rows[0])


@verb()
def find_tasks(prefix: str) -> Steps[list[str]]:
    """Return the ids of up to ten tasks whose id starts or ends with the given characters."""
    rows = yield from run("task.find", prefix=prefix)
    return [row[0] for row in rows]


@verb()
def list_tasks(status: str | None, limit: int) -> Steps[list[Task]]:
    """Return the newest tasks, those of one status if asked."""
    rows = yield from run("task.list", status=status, limit=limit)
    return [to_task(row) for row in rows]


@verb()
def statuses_of(task_ids: Sequence[str]) -> Steps[dict[str, TaskStatus]]:
    """Return the statuses of tasks by their ids; without those that aren't there."""
    rows = yield from run("task.statuses", tasks=msgspec.json.encode(task_ids).decode())
    return {task_id: TaskStatus(status) for task_id, status in rows}


@verb()
def get_tasks(task_ids: Sequence[str]) -> Steps[dict[str, Task]]:
    """Return tasks by their ids; without those that aren't there."""
    return (yield from tasks_of(task_ids))


@verb()
def tasks_after(task_id: str, limit: int) -> Steps[list[str]]:
    """Return the ids of tasks, oldest first, from behind one; an empty one is before them all."""
    rows = yield from run("task.after", task_id=task_id, limit=limit)
    return [row[0] for row in rows]


@verb()
def task_of_key(name: str, key: str) -> Steps[Task | None]:
    """Return the task that a key names among those of one name."""
    rows = yield from run("task.by_key", name=name, key=key)
    return to_task(rows[0]) if rows else None


@verb()
def list_children(task_id: str) -> Steps[list[Task]]:
    """Return the child tasks of a task."""
    rows = yield from run("task.children", task_id=task_id)
    return [to_task(row) for row in rows]


@verb(wakes=True)
def cancel_task(task_id: str, reason: str, now: float) -> Steps[list[str]]:
    """Cancel a task and everything below it; returns the tasks that were still going.

    What isn't running is canceled at once. What runs is told to stop, and its `finally` blocks
    run; the task is canceled when the last of it has ended.
    """
    yield from _require(task_id)
    return (yield from cancel_open(task_id, reason, now))


def cancel_open(task_id: str, reason: str, now: float) -> Steps[list[str]]:
    """Cancel a task and everything below it, inside a verb."""
    touched = [row[0] for row in (yield from run("task.descendants_open", task_id=task_id))]
    for each in reversed(touched):
        yield from lock_task(each)
        yield from run("item.cancel_idle", task_id=each, reason=reason, now=now)
        yield from run("item.cancel_running", task_id=each)
        yield from event(each, None, "cancel_requested", now, reason=reason)
        yield from refresh_task(each, now)
    return touched


@verb(wakes=True)
def retry_task(task_id: str, now: float) -> Steps[int]:
    """Make what failed, was skipped or quarantined runnable again; returns how many items.

    What succeeded stays as it is, and recorded outputs answer as before.
    """
    yield from lock_task(task_id)
    task = yield from _require(task_id)
    if task.status in {TaskStatus.SUCCEEDED, TaskStatus.CANCELED}:
        message = f"Task {task_id} is {task.status}; there is nothing to retry. Submit a new task."
        raise errors.UsageError(message, task_id=task_id)
    revived = yield from run("item.revive_failed", task_id=task_id)
    if revived:
        yield from run("item.revive_skipped", task_id=task_id)
        yield from release_free(task_id, now)
        yield from event(task_id, None, "task_retried", now, items=len(revived))
        yield from run("task.reopen", task_id=task_id, now=now)
        yield from refresh_task(task_id, now)
    return len(revived)


@verb(wakes=True, keeps=True)
def finish_task(task_id: str, worker_id: str, now: float) -> Steps[bool]:
    """Call a task succeeded after everything was verified.

    Returns False, and changes nothing, when an item was taken back meanwhile, or when this worker
    isn't the one that is to verify the whole (any more).
    """
    yield from lock_task(task_id)
    if not (yield from run("task.may_finish", task_id=task_id, worker_id=worker_id)):
        return False
    yield from succeed(task_id, now)
    return True


@verb()
def adopt_verification(worker_id: str, now: float) -> Steps[list[str]]:
    """Take over the last check of tasks whose checker is gone; returns those tasks."""
    rows = yield from run("task.adopt_verification", worker_id=worker_id, now=now)
    return [row[0] for row in rows]


@verb()
def tasks_to_verify(worker_id: str, roots: Sequence[str] | None) -> Steps[list[tuple[str, bool]]]:
    """Return tasks whose items have all succeeded, and whether this worker is to verify them.

    Others are named only when their checker is gone, and they are among `roots` or below them.
    """
    served = None if roots is None else msgspec.json.encode(roots).decode()
    rows = yield from run("task.to_verify", worker_id=worker_id, roots=served)
    return [(row[0], bool(row[1])) for row in rows]
