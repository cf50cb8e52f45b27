"""Gathers all that is recorded about one task, as plain data; `show` prints it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.cli.following import event_data
from holdfast.cli.payloads import load_value, outcome_of
from holdfast.cli.tasks import summary
from holdfast.evidence import EvidencePack, Verdict
from holdfast.models import Checkpoint, Entry, Event, ItemRecord, Task
from holdfast.operations import needs_of
from holdfast.states import EntryKind, EntryStatus, ItemStatus, MarkerKind
from holdfast.store import Store, verbs
from holdfast.usage import Usage

Document = dict[str, Any]

_VERIFIED = "verified"


def task_report(store: Store, task: Task, *, payloads: bool) -> Document:
    """Return everything about a task.

    Args:
        store: the database.
        task: which.
        payloads: also what every call was given and gave.
    """
    task_id = task.task_id
    items = store.read(verbs.list_items(task_id))
    journals = {
        item.item_id: store.read(verbs.read_journal(task_id, item.item_id)) for item in items
    }
    events = store.read(verbs.list_events(task_id))
    checkpoints = store.read(verbs.list_checkpoints(task_id))
    surroundings = _Surroundings(store.read(verbs.list_edges(task_id)), checkpoints, events)
    calls = {
        name: _calls(store, task_id, name, found, payloads=payloads)
        for name, found in journals.items()
    }
    return {
        "task": _task(store, task),
        "items": [
            _item(store, item, calls[item.item_id], surroundings, payloads=payloads)
            for item in items
        ],
        "calls": [call for name in journals for call in calls[name]],
        "checkpoints": [_checkpoint(each) for each in checkpoints],
        "events": [
            {"at": e.at, "item_id": e.item_id, "type": e.type, "data": event_data(e)}
            for e in events
        ],
        "children": [summary(child) for child in store.read(verbs.list_children(task_id))],
    }


def _task(store: Store, task: Task) -> Document:
    return {
        **summary(task),
        "workspace": task.workspace,
        "require_evidence": task.require_evidence,
        "input": load_value(store, task.task_id, task.input),
        "result": load_value(store, task.task_id, task.result),
        "needs": needs_of(store, task.task_id),
    }


# -- items ----------------------------------------------------------------------------------------


class _Surroundings:
    """What belongs to each item, found once for all of them."""

    def __init__(
        self,
        edges: Sequence[tuple[str, str]],
        checkpoints: Sequence[Checkpoint],
        events: Sequence[Event],
    ) -> None:
        self.after: defaultdict[str, list[str]] = defaultdict(list)
        for item_id, after in sorted(edges):
            self.after[item_id].append(after)
        self.checkpoints: defaultdict[str, list[Checkpoint]] = defaultdict(list)
        for checkpoint in checkpoints:
            self.checkpoints[checkpoint.item_id].append(checkpoint)
        self.ended = {
            event.item_id: event_data(event) for event in events if event.type == "item_succeeded"
        }


def _item(
    store: Store,
    item: ItemRecord,
    calls: Sequence[Document],
    surroundings: _Surroundings,
    *,
    payloads: bool,
) -> Document:
    costs = [call["cost"] for call in calls if call["cost"] is not None]
    made = [call for call in calls if call["kind"] not in _NO_CALL]
    own = surroundings.checkpoints[item.item_id]
    last = surroundings.ended.get(item.item_id, {})
    document: Document = {
        "item_id": item.item_id,
        "handler": item.handler,
        "status": item.status,
        "standing": standing(item),
        "after": surroundings.after[item.item_id],
        "attempts": item.attempts,
        "failures": item.failures,
        "crashes": item.crashes,
        "reopened": item.generation,
        "worker": item.lease_owner,
        "waits_for": None if item.wait is None else _json(item.wait),
        "wake_at": item.wake_at,
        "error": item.error,
        "calls": len(made),
        "executed": sum(call["executed"] for call in made),
        "replayed": last.get("replayed"),
        "entries": item.seq,
        "pruned_until": item.pruned_seq,
        "checkpoints": len(own),
        "verified_checkpoints": sum(each.status == _VERIFIED for each in own),
        "input_tokens": sum(call["input_tokens"] for call in calls),
        "output_tokens": sum(call["output_tokens"] for call in calls),
        "cost": sum(costs) if costs else None,
        "started_at": item.started_at,
        "finished_at": item.finished_at,
    }
    if payloads:
        document["input"] = load_value(store, item.task_id, item.input)
        document["result"] = load_value(store, item.task_id, item.result)
    return document


def standing(item: ItemRecord) -> str:
    """Return an item's status, and for one that succeeded whether that is proven."""
    if item.status is not ItemStatus.SUCCEEDED:
        return item.status.value
    return "succeeded, proven" if item.proven else "succeeded, recorded not proven"


