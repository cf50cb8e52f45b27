"""Verbs about work items: claiming them, and every way an attempt can end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from holdfast.models import PLAN, Checkpoint, Claim, Claimed, ItemRecord, Lease
from holdfast.states import ItemStatus
from holdfast.store.payload import Payload, keep_blob
from holdfast.store.verb import Refused, Row, Rows, Steps, run, verb
from holdfast.store.verbs.budgets import Charge
from holdfast.store.verbs.checkpoints import put_checkpoint
from holdfast.store.verbs.queues import (
    Places,
    count_starts,
    keep_place_of_item,
    keep_places,
)
from holdfast.store.verbs.shared import (
    Append,
    appended,
    event,
    fence,
    lock_task,
    no_task,
    refresh_task,
    refuse,
    succeed,
    tasks_of,
    to_item,
)

PATIENCE = 2.0
"""Seconds that busy workers leave an item to idle ones which is to be run alone."""

SOON = 0.03
"""Seconds after which a worker asks again for a place in a limited queue that has room: another
claim had the queue at that moment. Also the least that it waits for the next start to be due."""


class ClaimFilter(msgspec.Struct, frozen=True):
    """What a worker can take.

    Args:
        handlers: names of the functions this program has registered.
        queues: queues it serves.
        roots: only these tasks and their descendants, when given.
        idle: whether nothing else runs in this process.
    """

    handlers: tuple[str, ...]
    queues: tuple[str, ...]
    roots: tuple[str, ...] | None = None
    idle: bool = True


@verb()
def claim_work_items(
    worker_id: str, wanted: ClaimFilter, limit: int, now: float
) -> Steps[list[Claimed] | Refused]:
    """Lease up to `limit` ready items, the longest waiting (raised by priority) first.

    An item suspected of crashing its process is given out only to an idle worker, and alone; while
    it runs, its worker claims nothing else. Busy workers pass it by for `PATIENCE` seconds, since
    an idle one takes it at once; then they claim nothing behind it, until one of them is idle.

    Of a limited queue only as many are leased as it has room for.
    """
    if not (yield from run("worker.renew", worker_id=worker_id, now=now)):
        return Refused("", "", 0, "claim_work_items")
    yield from wake_due(now)
    roots = None if wanted.roots is None else _json(wanted.roots)
    look = yield from run(
        "queue.look", worker_id=worker_id, queues=_json(wanted.queues), roots=roots
    )
    holds_alone, limited = look[0]
    if holds_alone:
        return []
    places = Places()
    if limited != "[]":  # those that aren't limited pay nothing for it
        places = yield from keep_places(msgspec.json.decode(limited), limit, now)
    candidates = yield from _candidates(wanted, limit, places, now)
    claimed = yield from _claim(_runnable(candidates, wanted), worker_id, now)
    yield from count_starts(places, [each.item.queue for each in claimed], now)
    return claimed


def _runnable(candidates: Rows, wanted: ClaimFilter) -> list[tuple[str, str]]:
    """Return the items that may be run side by side, as pairs of task and item."""
    found: list[tuple[str, str]] = []
    for task_id, item_id, alone, _, _ in candidates:
        if alone and (found or not wanted.idle):
            break
        found.append((task_id, item_id))
        if alone:
            break
    return found


def _candidates(wanted: ClaimFilter, limit: int, places: Places, now: float) -> Steps[Rows]:
    asked = {
        "handlers": _json(wanted.handlers),
        "idle": int(wanted.idle),
        "in_line_since": now - PATIENCE,
    }
    if wanted.roots is not None:
        asked["roots"] = _json(wanted.roots)
        return (yield from _candidates_of_roots(asked, limit, places))
    # One queue at a time: then the index gives them in order, and only as many as are wanted.
    rows: Rows = []
    for queue in dict.fromkeys(wanted.queues):
        free = places.of(queue, limit)
        if free:
            rows += yield from run("item.candidates", **asked, queue=queue, limit=free)
    return sorted(rows, key=_claim_order)[:limit]


def _candidates_of_roots(asked: Mapping[str, object], limit: int, places: Places) -> Steps[Rows]:
    """Return candidates of any queue; what a full queue holds doesn't hide what is behind it."""
    full = {queue for queue, free in places.room.items() if not free}
    taken: Rows = []
    while True:
        left = limit - len(taken)
        rows = yield from run("item.candidates_of_roots", **asked, full=_json(full), limit=left)
        found = Counter(row[4] for row in rows)
        over = {queue for queue, count in found.items() if count > places.of(queue, limit)}
        if not over:
            return sorted(taken + rows, key=_claim_order)
        for queue in over:
            of_queue = [row for row in rows if row[4] == queue]
            taken += of_queue[: places.of(queue, limit)]
        full |= over


