"""Forking: a new task that goes on from a checkpoint of another."""

from __future__ import annotations

from holdfast import codec, errors
from holdfast.ids import new_id
from holdfast.models import PLAN, Budget, Checkpoint, Entry, ItemRecord
from holdfast.rechecks import workspace_of
from holdfast.resume_point import (
    NO_STATE,
    find_checkpoint,
    recheck_checkpoint,
    why_not_resumable,
)
from holdfast.states import Effect, EntryKind, EntryStatus, ItemStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload, make_payload
from holdfast.verifiers import EvidenceVerifier


async def fork(
    store: Store,
    verifier: EvidenceVerifier,
    checkpoint_id: str,
    *,
    state: object = ...,
    allow_repeat: bool = False,
    budget: Budget | None = None,
) -> str:
    """Make a new task that goes on from a checkpoint of another; returns its id.

    What the checkpoint's item builds on is copied as done; the item itself has its journal up to
    the checkpoint; everything else starts anew. The original is not touched. One transaction.

    Args:
        store: the database.
        verifier: what checks the checkpoint's evidence.
        checkpoint_id: `task:item:number`.
        state: what `restore` gives back instead of the checkpoint's own state.
        allow_repeat: make `once` calls again that the original made after the checkpoint.
        budget: of the new task, which doesn't share the original's; none when None.

    Raises:
        CheckpointNotFoundError: there is none, or it may not be resumed from.
        UsageError: the original made `once` calls after it; or a new state would have no effect,
            since the handler never calls `restore`.
    """
    checkpoint = find_checkpoint(store, checkpoint_id)
    item = store.read(verbs.get_item(checkpoint.task_id, checkpoint.item_id))
    assert item is not None  # noqa: S101  checkpoints go with their items
    await _require_resumable(store, verifier, checkpoint, item)
    if state is not ... and not item.restores:
        message = (
            f"{item.handler} never called restore, so another state would have no effect. "
            f"Nothing was made."
        )
        raise errors.UsageError(message)
    before = _done_before(store, item)
    if not allow_repeat:
        _refuse_repeats(store, item, checkpoint, before)
    now = store.now()
    new = verbs.Fork(
        new_id(now), checkpoint.task_id, checkpoint.item_id, checkpoint.number, tuple(before),
        None if state is ... else make_payload(codec.encode(state)), budget,
    )  # fmt: skip
    await store.commit(verbs.fork_task(new, now))
    return new.task_id


async def _require_resumable(
    store: Store, verifier: EvidenceVerifier, checkpoint: Checkpoint, item: ItemRecord
) -> None:
    reason = why_not_resumable(checkpoint)
    if checkpoint.state == NO_STATE and not item.restores:
        reason = None  # its handler runs from the top and needs no state
    if reason is None:
        root = store.read(verbs.get_task(checkpoint.task_id)).workspace
        verdict = await recheck_checkpoint(verifier, lambda: workspace_of(root), checkpoint)
        if verdict is not None and not verdict.verified:
            reason = verdict.explain()
    if reason is not None:
        message = f"Checkpoint {checkpoint.checkpoint_id} can't be resumed from: {reason}"
        raise errors.CheckpointNotFoundError(message)


def _done_before(store: Store, item: ItemRecord) -> list[str]:
    """Return the items that a fork takes over as done: all that the item builds on."""
    edges = store.read(verbs.list_edges(item.task_id))
    found = {
        each.item_id
        for each in store.read(verbs.list_items(item.task_id))
        if each.item_id == PLAN != item.item_id and each.status is ItemStatus.SUCCEEDED
    }  # the plan is pinned: it isn't made anew
    left = [item.item_id]
    while left:
        each = left.pop()
        fresh = {after for name, after in edges if name == each} - found
        found |= fresh
        left += fresh
    return sorted(found)


def _refuse_repeats(
    store: Store, item: ItemRecord, checkpoint: Checkpoint, before: list[str]
) -> None:
    made: list[str] = []
    for each in store.read(verbs.list_items(item.task_id)):
        if each.item_id not in before:
            after = checkpoint.journal_seq if each.item_id == item.item_id else 0
            made += _once_calls(store, each, after)
    if made:
        message = (
            f"After {checkpoint.checkpoint_id} the original made calls that must not be repeated "
            f"silently: {', '.join(made)}. Nothing was made. If they may be made again: "
            f"--allow-repeat."
        )
        raise errors.UsageError(message, calls=made)


def _once_calls(store: Store, item: ItemRecord, after: int) -> list[str]:
    """Name the `once` calls of an item behind an entry, and those of children it made there."""
    entries = store.read(verbs.read_journal(item.task_id, item.item_id, after))
    released = {entry.ref for entry in entries if entry.status is EntryStatus.RELEASED}
    made: list[str] = []
    for entry in entries:
        if entry.ref is not None:
            continue
        if entry.effect is Effect.ONCE and entry.seq not in released:
            made.append(f"{entry.name} ({item.task_id}:{item.item_id}:{entry.seq})")
        elif entry.kind is EntryKind.CHILD:
            made += _once_calls_of_child(store, item, entry)
    return made


def _once_calls_of_child(store: Store, item: ItemRecord, entry: Entry) -> list[str]:
    child = str(decode_payload(store, item.task_id, entry.request or b""))
    return [
        call for each in store.read(verbs.list_items(child)) for call in _once_calls(store, each, 0)
    ]
