"""The verb that copies a task up to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.models import Budget
from holdfast.store.payload import Payload, keep_blob
from holdfast.store.verb import Steps, run, verb
from holdfast.store.verbs.shared import event, lock_task, refresh_task
from holdfast.store.verbs.tasks import encode_budget, put_budget


class Fork(msgspec.Struct, frozen=True):
    """A new task that goes on from a checkpoint of another.

    Args:
        task_id: of the new task.
        source: the task it is copied from.
        item_id: the item whose checkpoint it is.
        number: of the checkpoint.
        before: the items it builds on; they are copied as done.
        state: what `restore` gives back instead of the checkpoint's own state.
        budget: of the new task; it doesn't share the original's.
    """

    task_id: str
    source: str
    item_id: str
    number: int
    before: Sequence[str]
    state: Payload | None = None
    budget: Budget | None = None


@verb(wakes=True)
def fork_task(fork: Fork, now: float) -> Steps[None]:
    """Copy a task: what came before the checkpoint as done, everything else to be done anew."""
    before = msgspec.json.encode(list(fork.before)).decode()
    names = {
        "task_id": fork.task_id,
        "source": fork.source,
        "item_id": fork.item_id,
        "number": fork.number,
        "before": before,
        "now": now,
    }
    yield from lock_task(fork.source)
    checkpoint_id = f"{fork.source}:{fork.item_id}:{fork.number}"
    budget = encode_budget(fork.budget)
    yield from run("fork.task", **names, checkpoint_id=checkpoint_id, budget=budget)
    yield from put_budget(fork.task_id, fork.budget)
    for part in ("items", "edges", "journal", "checkpoints", "claims", "blobs"):
        yield from run(f"fork.{part}", **names)
    if fork.state is not None:
        yield from keep_blob(fork.task_id, fork.state)
        yield from run("fork.state", **names, state=fork.state.column)
    yield from run("item.recount", task_id=fork.task_id)
    yield from run("item.ready_if_free", task_id=fork.task_id, now=now)
    yield from event(fork.task_id, None, "task_forked", now, checkpoint=checkpoint_id)
    yield from refresh_task(fork.task_id, now)
