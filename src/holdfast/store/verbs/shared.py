"""Steps that several verbs share: the fence, the timeline, what a task's status follows from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from holdfast import errors
from holdfast.ids import new_id
from holdfast.models import PLAN, Entry, ItemRecord, Lease, Task
from holdfast.states import FINAL_TASK, ItemStatus, TaskStatus
from holdfast.store.payload import Payload, encode_payload, keep_blob
from holdfast.store.verb import Question, Refused, Rows, Statement, Steps, run

_NOTHING = encode_payload(None).column
"""The result of a task whose function returned nothing, or never ran."""


class Append(msgspec.Struct, frozen=True):
    """Entries to add to an item's journal. Their `seq` and `chain` are already right.

    `request` and `outcome` of an entry are columns; `blobs` are what they refer to.
    """

    before: int
    entries: tuple[Entry, ...] = ()
    blobs: tuple[Payload, ...] = ()
    head: bytes = b""

    @property
    def after(self) -> int:
        """The sequence number the item has afterwards."""
        return self.entries[-1].seq if self.entries else self.before


def to_item(row: Sequence[object]) -> ItemRecord:
    """Build the record from a row of `item.get` and its like."""
    return msgspec.convert(row, ItemRecord, strict=False)


def to_task(row: Sequence[object]) -> Task:
    """Build the record from a row of `task.get` and its like."""
    return msgspec.convert(row, Task, strict=False)


def event(task_id: str, item_id: str | None, kind: str, now: float, **data: Any) -> Steps[None]:
    """Add a line to the task's timeline. `data` must hold no secrets."""
    yield from run(
        "event.put",
        task_id=task_id,
        event_id=new_id(now),
        item_id=item_id,
        type=kind,
        at=now,
        data=msgspec.json.encode(data).decode(),
    )


def fence(lease: Lease, append: Append, what: str, now: float) -> Steps[Refused | None]:
    """Lock the item's row, check the token, and add to its journal: the start of a leased verb.

    Returns what to return from the verb when the lease is no longer held.

    Raises:
        StoreUnavailableError: the lease is held, but the write before this one was not kept.
    """
    params: dict[str, Any] = {
        "task_id": lease.task_id,
        "item_id": lease.item_id,
        "token": lease.token,
        "before": append.before,
    }
    if not append.entries:
        held = yield Statement("item.hold", params)
    else:
        held = yield Statement("item.fence", params | {"seq": append.after, "head": append.head})
    if not held:
        return (yield from refuse(lease, what, now))
    yield from put_entries(lease.task_id, lease.item_id, append)
    return None


def put_entries(task_id: str, item_id: str, append: Append) -> Steps[None]:
    """Insert entries and the blobs they refer to; the item's row is locked already."""
    for blob in append.blobs:
        yield from keep_blob(task_id, blob)
    for entry in append.entries:
        item = {"task_id": task_id, "item_id": item_id}
        yield Statement("journal.put", msgspec.structs.asdict(entry) | item)


def appended(lease: Lease, append: Append, *_: object, **__: object) -> Question | None:
    """Return the witness of a leased verb: its last entry, known by its place in the chain."""
    return partial(_landed, lease, append.entries[-1]) if append.entries else None


def _landed(lease: Lease, entry: Entry) -> Statement:
    where = {"task_id": lease.task_id, "item_id": lease.item_id}
    return Statement("journal.landed", where | {"seq": entry.seq, "chain": entry.chain})


def release_free(task_id: str, now: float) -> Steps[None]:
    """Count dependencies afresh, and make ready whatever waits for none."""
    yield from run("item.recount", task_id=task_id)
    yield from run("item.ready_if_free", task_id=task_id, now=now)


def refuse(lease: Lease, what: str, now: float) -> Steps[Refused]:
    """Record that a write came under a lease that is no longer held.

    Raises:
        StoreUnavailableError: it is held, but the journal isn't where the writer believes it to be.
    """
    rows = yield from run("item.lease", task_id=lease.task_id, item_id=lease.item_id)
    if rows and rows[0] == (lease.token, ItemStatus.RUNNING):
        message = (
            f"An earlier write of this attempt at {lease.task_id}/{lease.item_id} was not kept, so "
            f"{what} can't be either. The lease is still held: end this attempt and try again."
        )
        raise errors.StoreUnavailableError(message)
    if rows:
        yield from event(
            lease.task_id, lease.item_id, "write_refused", now, token=lease.token, write=what,
            worker=lease.owner,
        )  # fmt: skip
    return Refused(lease.task_id, lease.item_id, lease.token, what)


