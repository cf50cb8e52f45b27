"""Taking done work back because evidence of it no longer holds.

Like an out-of-date target in `make`: the item whose evidence failed is done again, keeping what
must not be repeated, and so is what comes directly after it. What comes later is done again only
where a result on the way came out different.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast import codec
from holdfast.entries import Draft, marker, place
from holdfast.models import Entry, ItemRecord, Lease
from holdfast.redaction import redact
from holdfast.states import EntryKind, EntryStatus, ItemStatus, MarkerKind
from holdfast.store import Store, verbs
from holdfast.store.payload import make_payload
from holdfast.store.verbs import Reopening

LIMIT = 2
"""Times an item is reopened before a person is asked."""

_TRIES = 20
_PAUSE = 0.005

_TAKEN_BACK = frozenset(
    {
        ItemStatus.SUCCEEDED,
        ItemStatus.RUNNING,
        ItemStatus.READY,
        ItemStatus.WAITING,
        ItemStatus.IN_DOUBT,
    }
)


async def reopen(
    store: Store,
    task_id: str,
    item_ids: Iterable[str],
    reason: str,
    lease: Lease | None = None,
) -> bool:
    """Reopen items whose evidence failed, and everything that depends on them.

    One transaction; a crash leaves all or nothing of it. Returns False when the items kept moving.
    Several may find the same evidence failed at the same time: what one has reopened, the others
    leave alone.

    Args:
        store: the database.
        task_id: of the task.
        item_ids: the items whose own evidence failed; those that have not succeeded are done
            anyway.
        reason: for the timeline.
        lease: under which it was found; once that was revoked, nothing is reopened.
    """
    roots = frozenset(item_ids)
    for tried in range(_TRIES):
        reopenings = _decide(store, task_id, roots, lease)
        if not reopenings:
            return True
        if await store.commit(
            verbs.reopen_items(task_id, reopenings, redact(reason), LIMIT, store.now())
        ):
            return True
        await asyncio.sleep(_PAUSE * tried)
    return False


def _decide(
    store: Store, task_id: str, failed: frozenset[str], lease: Lease | None
) -> list[Reopening]:
    items = {item.item_id: item for item in store.read(verbs.list_items(task_id))}
    if lease is not None and not _holds(lease, items[lease.item_id]):
        return []
    roots = {name for name in failed if items[name].status is ItemStatus.SUCCEEDED}
    if not roots:
        return []
    direct = {name for name, after in store.read(verbs.list_edges(task_id)) if after in roots}
    below = store.read(verbs.dependents_of(task_id, sorted(roots)))
    found = [*(items[name] for name in sorted(roots)), *below]
    now = store.now()
    return [
        Reopening(
            item,
            _redo_marker(item, now),
            root=item.item_id in roots,
            must_run=item.item_id in failed | direct,
        )
        for item in found
        if item.status in _TAKEN_BACK
    ]


def _holds(lease: Lease, item: ItemRecord) -> bool:
    return item.status is ItemStatus.RUNNING and item.lease_token == lease.token


def _redo_marker(item: ItemRecord, now: float) -> Entry:
    draft = marker(MarkerKind.REDO)
    return place(draft, item.seq + 1, item.chain_head, attempt=item.attempts, now=now)


def doubt_about(entry_seq: int, name: str, identity: bytes, text: str) -> Draft:
    """Return a draft that puts a recorded effect in doubt after all."""
    return Draft(
        EntryKind.TOOL, name, identity, EntryStatus.DOUBT, ref=entry_seq,
        outcome=make_payload(codec.encode(redact(text))), keyed=True,
    )  # fmt: skip
