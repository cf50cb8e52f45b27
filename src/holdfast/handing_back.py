"""Handing back an item that nobody executes any more, with what this process knows of its calls.

Whoever takes the item over can't see into this process. It would have to leave every open `once`
call to a person for as long as this process lives, although it was never begun, or is over.
"""

from __future__ import annotations

from typing import cast

from holdfast import errors
from holdfast.calls import may_run
from holdfast.doubts import Request
from holdfast.entries import Draft, addition, settling
from holdfast.liveness import is_ours
from holdfast.models import Entry, Lease
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload, encode_payload

OVER = "its attempt ended before its outcome was recorded"


async def hand_back(store: Store, lease: Lease, pause: float = 0.0) -> None:
    """Give a lease back, wherever the journal stands.

    First the open `once` calls that this process began, and can't be inside any more, are recorded
    as over: then a reconcile that says *not done* is believed. A crash in between leaves them to a
    person.

    Args:
        store: the database.
        lease: what is given back.
        pause: seconds before the item is offered again.

    Raises:
        LeaseLostError: it was taken back already.
        StoreError: the database failed; the item is handed back later, or taken back.
    """
    await _note_what_is_over(store, lease)
    now = store.now()
    await store.commit(verbs.abandon_lease(lease, now, now + pause if pause else None))


async def _note_what_is_over(store: Store, lease: Lease) -> None:
    item = await store.beside(lambda: store.read(verbs.get_item(lease.task_id, lease.item_id)))
    if item is None or not item.seq:
        return
    entries = await store.beside(
        lambda: store.read(verbs.read_journal(lease.task_id, lease.item_id))
    )
    drafts = [_over(call) for call in _open_calls(entries) if _is_over(store, lease, call)]
    if drafts:
        now = store.now()
        append = addition(drafts, item.seq, item.chain_head, attempt=item.attempts, now=now)
        await store.commit(verbs.append_entries(lease, append, now))


def _open_calls(entries: list[Entry]) -> list[Entry]:
    """Return the intents of `once` calls whose outcome isn't known, nor that they are over."""
    calls: dict[int, Entry] = {}
    for entry in entries:
        if entry.kind is EntryKind.MARKER:
            continue
        if entry.ref is None:
            if entry.effect is Effect.ONCE and entry.status is EntryStatus.STARTED:
                calls[entry.seq] = entry
        elif entry.status is not EntryStatus.DOUBT or entry.keyed:
            calls.pop(entry.ref, None)
    return list(calls.values())


def _is_over(store: Store, lease: Lease, call: Entry) -> bool:
    try:
        request = cast("Request", decode_payload(store, lease.task_id, call.request or b""))
    except errors.DecodingError:
        return False  # such as of a type that only another program has
    return is_ours(request.worker) and not may_run(request.idempotency_key)


def _over(call: Entry) -> Draft:
    draft = settling(call, EntryStatus.DOUBT, encode_payload(OVER))
    draft.keyed = True
    return draft
