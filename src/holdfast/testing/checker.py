"""Compares the world, the journal and the evidence with what is due."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast import operations
from holdfast.doubts import Request
from holdfast.models import Entry, Task
from holdfast.rechecks import recheck_claims, workspace_of
from holdfast.states import EntryKind, EntryStatus
from holdfast.store import Store, open_store, verbs
from holdfast.store.payload import decode_payload
from holdfast.testing.reference import DUE_OUTBOX, DUE_PROMPTS, DUE_RECORDS, NOTES
from holdfast.testing.world import ACKNOWLEDGED, OUTBOX, PROVIDER, RECORDS, World
from holdfast.verifiers import EvidenceVerifier


class Call(msgspec.Struct, frozen=True):
    """One call as the journal has it at the end. `key` and `what` are those of a `once` call."""

    entry: str
    kind: str
    name: str
    status: str
    value: Any = None
    what: str = ""
    key: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a database says about its tasks, as plain data."""

    tasks: dict[str, str] = {}
    items: dict[str, str] = {}
    calls: list[Call] = []
    broken: list[str] = []
    refuted: list[str] = []
    refused: int = 0

    def doubts(self) -> set[str]:
        """Return the entries of the calls that are in doubt."""
        return {call.entry for call in self.calls if call.status == EntryStatus.DOUBT}


def take_snapshot(url: str) -> Snapshot:
    """Read a database that nobody may be writing, with its evidence checked."""
    store = open_store(url)
    try:
        tasks = store.read(verbs.list_tasks(None, 1000))
        return Snapshot(
            {task.name: task.status for task in tasks},
            {
                f"{task.name}/{item.item_id}": item.status
                for task in tasks
                for item in store.read(verbs.list_items(task.task_id))
            },
            [call for task in tasks for call in calls_of(store, task)],
            [
                text
                for task in tasks
                for found in [operations.verify_chains(store, task.task_id)]
                for text in (*found.broken, *found.damaged)
            ],
            [text for task in tasks for text in _refuted(store, task)],
            _refused(store, tasks),
        )
    finally:
        store.close()


def count_refused(url: str) -> int:
    """Return how many events say that a write was refused. Waits for no lock."""
    store = open_store(url)
    try:
        return _refused(store, store.read(verbs.list_tasks(None, 1000)))
    finally:
        store.close()


def _refused(store: Store, tasks: Iterable[Task]) -> int:
    return sum(
        event.type == "write_refused"
        for task in tasks
        for event in store.read(verbs.list_events(task.task_id))
    )


def calls_of(store: Store, task: Task) -> list[Call]:
    """Return every call of a task as its journal has it."""
    calls: list[Call] = []
    for item in store.read(verbs.list_items(task.task_id)):
        last: dict[int, Entry] = {}
        first: dict[int, Entry] = {}
        for entry in store.read(verbs.read_journal(task.task_id, item.item_id)):
            if entry.kind is not EntryKind.MARKER:
                last[entry.ref or entry.seq] = entry
                first.setdefault(entry.ref or entry.seq, entry)
        for seq, entry in last.items():
            calls.append(_call(store, task.task_id, f"{item.item_id}:{seq}", first[seq], entry))
    return calls


def _call(store: Store, task_id: str, where: str, first: Entry, last: Entry) -> Call:
    value = None
    if last.outcome is not None:
        value = decode_payload(store, task_id, last.outcome)
    request = None if first.request is None else decode_payload(store, task_id, first.request)
    what = key = ""
    if isinstance(request, Request):
        what, key = _what(first.name, request.arguments), request.idempotency_key
    shown = value if isinstance(value, str | int) else repr(value)
    return Call(f"{task_id}:{where}", first.kind, first.name, last.status, shown, what, key)


def _what(tool: str, arguments: dict[str, Any]) -> str:
    """Return the line a `once` tool of the reference task writes."""
    return f"{tool.rpartition('_')[2]}:{next(iter(arguments.values()))}"


def _refuted(store: Store, task: Task) -> list[str]:
    found = asyncio.run(
        recheck_claims(
            store, EvidenceVerifier(), lambda: workspace_of(task.workspace), task.task_id
        )
    )
    return [found.explain()] if found.failed or found.unavailable else []


# -- what is due ----------------------------------------------------------------------------------