def _json(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


# -- calls ----------------------------------------------------------------------------------------


def _calls(
    store: Store, task_id: str, item_id: str, entries: Sequence[Entry], *, payloads: bool
) -> list[Document]:
    """Return the calls of an item: an intent and what is known of its outcome are one."""
    present = {entry.seq for entry in entries}
    outcomes: dict[int, Entry] = {}
    for entry in entries:
        if entry.ref is not None and entry.kind is not EntryKind.MARKER:
            outcomes[entry.ref] = entry
    doubted = {entry.ref or entry.seq for entry in entries if entry.status is EntryStatus.DOUBT}
    calls: list[Document] = []
    for entry in entries:
        if outcomes.get(entry.ref or 0) is not None and entry.ref in present:
            continue  # shown with the intent that it settles
        outcome = outcomes.get(entry.seq, entry)
        settled = outcome.status is not EntryStatus.DOUBT and entry.seq in doubted
        calls.append(_call(task_id, item_id, entry, outcome, settled=settled))
        if payloads:
            calls[-1]["request"] = load_value(store, task_id, entry.request)
            calls[-1]["outcome"] = outcome_of(store, task_id, outcome)
    return calls


def _call(task_id: str, item_id: str, entry: Entry, outcome: Entry, *, settled: bool) -> Document:
    usage = _usage(outcome.usage)
    return {
        "entry": f"{task_id}:{item_id}:{entry.seq}",
        "item_id": item_id,
        "seq": entry.seq,
        "at": entry.at,
        "kind": entry.kind,
        "name": entry.name,
        "scope": entry.scope,
        "effect": entry.effect,
        "status": outcome.status,
        "meaning": meaning(entry, outcome, settled=settled),
        "executed": _was_executed(entry, outcome),
        "keyed": entry.keyed or outcome.keyed,
        "attempt": entry.attempt,
        "settled_in_attempt": outcome.attempt,
        "seconds": outcome.micros / 1e6,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": usage.cost,
        "reused": usage.reused,
        "marks": entry.ref if entry.kind is EntryKind.MARKER else None,
    }


def _usage(data: bytes | None) -> Usage:
    try:
        return Usage.decode(data)
    except msgspec.DecodeError:
        return Usage()


_MEANINGS: Mapping[EntryStatus, str] = {
    EntryStatus.STARTED: "started, outcome not recorded",
    EntryStatus.DONE: "executed, recorded",
    EntryStatus.FAILED: "executed, failed, recorded",
    EntryStatus.DOUBT: "in doubt",
    EntryStatus.RELEASED: "did not happen; may be called again",
}
_OF_MODELS = {
    **_MEANINGS,
    EntryStatus.RELEASED: "refused for now, or its answer was lost; made anew",
}
_OF_APPROVALS = {
    **_MEANINGS,
    EntryStatus.STARTED: "asked for",
    EntryStatus.DONE: "approved, used",
    EntryStatus.FAILED: "rejected, or expired",
}
_SETTLED: Mapping[EntryStatus, str] = {
    EntryStatus.STARTED: "was in doubt, started again",
    EntryStatus.DONE: "was in doubt, settled: it happened",
    EntryStatus.FAILED: "was in doubt, settled: a failure",
    EntryStatus.RELEASED: "was in doubt, settled: it did not happen; may be called again",
}
_MARKED: Mapping[MarkerKind, str] = {
    MarkerKind.RETRY: "the failure that ended the attempt no longer answers",
    MarkerKind.REDO: "earlier reads and naturally idempotent calls no longer answer",
    MarkerKind.REGENERATE: "as redo, and earlier LLM outputs no longer answer either",
}
_CALLED = frozenset({EntryKind.LLM, EntryKind.TOOL, EntryKind.STEP})
_NO_CALL = frozenset({EntryKind.CHECKPOINT, EntryKind.MARKER, EntryKind.APPROVAL})


def _was_executed(entry: Entry, outcome: Entry) -> bool:
    """Return whether the call left the journal: it was made, or may have been."""
    released = outcome.status is EntryStatus.RELEASED
    return entry.kind in _CALLED and not released and not _usage(outcome.usage).reused


def meaning(entry: Entry, outcome: Entry, *, settled: bool = False) -> str:
    """Return in words what is known about a call; `settled` if it was in doubt."""
    if settled:
        return _SETTLED[outcome.status]
    if entry.kind is EntryKind.MARKER:
        return _MARKED[MarkerKind(entry.name)]
    if outcome.status is EntryStatus.DONE and entry.kind not in _CALLED | {EntryKind.APPROVAL}:
        return "recorded"
    if outcome.status is EntryStatus.DONE and _usage(outcome.usage).reused:
        return "taken from the cache, recorded"
    if outcome.status is EntryStatus.DONE and outcome.attempt != entry.attempt:
        return "executed, settled later"
    known = {EntryKind.LLM: _OF_MODELS, EntryKind.APPROVAL: _OF_APPROVALS}
    return known.get(entry.kind, _MEANINGS)[outcome.status]


# -- checkpoints ----------------------------------------------------------------------------------


def _checkpoint(checkpoint: Checkpoint) -> Document:
    return {
        "checkpoint": checkpoint.checkpoint_id,
        "item_id": checkpoint.item_id,
        "number": checkpoint.number,
        "type": checkpoint.type,
        "status": checkpoint.status,
        "at": checkpoint.created_at,
        "verified_at": checkpoint.verified_at,
        "seconds": checkpoint.seconds,
        "journal_seq": checkpoint.journal_seq,
        "evidence": _evidence(checkpoint),
    }


def _evidence(checkpoint: Checkpoint) -> list[Document]:
    try:
        pack = msgspec.msgpack.decode(checkpoint.pack, type=EvidencePack)
        verdicts = msgspec.msgpack.decode(checkpoint.verdicts, type=tuple[Verdict, ...])
    except (msgspec.DecodeError, ValueError):
        return [{"subject": "?", "verdict": "error", "detail": "can't be read"}]
    return [
        {"subject": claim.subject, "verdict": found.status, "detail": found.detail}
        for claim, found in zip(pack.items, verdicts, strict=False)
    ]