def _claim_order(row: Row) -> float:
    return row[3]


def _json(names: Iterable[str]) -> str:
    return msgspec.json.encode(tuple(names)).decode()


def _claim(pairs: Sequence[tuple[str, str]], worker_id: str, now: float) -> Steps[list[Claimed]]:
    """Lease items, in the given order; without those that another worker was faster with."""
    if not pairs:
        return []
    names = msgspec.json.encode(pairs).decode()
    rows = yield from run("item.claim", items=names, worker_id=worker_id, now=now)
    items = {(item.task_id, item.item_id): item for item in map(to_item, rows)}
    tasks = yield from tasks_of([task_id for task_id, _ in items])
    after_claims = yield from run("item.after_claims", items=names)
    claimed = [
        Claimed(
            Lease(*pair, items[pair].lease_token, worker_id),
            items[pair],
            tasks[pair[0]],
            after_claims=pair in after_claims,
        )
        for pair in pairs
        if pair in items
    ]
    for each in claimed:
        yield from event(
            each.item.task_id, each.item.item_id, "claimed", now, worker=worker_id,
            token=each.item.lease_token, attempt=each.item.attempts,
        )  # fmt: skip
    return claimed


@verb(wakes=True)
def claim_by_name(
    worker_id: str, task_id: str, item_id: str, now: float
) -> Steps[Claimed | str | Refused]:
    """Lease one named item if it is ready; otherwise return who holds it, or its status.

    One that pauses after a crash or a failure is ready for whoever asks for it by name. One whose
    queue is limited has to find room there.

    Raises:
        TaskNotFoundError: there is no such item.
    """
    if not (yield from run("worker.renew", worker_id=worker_id, now=now)):
        return Refused(task_id, item_id, 0, "claim_by_name")
    # Before any task is locked: others may lock one while they have the queue.
    places = yield from keep_place_of_item(task_id, item_id, now)
    yield from wake_due(now)
    yield from run("item.end_pause", task_id=task_id, item_id=item_id, now=now)
    full = [queue for queue, free in places.room.items() if not free]
    claimed = [] if full else (yield from _claim([(task_id, item_id)], worker_id, now))
    if claimed:
        yield from count_starts(places, [claimed[0].item.queue], now)
        return claimed[0]
    rows = yield from run("item.get", task_id=task_id, item_id=item_id)
    if not rows:
        raise no_task(f"{task_id} with an item {item_id}")
    item = to_item(rows[0])
    if full and item.status is ItemStatus.READY:
        return f"the limit of queue {full[0]}"
    return item.lease_owner or item.status


def wake_due(now: float) -> Steps[None]:
    """Make items ready whose timer has run out."""
    woken = yield from run("item.wake_due", now=now)
    for task_id in sorted({row[0] for row in woken}):
        yield from refresh_task(task_id, now)


# -- how an attempt ends --------------------------------------------------------------------------


class Finish(msgspec.Struct, frozen=True):
    """A work item that succeeded.

    Args:
        result: what the handler returned.
        result_hash: digest of the result and of what its evidence captured.
        changed: whether that digest differs from the one before a reopening.
        proven: whether evidence verified (False: it owed none).
        checkpoint: the final checkpoint with its verdicts, where evidence was checked.
        claims: what is to be checked again from now on.
        withdrawn: claims that the item made on a way it gave up; nobody checks them again.
        executed: calls that were made in this attempt.
        replayed: calls that the journal answered in this attempt.
    """

    result: Payload
    result_hash: bytes
    changed: bool
    proven: bool
    checkpoint: Checkpoint | None = None
    claims: tuple[Claim, ...] = ()
    withdrawn: tuple[Claim, ...] = ()
    executed: int = 0
    replayed: int = 0


@verb(wakes=True, witness=appended, keeps=True)
def finish_work_item(
    lease: Lease, append: Append, finish: Finish, now: float
) -> Steps[Refused | None]:
    """Finish an item: checkpoint, result, lease and dependents, in one transaction."""
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "finish_work_item", now)
    if refused:
        return refused
    yield from keep_blob(lease.task_id, finish.result)
    for claim in finish.withdrawn:
        where = {"subject": claim.subject, "item_id": claim.item_id, "number": claim.number}
        yield from run("claim.withdraw", task_id=lease.task_id, **where)
    if finish.checkpoint is not None:
        yield from put_checkpoint(finish.checkpoint, finish.claims)
    ((precedes, ends_task),) = yield from run(
        "item.finish",
        task_id=lease.task_id,
        item_id=lease.item_id,
        result=finish.result.column,
        result_hash=finish.result_hash,
        proven=int(finish.proven),
        now=now,
    )
    yield from event(
        lease.task_id, lease.item_id, "item_succeeded", now, proven=finish.proven,
        executed=finish.executed, replayed=finish.replayed,
    )  # fmt: skip
    if precedes:
        yield from _release_dependents(
            lease.task_id, lease.item_id, changed=finish.changed, now=now
        )
    if ends_task:
        yield from succeed(lease.task_id, now)
    else:
        yield from refresh_task(lease.task_id, now, lease.owner)
    return None


