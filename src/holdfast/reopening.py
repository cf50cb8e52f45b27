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
from holdfast.models import Entry, ItemRecord
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


async def reopen(store: Store, task_id: str, item_ids: Iterable[str], reason: str) -> bool:
    """Reopen items whose evidence failed, and everything that depends on them.

    One transaction; a crash leaves all or nothing of it. Returns False when the items kept moving.

    Args:
        store: the database.
        task_id: of the task.
        item_ids: the items whose own evidence failed.
        reason: for the timeline.
    """
    roots = frozenset(item_ids)
    for tried in range(_TRIES):
        reopenings = _decide(store, task_id, roots)
        if await store.commit(
            verbs.reopen_items(task_id, reopenings, redact(reason), LIMIT, store.now())
        ):
            return True
        await asyncio.sleep(_PAUSE * tried)
    return False


def _decide(store: Store, task_id: str, roots: frozenset[str]) -> list[Reopening]:
    items = {item.item_id: item for item in store.read(verbs.list_items(task_id))}
    direct = {name for name, after in store.read(verbs.list_edges(task_id)) if after in roots}
    below = store.read(verbs.dependents_of(task_id, sorted(roots)))
    found = [*(items[name] for name in sorted(roots) if name in items), *below]
    now = store.now()
    return [
        Reopening(
            item,
            _redo_marker(item, now),
            root=item.item_id in roots,
            must_run=item.item_id in roots | direct,
        )
        for item in found
        if item.status in _TAKEN_BACK
    ]


def _redo_marker(item: ItemRecord, now: float) -> Entry:
    draft = marker(MarkerKind.REDO)
    return place(draft, item.seq + 1, item.chain_head, attempt=item.attempts, now=now)


def doubt_about(entry_seq: int, name: str, identity: bytes, text: str) -> Draft:
    """Return a draft that puts a recorded effect in doubt after all."""
    return Draft(
        EntryKind.TOOL, name, identity, EntryStatus.DOUBT, ref=entry_seq,
        outcome=make_payload(codec.encode(redact(text))), keyed=True,
    )  # fmt: skip