def check(world: World, snapshot: Snapshot, crashed: Iterable[int]) -> list[str]:
    """Return what is wrong after the task has ended; nothing when every promise was kept.

    Args:
        world: where the effects went.
        snapshot: what the database says.
        crashed: the processes that were killed or stopped: what a crash may cost is theirs alone.
    """
    return [
        *_check_states(snapshot),
        *_check_once(world, snapshot),
        *_check_records(world),
        *_check_paid(world, snapshot, set(crashed)),
        *_check_acknowledged(world, snapshot),
        *(f"chain: {text}" for text in snapshot.broken),
        *(f"evidence: {text}" for text in snapshot.refuted),
    ]


def check_not_repeated(world: World) -> list[str]:
    """Return what was sent more than once: true at any moment, not only at the end."""
    sent = Counter(line["what"] for line in world.lines(OUTBOX))
    return [f"repeated: {what} was sent {n} times" for what, n in sent.items() if n > 1]


def _check_states(snapshot: Snapshot) -> list[str]:
    stuck = {**snapshot.tasks, **snapshot.items}
    return [f"stuck: {name} is {status}" for name, status in stuck.items() if status != "succeeded"]


def _check_once(world: World, snapshot: Snapshot) -> list[str]:
    lines = world.lines(OUTBOX)
    wrong = check_not_repeated(world)
    sent = {line["what"]: line["key"] for line in lines}
    wrong += [f"lost: {what} was not sent" for what in DUE_OUTBOX if what not in sent]
    wrong += [f"not due: {what} was sent" for what in sent if what not in DUE_OUTBOX]
    done = {call.what: call.key for call in snapshot.calls if call.what and call.status == "done"}
    for what, key in sent.items():
        if done.get(what) != key:
            wrong.append(f"lost: {what} was sent under {key}, the journal has {done.get(what)}")
    return wrong


def _check_records(world: World) -> list[str]:
    keys: dict[str, set[str]] = {}
    for line in world.lines(RECORDS):
        keys.setdefault(line["what"], set()).add(line["key"])
    wrong = [f"lost: {what} was not put" for what in DUE_RECORDS if what not in keys]
    return wrong + [
        f"repeated: {what} was put under {len(used)} idempotency keys"
        for what, used in keys.items()
        if len(used) > 1
    ]


def _check_paid(world: World, snapshot: Snapshot, crashed: set[int]) -> list[str]:
    kept = {call.value for call in snapshot.calls if call.kind == EntryKind.LLM}
    paid = world.lines(PROVIDER)
    wrong = [f"lost: the output {output!r} was never paid for" for output in kept]
    wrong = [] if kept <= {line["output"] for line in paid} else wrong
    asked = Counter(line["what"] for line in paid if line["output"] in kept)
    if asked != Counter(DUE_PROMPTS):
        wrong.append(f"lost: recorded outputs are {dict(asked)}")
    vain = Counter(line["pid"] for line in paid if line["output"] not in kept)
    wrong += [
        f"paid again: {line['what']} by {line['pid']}, which didn't crash"
        for line in paid
        if line["output"] not in kept and line["pid"] not in crashed
    ]
    return wrong + [
        f"paid in vain: {n} outputs by {pid}, one crash loses one"
        for pid, n in vain.items()
        if n > 1
    ]


def _check_acknowledged(world: World, snapshot: Snapshot) -> list[str]:
    values: dict[str, list[Any]] = {}
    for line in world.lines(ACKNOWLEDGED):
        known = values.setdefault(line["what"], [])
        if line["value"] not in known:
            known.append(line["value"])
    wrong = [
        f"lost: {what} was acknowledged as {known[0]!r}, later as {known[1]!r}"
        for what, known in values.items()
        if len(known) > 1
    ]
    kept = {call.value for call in snapshot.calls if call.kind == EntryKind.LLM}
    outputs = [v for known in values.values() for v in known if isinstance(v, str) and " #" in v]
    wrong += [
        f"lost: the acknowledged output {output!r} isn't in the journal"
        for output in outputs
        if not any(output.endswith(cast("str", each)) for each in kept)
    ]
    notes = world.root / NOTES
    if values.get("collect:notes") != [_text(notes)]:
        wrong.append(f"evidence: {NOTES} isn't what was acknowledged")
    return wrong


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None