def _release_dependents(task_id: str, item_id: str, *, changed: bool, now: float) -> Steps[None]:
    """Count an item as done for those after it.

    A reopened dependent none of whose inputs changed is restored instead of run again, which in
    turn counts as done for those after it.
    """
    done = [(item_id, changed)]
    while done:
        each, differs = done.pop()
        after = {"task_id": task_id, "item_id": each}
        if not (yield from run("item.count_down", **after, changed=int(differs))):
            continue  # nothing comes after it
        restored = yield from run("item.restore_unchanged", **after, now=now)
        yield from run("item.make_ready", **after, now=now)
        for (name,) in restored:
            yield from event(task_id, name, "item_unchanged", now)
            done.append((name, False))


class Parked(msgspec.Struct, frozen=True):
    """An attempt that ends without having failed.

    Args:
        status: `waiting`, `in_doubt`, `quarantined`, or `ready` (handed back).
        wait: what it waits for, as JSON: its `kind`, and the lists `signals`, `children` and
            `approvals` that wake it. `approval` and `budget` are kinds that need a person.
        wake_at: when to try again at the latest, wall time in seconds.
        error: why, for people.
        signals: as in `wait`.
        children: as in `wait`.
        approvals: as in `wait`: the entries that ask.
        charges: the calls it waits for its budget to allow, one of which is enough.
    """

    status: ItemStatus
    wait: str | None = None
    wake_at: float | None = None
    error: str | None = None
    signals: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    approvals: tuple[int, ...] = ()
    charges: tuple[Charge, ...] = ()


@verb(wakes=True, witness=appended, keeps=True)
def park_work_item(
    lease: Lease, append: Append, parked: Parked, now: float
) -> Steps[Refused | None]:
    """End an attempt that waits; it doesn't count as one.

    What it waits for and has come in the meantime makes the item ready at once. An item that was
    told to stop meanwhile is canceled instead.
    """
    for root_id in sorted({charge.root_id for charge in parked.charges}):
        yield from run("budget.lock", task_id=root_id)
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "park_work_item", now)
    if refused:
        return refused
    rows = yield from run(
        "item.park",
        task_id=lease.task_id,
        item_id=lease.item_id,
        status=parked.status,
        wait=parked.wait,
        wake_at=parked.wake_at,
        error=parked.error,
        now=now,
    )
    status = ItemStatus(rows[0][0])
    kind = "handed_back" if status is ItemStatus.READY else f"item_{status}"
    yield from event(lease.task_id, lease.item_id, kind, now, wait=parked.wait, reason=parked.error)
    yield from _wake_if_met(lease, parked, now)
    yield from refresh_task(lease.task_id, now)
    return None


def _wake_if_met(lease: Lease, parked: Parked, now: float) -> Steps[None]:
    item = {"task_id": lease.task_id, "item_id": lease.item_id}
    if parked.signals or parked.children:
        yield from run(
            "item.wake_if_met",
            **item,
            signals=msgspec.json.encode(parked.signals).decode(),
            children=msgspec.json.encode(parked.children).decode(),
            now=now,
        )
    if parked.approvals:
        approvals = msgspec.json.encode(parked.approvals).decode()
        yield from run("approval.wake_if_decided", **item, approvals=approvals, now=now)
    for charge in parked.charges:
        amounts = {"root_id": charge.root_id, "tokens": charge.tokens, "nanos": charge.nanos}
        yield from run("budget.wake_if_enough", **item, **amounts, now=now)


