"""Verbs about worker processes: who lives, who is gone, and what the gone ones held."""

from __future__ import annotations

import msgspec

from holdfast.models import SECONDS_PER_PRIORITY, WorkerRecord
from holdfast.states import ItemStatus
from holdfast.store.migrations import refuse_moved
from holdfast.store.verb import Steps, run, verb
from holdfast.store.verbs.shared import event, refresh_task

CRASH_PAUSE = 1.0
"""Seconds before an item that crashed its process without progress is tried again; doubled at each
further crash, at most `CRASH_PAUSE_MAX`."""

CRASH_PAUSE_MAX = 300.0


@verb()
def next_slot() -> Steps[int]:
    """Return a slot no worker ever had."""
    rows = yield from run("worker.next_slot")
    return rows[0][0]


@verb()
def register_worker(record: WorkerRecord) -> Steps[bool]:
    """Add a worker that already holds its slot; False when the slot was given out meanwhile.

    Raises:
        StoreMovedError: everything was moved away since this program opened the database.
    """
    rows = yield from run("worker.put", **msgspec.structs.asdict(record))
    # Afterwards: that waited for a copy under way.
    reader_version = yield from run("worker.reader_version")
    refuse_moved(reader_version[0][0])
    return bool(rows)


@verb()
def renew_leases(worker_id: str, now: float) -> Steps[bool]:
    """Renew all leases of a worker, in one statement; False when it was taken for dead."""
    rows = yield from run("worker.renew", worker_id=worker_id, now=now)
    return bool(rows)


@verb()
def list_workers() -> Steps[list[WorkerRecord]]:
    """Return every worker that isn't gone."""
    rows = yield from run("worker.list")
    return [msgspec.convert(row, WorkerRecord, strict=False) for row in rows]


@verb()
def get_worker(worker_id: str) -> Steps[WorkerRecord | None]:
    """Return a worker, gone ones included; None when it was forgotten, a day after it was gone."""
    rows = yield from run("worker.get", worker_id=worker_id)
    return msgspec.convert(rows[0], WorkerRecord, strict=False) if rows else None


@verb()
def lingering_workers(host: str) -> Steps[list[WorkerRecord]]:
    """Return workers of a machine that are gone, and of whose processes more isn't known.

    None where that is known of all without being recorded.
    """
    rows = yield from run("worker.lingering", host=host)
    return [msgspec.convert(row, WorkerRecord, strict=False) for row in rows]


@verb()
def mark_ended(worker_id: str) -> Steps[None]:
    """Record that the process of a worker that is gone was seen to have ended.

    Only on its machine can that be seen, and everywhere its `once` calls may be in doubt.
    """
    yield from run("worker.ended", worker_id=worker_id)


@verb()
def watched_workers(host: str) -> Steps[list[tuple[WorkerRecord, bool]]]:
    """Return the workers that somebody on a machine has to watch, and whether each is overdue.

    A server has a clock to judge by. There, only what is overdue is watched of other machines.
    """
    rows = yield from run("worker.watched", host=host)
    return [
        (msgspec.convert(record, WorkerRecord, strict=False), bool(overdue))
        for overdue, *record in rows
    ]


@verb()
def end_hung_transactions(seconds: float) -> Steps[int]:
    """End what programs began and then left waiting, where the database can; return how many.

    A process that was stopped, or cut off, in the middle of a transaction keeps its locks until it
    goes on. Nobody could take over the item it wrote about.

    Args:
        seconds: how long such a transaction must have been open.
    """
    return len((yield from run("worker.end_hung", seconds=seconds)))


class TakenBack(msgspec.Struct, frozen=True):
    """An item taken back from a worker that died."""

    task_id: str
    item_id: str
    status: ItemStatus
    crashes: int


@verb(wakes=True)
def expire_worker(worker_id: str, seen: int | None, now: float) -> Steps[list[TakenBack]]:
    """Take back everything a dead worker held.

    The statement that marks the worker rechecks: with `seen`, a worker that has renewed since is
    left alone; without, its process was seen to have ended. An item without a new journal entry
    since its claim has crashed; when several shared the process nobody is blamed yet, and each is
    run alone the next time.
    """
    if not (yield from run("worker.expire", worker_id=worker_id, seen=seen, now=now)):
        return []
    shared = (yield from run("item.count_leased", worker_id=worker_id))[0][0] > 1
    rows = yield from run(
        "item.take_back",
        worker_id=worker_id,
        shared=int(shared),
        now=now,
        pause=CRASH_PAUSE,
        pause_max=CRASH_PAUSE_MAX,
        per_priority=SECONDS_PER_PRIORITY,
    )
    taken = [msgspec.convert(row, TakenBack, strict=False) for row in _named(rows)]
    for item in taken:
        yield from event(
            item.task_id, item.item_id, "taken_back", now, worker=worker_id,
            status=item.status, crashes=item.crashes,
        )  # fmt: skip
    for task_id in sorted({item.task_id for item in taken}):
        yield from refresh_task(task_id, now)
    return taken


def _named(rows: list[tuple[object, ...]]) -> list[dict[str, object]]:
    return [dict(zip(TakenBack.__struct_fields__, row, strict=True)) for row in rows]


@verb(wakes=True)
def retire_worker(worker_id: str, now: float, *, over: bool = False) -> Steps[bool]:
    """Take a worker off the list that stopped in good order, or lost its leases.

    Returns False, and leaves it there, while it holds a lease: only as a dead worker is it found,
    and what it holds taken back.

    Args:
        worker_id: which.
        now: wall time.
        over: whether nothing that it started can have an effect any more.
    """
    rows = yield from run("worker.retire", worker_id=worker_id, over=int(over), now=now)
    return bool(rows[0][0]) if rows else False


@verb()
def drain_worker(worker_id: str, now: float) -> Steps[None]:
    """Show that a worker claims nothing more."""
    yield from run("worker.drain", worker_id=worker_id, now=now)
