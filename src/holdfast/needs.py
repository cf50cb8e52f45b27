"""What a task needs from a person before all of it can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from holdfast.models import ApprovalRecord, ItemRecord
from holdfast.states import FINAL_TASK, EntryKind, EntryStatus, ItemStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload


class Need(msgspec.Struct, frozen=True):
    """One thing a person is needed for.

    Args:
        text: the command to run, and why.
        entry: the call in doubt that is to be resolved, or the approval that is asked for, as
            `task:item:number`; None for anything else.
    """

    text: str
    entry: str | None = None


def find_needs(store: Store, task_id: str) -> list[Need]:
    """Return what a task and those below it need from a person."""
    return list(dict.fromkeys(_needs(store, task_id)))


def _needs(store: Store, task_id: str) -> Iterator[Need]:
    for item in store.read(verbs.list_items(task_id)):
        wait = _wait_of(item)
        if item.status is ItemStatus.IN_DOUBT or wait.get("doubts"):
            yield from _doubts_of(store, item)
        for seq in wait.get("approvals") or ():
            found = store.read(verbs.get_approval(task_id, item.item_id, seq))
            if found is not None:
                yield _approval(found)
        if root_id := wait.get("budget"):
            yield _budget(store, root_id, item)
        if item.status is ItemStatus.QUARANTINED:
            text = f"holdfast retry {task_id}: {item.item_id} is quarantined: {item.error}"
            yield Need(text)
    for child in store.read(verbs.list_children(task_id)):
        if child.status not in FINAL_TASK:
            yield from _needs(store, child.task_id)


def _wait_of(item: ItemRecord) -> dict[str, Any]:
    """Return what an item waits for, alone or beside something else."""
    if item.status is ItemStatus.WAITING and item.wait:
        return cast("dict[str, Any]", json.loads(item.wait))
    return {}


def _approval(found: ApprovalRecord) -> Need:
    about = f": {found.text}" if found.text else ""
    return Need(
        f"holdfast approve {found.entry}: {found.name} waits for an approval{about}", found.entry
    )


def _budget(store: Store, root_id: str, item: ItemRecord) -> Need:
    found = store.read(verbs.get_budget(root_id))
    tokens = " --add-tokens N" if found is None or found.token_limit is not None else ""
    cost = " --add-cost USD" if found is None or found.nano_limit is not None else ""
    why = item.error or "too little is left"
    return Need(f"holdfast budget {root_id}{tokens}{cost}: {item.item_id} waits: {why}")


def _doubts_of(store: Store, item: ItemRecord) -> list[Need]:
    names: dict[int, str] = {}
    reasons: dict[int, bytes | None] = {}
    for entry in store.read(verbs.read_journal(item.task_id, item.item_id)):
        if entry.kind is EntryKind.MARKER:
            continue
        seq = entry.ref or entry.seq
        names.setdefault(seq, entry.name)
        reasons.pop(seq, None)
        if entry.status is EntryStatus.DOUBT:
            reasons[seq] = entry.outcome
    return [_doubt(store, item, seq, names[seq], reasons[seq]) for seq in sorted(reasons)]


def _doubt(store: Store, item: ItemRecord, seq: int, name: str, reason: bytes | None) -> Need:
    entry = f"{item.task_id}:{item.item_id}:{seq}"
    why = "in doubt" if reason is None else decode_payload(store, item.task_id, reason)
    return Need(f"holdfast resolve {entry}: {name} (entry {entry}): {why}", entry)