@verb(wakes=True, witness=appended, keeps=True)
def fail_attempt(
    lease: Lease, append: Append, error: str, retry_at: float | None, now: float
) -> Steps[Refused | None]:
    """End an attempt that failed: try again at `retry_at`, or fail the item when that is None.

    Items after a failed one are skipped.
    """
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "fail_attempt", now)
    if refused:
        return refused
    final = retry_at is None
    yield from run(
        "item.fail",
        task_id=lease.task_id,
        item_id=lease.item_id,
        status=ItemStatus.FAILED if final else ItemStatus.WAITING,
        wait=None if final else '{"kind":"retry"}',
        wake_at=retry_at,
        error=error,
        now=now,
    )
    if final:
        yield from event(lease.task_id, lease.item_id, "item_failed", now, error=error)
        where = {"task_id": lease.task_id, "item_id": lease.item_id}
        yield from run("item.skip_dependents", **where, now=now)
    else:
        yield from event(
            lease.task_id, lease.item_id, "attempt_failed", now, error=error, retry_at=retry_at
        )
    yield from refresh_task(lease.task_id, now)
    return None


@verb(wakes=True, witness=appended, keeps=True)
def end_canceled(lease: Lease, append: Append, now: float) -> Steps[Refused | None]:
    """End an attempt that was told to stop."""
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "end_canceled", now)
    if refused:
        return refused
    yield from run("item.end_canceled", task_id=lease.task_id, item_id=lease.item_id, now=now)
    yield from event(lease.task_id, lease.item_id, "item_canceled", now)
    yield from refresh_task(lease.task_id, now)
    return None


@verb(wakes=True)
def abandon_lease(
    lease: Lease, now: float, wake_at: float | None = None, *, seq: int | None = None
) -> Steps[Refused | None]:
    """Give a lease back: the database failed, or nobody executes the item.

    The item is ready at once, or at `wake_at` (wall time in seconds).

    Raises:
        StoreUnavailableError: its journal doesn't end at `seq`; None is anywhere.
    """
    yield from lock_task(lease.task_id)
    rows = yield from run(
        "item.abandon",
        task_id=lease.task_id,
        item_id=lease.item_id,
        token=lease.token,
        seq=seq,
        wake_at=wake_at,
        now=now,
    )
    if not rows:
        return (yield from refuse(lease, "abandon_lease", now))
    kind = "item_canceled" if rows[0][0] == ItemStatus.CANCELED else "handed_back"
    yield from event(lease.task_id, lease.item_id, kind, now)
    yield from refresh_task(lease.task_id, now)
    return None


# -- reading --------------------------------------------------------------------------------------


@verb()
def get_item(task_id: str, item_id: str) -> Steps[ItemRecord | None]:
    """Return a work item."""
    rows = yield from run("item.get", task_id=task_id, item_id=item_id)
    return to_item(rows[0]) if rows else None


@verb()
def list_items(task_id: str) -> Steps[list[ItemRecord]]:
    """Return a task's work items in the order of the plan, `plan` first."""
    rows = yield from run("item.list", task_id=task_id, plan=PLAN)
    return [to_item(row) for row in rows]


@verb()
def list_edges(task_id: str) -> Steps[list[tuple[str, str]]]:
    """Return (item, the item it comes after) for all of a task."""
    rows = yield from run("edge.list", task_id=task_id)
    return [(row[0], row[1]) for row in rows]


@verb()
def list_predecessors(task_id: str, item_id: str) -> Steps[list[ItemRecord]]:
    """Return the items that this one comes directly after."""
    rows = yield from run("item.predecessors", task_id=task_id, item_id=item_id)
    return [to_item(row) for row in rows]


@verb()
def next_wake(wanted: ClaimFilter, now: float) -> Steps[float | None]:
    """Return in how many seconds there may be something to claim, as far as time decides that.

    That is when the next waiting item is due, or when a limited queue, in which something is ready
    that the worker can run, has room for it.
    """
    rows = yield from run(
        "item.next_wake",
        handlers=_json(wanted.handlers),
        queues=_json(wanted.queues),
        roots=None if wanted.roots is None else _json(wanted.roots),
        now=now,
    )
    wake_at, place_in = rows[0]
    seconds = [] if wake_at is None else [wake_at - now]
    seconds += [] if place_in is None else [max(SOON, place_in)]
    return max(0.0, min(seconds)) if seconds else None


@verb()
def held_leases(worker_id: str) -> Steps[dict[Lease, bool]]:
    """Return every lease the worker holds, and whether its item was told to stop."""
    rows = yield from run("item.held_by_worker", worker_id=worker_id)
    return {
        Lease(task_id, item_id, token, worker_id): bool(cancel)
        for task_id, item_id, token, cancel in rows
    }


class RunningItem(msgspec.Struct, frozen=True, array_like=True):
    """A work item that somebody executes."""

    worker_id: str
    task_id: str
    item_id: str
    handler: str
    queue: str
    attempt: int


@verb()
def list_running() -> Steps[list[RunningItem]]:
    """Return every leased item, by its task."""
    rows = yield from run("item.running")
    return [msgspec.convert(row, RunningItem, strict=False) for row in rows]
