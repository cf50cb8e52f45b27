"""Verbs that take done work back because evidence of it no longer holds (like `make`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.models import Entry, ItemRecord
from holdfast.states import ItemStatus, TaskStatus
from holdfast.store.verb import Steps, run, verb
from holdfast.store.verbs.shared import event, lock_task, refresh_task, release_free, to_item


class Reopening(msgspec.Struct, frozen=True):
    """One item to reopen, with the marker to append to its journal.

    Args:
        item: the record the marker was computed from.
        marker: the `redo` entry; its place in the chain was computed from `item`.
        root: whether its own evidence failed, rather than that of an item before it.
        must_run: whether it runs again whatever the items before it come out as: it is a root, or
            comes directly after one.
    """

    item: ItemRecord
    marker: Entry
    root: bool
    must_run: bool = False


@verb()
def dependents_of(task_id: str, item_ids: Sequence[str]) -> Steps[list[ItemRecord]]:
    """Return every item that comes, directly or not, after one of these."""
    rows = yield from run(
        "item.dependents", task_id=task_id, items=msgspec.json.encode(list(item_ids)).decode()
    )
    return [to_item(row) for row in rows]


@verb(wakes=True)
def reopen_items(
    task_id: str, reopenings: Sequence[Reopening], reason: str, limit: int, now: float
) -> Steps[bool]:
    """Reopen items and what depends on them, revoking leases; all or nothing.

    An item that has been reopened `limit` times is left to a person instead. Returns False when an
    item has moved on since its record was read: read again and decide again.
    """
    yield from lock_task(task_id)
    for each in reopenings:
        rows = yield from run(
            "item.is_unchanged",
            task_id=task_id,
            item_id=each.item.item_id,
            seq=each.item.seq,
            status=each.item.status,
            token=each.item.lease_token,
        )
        if not rows:
            return False
    for each in reopenings:
        yield from _reopen(each, reason, limit, now)
    yield from release_free(task_id, now)
    yield from run("task.reopen", task_id=task_id, now=now)
    status = yield from refresh_task(task_id, now)
    if status is TaskStatus.RUNNING:
        yield from run("task.not_verifying", task_id=task_id)
    return True


def _reopen(each: Reopening, reason: str, limit: int, now: float) -> Steps[None]:
    item = each.item
    spent = each.root and item.generation >= limit
    yield from run(
        "item.reopen",
        task_id=item.task_id,
        item_id=item.item_id,
        status=ItemStatus.QUARANTINED if spent else ItemStatus.PENDING,
        root=int(each.root),
        must_run=int(each.root or each.must_run),
        seq=each.marker.seq,
        head=each.marker.chain,
        error=f"reopened {item.generation} times, and still: {reason}" if spent else None,
    )
    fields = msgspec.structs.asdict(each.marker)
    yield from run("journal.put", task_id=item.task_id, item_id=item.item_id, **fields)
    yield from run(
        "checkpoint.void", task_id=item.task_id, item_id=item.item_id, root=int(each.root)
    )
    kind = "item_quarantined" if spent else "item_reopened"
    why = reason if each.root else "an item before it was reopened"
    yield from event(item.task_id, item.item_id, kind, now, reason=why)