def lock_task(task_id: str) -> Steps[None]:
    """Keep others from changing the items of a task until this transaction ends.

    Comes before any item's row is locked. Without it, two transactions that each end one of the
    last two items would each see the other's still running.
    """
    yield from run("task.lock", task_id=task_id)


def refresh_task(task_id: str, now: float, worker_id: str | None = None) -> Steps[TaskStatus]:
    """Derive the task's status from its items and store it where it changed.

    A task whose items have all succeeded has succeeded. One that claims anything of the world stays
    `running` until all of that was verified once more; `worker_id` is the worker that is to do it.
    """
    yield from lock_task(task_id)
    rows = yield from run("task.census", task_id=task_id, plan=PLAN)
    if not rows:
        raise no_task(task_id)
    old, *census, claims = rows[0]
    new = _status(census)
    if new is None and claims:
        yield from run("task.verifying", task_id=task_id, worker_id=worker_id, now=now)
    elif new is None:
        new = TaskStatus.SUCCEEDED
        if new != old:
            yield from succeed(task_id, now)
    elif new != old:
        yield from _enter(task_id, new, now)
        if TaskStatus.BLOCKED in {old, new}:
            yield from _refresh_parent(task_id, now)
    return new or TaskStatus.RUNNING


def _refresh_parent(task_id: str, now: float) -> Steps[None]:
    """Derive the parent's status anew: what waits only for blocked children is blocked, too."""
    rows = yield from run("task.get", task_id=task_id)
    parent = to_task(rows[0]).parent_id
    if parent is not None:
        yield from refresh_task(parent, now)


def tasks_of(task_ids: Sequence[str]) -> Steps[dict[str, Task]]:
    """Return tasks by their ids; without those that aren't there."""
    rows = yield from run("task.of_ids", tasks=msgspec.json.encode(task_ids).decode())
    return {task.task_id: task for task in map(to_task, rows)}


def no_task(task_id: str) -> errors.TaskNotFoundError:
    """Return the error for an id that names nothing."""
    message = f"There is no task {task_id}. `holdfast tasks` lists what there is."
    return errors.TaskNotFoundError(message, task_id=task_id)


def _status(census: Sequence[Any]) -> TaskStatus | None:
    active, waiting, blocked, canceled, failed, unplanned, unfinished = census
    planning = TaskStatus.PLANNING if unplanned else TaskStatus.RUNNING
    ordered = (
        (active, planning),
        (waiting, TaskStatus.WAITING),
        (blocked, TaskStatus.BLOCKED),
        (canceled, TaskStatus.CANCELED),
        (failed, TaskStatus.FAILED),
        (unfinished, TaskStatus.BLOCKED),
    )
    return next((status for present, status in ordered if present), None)


def _enter(task_id: str, status: TaskStatus, now: float) -> Steps[None]:
    error = None
    if status is TaskStatus.FAILED:
        rows = yield from run("task.first_error", task_id=task_id)
        error = rows[0][0] if rows else None
    yield from set_task_status(task_id, status, now, error=error)


def set_task_status(
    task_id: str, status: TaskStatus, now: float, error: str | None = None
) -> Steps[None]:
    """Store a status, tell the timeline, and wake the parent when the task has ended."""
    finished = now if status in FINAL_TASK else None
    parent = yield from run(
        "task.set_status", task_id=task_id, status=status, now=now, error=error, finished=finished
    )
    yield from event(task_id, None, f"task_{status}", now)
    if finished is not None:
        yield from _wake_parent(task_id, parent, now)


def succeed(task_id: str, now: float) -> Steps[None]:
    """Call a task succeeded, with what its own function returned, and wake its parent."""
    parent = yield from run("task.succeed", task_id=task_id, nothing=_NOTHING, now=now)
    yield from event(task_id, None, f"task_{TaskStatus.SUCCEEDED}", now)
    yield from _wake_parent(task_id, parent, now)


def _wake_parent(child_id: str, parent: Rows, now: float) -> Steps[None]:
    """Make the item ready that waits for a task which has ended."""
    task_id, item_id = parent[0]
    if task_id is None:
        return
    yield from lock_task(task_id)
    names = {"task_id": task_id, "item_id": item_id, "child_id": child_id}
    if (yield from run("task.wake_parent", **names, now=now)):
        yield from refresh_task(task_id, now)
