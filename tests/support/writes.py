"""Writes for tests that only need some: a task of one item, its claim, an entry in its journal."""

from __future__ import annotations

from typing import Any

from holdfast.ids import new_id
from holdfast.models import MAIN, Claimed, Entry, WorkerRecord
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verb import Verb
from holdfast.store.verbs import Append, ClaimFilter, NewItem, NewTask


def new_task(name: str) -> Verb[Any]:
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    return verbs.create_task(NewTask(name, "work", empty, (item,)), 1.0)


def tasks_in(store: Store) -> set[str]:
    return {task.task_id for task in store.read(verbs.list_tasks(None, 100))}


def claim_one(store: Store) -> Claimed:
    """Claim the one item that is ready, for a worker that never renews."""
    (claimed,) = claim_many(store, 1)
    return claimed


def claim_many(store: Store, limit: int) -> list[Claimed]:
    """Claim items that are ready, for one such worker."""
    record = worker_in(1)
    store.commit(verbs.register_worker(record)).wait()
    wanted = ClaimFilter(("work",), ("default",))
    return store.commit(verbs.claim_work_items(record.worker_id, wanted, limit, 2.0)).wait()


def worker_in(slot: int) -> WorkerRecord:
    """A worker's row."""
    return WorkerRecord(new_id(1.0), slot, "h", 1, "0", 30.0, 0, "alive", 1.0, 1.0)


def append_one(claimed: Claimed) -> Verb[Any]:
    """Add the first entry to a journal."""
    seq = claimed.item.seq + 1
    entry = Entry(
        seq, EntryKind.STEP, "s", "", b"i", EntryStatus.DONE, Effect.IDEMPOTENT, None,
        keyed=False, attempt=1, at=2.0, micros=1, request=None, outcome=None, usage=None,
        chain=b"chain",
    )  # fmt: skip
    append = Append(claimed.item.seq, (entry,), (), b"chain")
    return verbs.append_entries(claimed.lease, append, 2.0)


def journal_of(store: Store, claimed: Claimed) -> list[Entry]:
    return store.read(verbs.read_journal(claimed.lease.task_id, claimed.lease.item_id))
