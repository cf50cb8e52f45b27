"""Verbs that remove what nobody needs any more, and those that count what is there."""

from __future__ import annotations

from holdfast.store.verb import Steps, run, verb


@verb()
def prunable_tasks(before: float, limit: int) -> Steps[list[str]]:
    """Return root tasks that ended, with all their descendants, before that wall time."""
    rows = yield from run("task.prunable", before=before, limit=limit)
    return [row[0] for row in rows]


@verb()
def prune_task(task_id: str) -> Steps[bool]:
    """Remove an ended task, its descendants, and everything recorded for them.

    Returns False, and removes nothing, when any of them was taken up again, or when it is gone.
    """
    if (yield from run("prune.is_open", task_id=task_id)):
        return False
    for table in (
        "events", "signals", "approvals", "reservations", "budgets", "blobs", "claims",
        "checkpoints", "journal", "edges", "items",
    ):  # fmt: skip
        yield from run(f"prune.{table}", task_id=task_id)
    return bool((yield from run("prune.tasks", task_id=task_id)))


@verb()
def prunable_items(limit: int) -> Steps[list[tuple[str, str]]]:
    """Return unfinished items whose handlers restore and that have entries before a checkpoint."""
    rows = yield from run("item.prunable", limit=limit)
    return [(row[0], row[1]) for row in rows]


@verb()
def prune_journal(task_id: str, item_id: str, keep: int) -> Steps[int]:
    """Remove an unfinished item's checkpoints but the newest `keep`, and the journal before them.

    The newest one that may be resumed from is always kept, and so are `once` entries, those that
    used their idempotency key, approvals, and markers. Returns how many entries were removed.
    """
    yield from run("prune.old_checkpoints", task_id=task_id, item_id=item_id, keep=keep)
    oldest = yield from run("prune.position", task_id=task_id, item_id=item_id)
    if not oldest:
        return 0
    where = {"task_id": task_id, "item_id": item_id, "until": oldest[0][0]}
    rows = yield from run("prune.journal_before", **where)
    if rows:
        yield from run("item.set_pruned", **where)
        yield from run("prune.lock_blobs", task_id=task_id)
        yield from run("prune.unreferenced_blobs", task_id=task_id)
    return len(rows)


@verb()
def prune_cache(now: float, reserved_before: float) -> Steps[int]:
    """Remove expired cache entries and reservations nobody fulfilled."""
    rows = yield from run("prune.cache", now=now, reserved_before=reserved_before)
    return len(rows)


@verb()
def prune_workers(before: float) -> Steps[int]:
    """Forget workers that are gone since before that wall time and hold nothing.

    Writers that marked no batch since then are forgotten too. Returns how many workers.
    """
    rows = yield from run("prune.workers", before=before)
    yield from run("prune.writers", before=before)
    return len(rows)


@verb()
def count_rows() -> Steps[dict[str, int]]:
    """Return how many rows there are, by what they are."""
    rows = yield from run("stats.rows")
    return {row[0]: row[1] for row in rows}
