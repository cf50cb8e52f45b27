"""Handing back an item that nobody executes any more, with what this process knows of its calls.

Whoever takes the item over can't see into this process. It would have to leave every open `once`
call to a person for as long as this process lives, although it was never begun, or is over.
"""

from __future__ import annotations

from typing import cast

from holdfast import errors
from holdfast.doubts import Request, is_over_here, over
from holdfast.entries import Recorded
from holdfast.journal import Journal
from holdfast.models import Claimed, Lease
from holdfast.states import EntryStatus
from holdfast.store import Store, verbs

OVER = "its attempt ended before its outcome was recorded"


async def hand_back(store: Store, lease: Lease, pause: float = 0.0) -> None:
    """Give a lease back.

    First the open `once` calls that this process began, and can't be inside any more, are recorded
    as over: then a reconcile that says *not done* is believed. A crash in between leaves them to a
    person. An intent whose commit was unknown may still land behind what was read, for instance
    when a standby comes back; then the lease is kept for another try.

    Args:
        store: the database.
        lease: what is given back.
        pause: seconds before the item is offered again.

    Raises:
        LeaseLostError: it was taken back already.
        StoreError: the database failed; the item is handed back later, or taken back.
    """
    seq = await _note_what_is_over(store, lease)
    now = store.now()
    await store.commit(verbs.abandon_lease(lease, now, now + pause if pause else None, seq=seq))


async def _note_what_is_over(store: Store, lease: Lease) -> int | None:
    """Return where the journal ends now."""
    item, task = await store.beside(
        lambda: (
            store.read(verbs.get_item(lease.task_id, lease.item_id)),
            store.read(verbs.get_task(lease.task_id)),
        )
    )
    if item is None or not item.seq:
        return None if item is None else item.seq
    journal = Journal(store, Claimed(lease, item, task))
    try:
        await store.beside(journal.load_kept)
    except errors.ChainBrokenError:
        return item.seq  # the next attempt says so
    for call in journal.in_doubt():
        if _is_over(journal, call):
            await journal.record(over(call, OVER))
    return journal.seq


def _is_over(journal: Journal, call: Recorded) -> bool:
    """Say whether this process began a call, and can't be inside it any more; not if that is known.

    A call that was put in doubt before it began names nobody who would make it.
    """
    if call.entry.status is not EntryStatus.STARTED or call.last.keyed:
        return False
    try:
        request = cast("Request", journal.decode(call.entry.request))
    except errors.DecodingError:
        return False  # such as of a type that only another program has
    return is_over_here(request)
