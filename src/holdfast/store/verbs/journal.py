"""Verbs about the journal of a work item."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast import errors
from holdfast.models import Entry, Lease
from holdfast.store.verb import Refused, Steps, run, verb
from holdfast.store.verbs.shared import (
    Append,
    appended,
    event,
    fence,
    lock_task,
    put_entries,
    refresh_task,
    release_free,
    to_item,
)
from holdfast.store.verbs.tasks import NewTask, Submitted, cancel_open, insert_task


@verb(witness=appended, appends=True, keeps=True)
def append_entries(lease: Lease, append: Append, now: float) -> Steps[Refused | None]:
    """Add entries to the item's journal."""
    return (yield from fence(lease, append, "append_entries", now))


@verb(wakes=True, witness=appended)
def append_child(
    lease: Lease, append: Append, child: NewTask, now: float
) -> Steps[Submitted | Refused]:
    """Record a child call and submit the child, in one transaction.

    Where the parent was told to stop meanwhile, so is the child.
    """
    refused = yield from fence(lease, append, "append_child", now)
    if refused:
        return refused
    submitted = yield from insert_task(child, now)
    parent = yield from run("item.get", task_id=lease.task_id, item_id=lease.item_id)
    if to_item(parent[0]).cancel:
        yield from cancel_open(child.task_id, "its parent was canceled", now)
    return submitted


@verb(witness=appended, keeps=True)
def take_signal(lease: Lease, append: Append, signal_id: str, now: float) -> Steps[Refused | None]:
    """Record a signal's payload in the journal and take it out of the mailbox, together.

    Raises:
        JournalError: another branch or item took it meanwhile; nothing was recorded.
    """
    refused = yield from fence(lease, append, "take_signal", now)
    if refused:
        return refused
    taken_by = f"{lease.item_id}/{append.after}"
    rows = yield from run(
        "signal.take", task_id=lease.task_id, signal_id=signal_id, taken_by=taken_by
    )
    if not rows:
        message = (
            f"Signal {signal_id} of task {lease.task_id} was taken by another call meanwhile. "
            f"Nothing was recorded; wait for the next one, or give each waiter a name of its own."
        )
        raise errors.JournalError(message, signal_id=signal_id)
    return None


@verb(witness=appended, keeps=True)
def report_progress(  # noqa: PLR0917  the facts of one row
    lease: Lease, append: Append, text: str, done: float | None, total: float | None, now: float
) -> Steps[Refused | None]:
    """Put progress on the timeline, after everything recorded before it."""
    refused = yield from fence(lease, append, "report_progress", now)
    if refused:
        return refused
    yield from event(
        lease.task_id, lease.item_id, "progress", now, text=text, done=done, total=total
    )
    return None


@verb()
def read_journal(task_id: str, item_id: str, after: int = 0) -> Steps[list[Entry]]:
    """Return an item's entries with a higher sequence number than `after`."""
    rows = yield from run("journal.read", task_id=task_id, item_id=item_id, after=after)
    return [to_entry(row) for row in rows]


@verb(wakes=True)
def append_resolution(  # noqa: PLR0917  the facts of one row
    task_id: str, item_id: str, seq: int, append: Append, how: str, now: float
) -> Steps[bool]:
    """Settle an entry in doubt and make its item ready once none is left in doubt.

    Returns False when the journal has moved on meanwhile: read it again.
    """
    yield from lock_task(task_id)
    if not (yield from _extend_idle(task_id, item_id, append)):
        return False
    yield from event(task_id, item_id, "entry_resolved", now, entry=seq, how=how)
    yield from run("item.leave_doubt", task_id=task_id, item_id=item_id)
    yield from release_free(task_id, now)
    yield from refresh_task(task_id, now)
    return True


@verb()
def extend_idle(task_id: str, item_id: str, append: Append) -> Steps[bool]:
    """Add entries to the journal of an item nobody executes; False when it has moved on."""
    return (yield from _extend_idle(task_id, item_id, append))


def _extend_idle(task_id: str, item_id: str, append: Append) -> Steps[bool]:
    rows = yield from run(
        "item.extend_idle",
        task_id=task_id,
        item_id=item_id,
        before=append.before,
        seq=append.after,
        head=append.head,
    )
    if rows:
        yield from put_entries(task_id, item_id, append)
    return bool(rows)


def to_entry(row: Sequence[object]) -> Entry:
    """Build the record from a row of `journal.read` and its like."""
    return msgspec.convert(row, Entry, strict=False)
