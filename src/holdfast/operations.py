"""What people and programs do to tasks that exist: none of it needs their code.

Everything here is one transaction of the store each; a crash leaves it done or not done.
"""

from __future__ import annotations

import asyncio
import math
import os
import pwd
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from holdfast import codec, error_codec, errors
from holdfast.cron import Cron
from holdfast.entries import Draft, addition, marker, verify_chain
from holdfast.ids import new_id
from holdfast.models import ApprovalRecord, BudgetRecord, Entry, ItemRecord, Task, nanos_of
from holdfast.needs import find_needs
from holdfast.redaction import redact
from holdfast.states import Effect, EntryKind, EntryStatus, ItemStatus, MarkerKind, TaskStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import REFERENCE, encode_payload, load_payload, make_payload
from holdfast.store.verbs import Append, Decision

Resolution = Literal["done", "retry", "new", "fail"]
ScheduleChange = Literal["pause", "resume", "run", "remove"]

MOST = 1_000_000_000
"""The highest limit of a queue."""

_TRIES = 20
_PAUSE = 0.005


def find_task(store: Store, named: str) -> Task:
    """Return the task of that id, or the only one whose id starts or ends so.

    Raises:
        TaskNotFoundError: none does, or several do.
    """
    found = store.read(verbs.find_tasks(named)) if named else []
    if named in found or len(found) == 1:
        return store.read(verbs.get_task(named if named in found else found[0]))
    what = "No task is" if not found else f"{len(found)} tasks are"
    message = f"{what} named {named!r}. `holdfast tasks` lists what there is."
    raise errors.TaskNotFoundError(message, task_id=named)


async def cancel(store: Store, task_id: str, reason: str = "canceled by a person") -> list[str]:
    """Cancel a task and everything below it; returns the tasks that were still going.

    What runs is told to stop and its `finally` blocks run; it is canceled when they have.
    """
    return await store.commit(verbs.cancel_task(task_id, redact(reason), store.now()))


async def retry(store: Store, task_id: str) -> int:
    """Make what failed, was skipped or quarantined runnable again; returns how many items.

    Outputs that were recorded answer as before; only what failed is called again.

    Raises:
        UsageError: the task succeeded or was canceled.
    """
    if store.read(verbs.get_task(task_id)).status not in {
        TaskStatus.SUCCEEDED,
        TaskStatus.CANCELED,
    }:
        for item in store.read(verbs.list_items(task_id)):
            if item.status in {ItemStatus.FAILED, ItemStatus.QUARANTINED}:
                await _forget_failures(store, item)
    return await store.commit(verbs.retry_task(task_id, store.now()))


async def _forget_failures(store: Store, item: ItemRecord) -> None:
    """Let the recorded failures of an item that failed be called anew.

    Those of `once` calls stand: what failed there may have happened. One that said it had no effect
    was marked when it ended its attempt.
    """
    entries = store.read(verbs.read_journal(item.task_id, item.item_id))
    marked = {entry.ref for entry in entries if entry.kind is EntryKind.MARKER}
    failed = [
        entry.ref or entry.seq
        for entry in entries
        if entry.status is EntryStatus.FAILED
        and entry.effect is not Effect.ONCE
        and (entry.ref or entry.seq) not in marked
    ]
    if failed:
        drafts = [marker(MarkerKind.RETRY, ref=seq) for seq in failed]
        await store.commit(
            verbs.extend_idle(item.task_id, item.item_id, append_to(item, drafts, store.now()))
        )


async def send_signal(store: Store, task_id: str, name: str, payload: object = None) -> None:
    """Put a signal into a task's mailbox; durable when this returns.

    Raises:
        TaskNotFoundError: there is no such task.
        EncodingError: the payload can't be kept as data.
    """
    now = store.now()
    store.read(verbs.get_task(task_id))
    await store.commit(verbs.send_signal(task_id, new_id(now), name, encode_payload(payload), now))


async def add_to_budget(
    store: Store, task_id: str, *, tokens: int = 0, cost: float = 0.0
) -> BudgetRecord:
    """Raise the budget of a task's root, and let go on what waits for it; returns what it is then.

    Args:
        store: the database.
        task_id: a task with a budget, or one below it.
        tokens: how many more.
        cost: how many US dollars more.

    Raises:
        UsageError: it has no such limit, or an amount is negative; nothing was added.
    """
    if not (0 <= tokens < 2**53 and 0 <= cost < 1e9):  # noqa: PLR2004  what whole numbers can count
        message = (
            f"{tokens} tokens and {cost} US dollars can't be added: give amounts of 0 or more."
        )
        raise errors.UsageError(message)
    root_id = store.read(verbs.get_task(task_id)).root_id
    await store.commit(verbs.add_to_budget(root_id, tokens, nanos_of(cost), store.now()))
    return budget_of(store, task_id)


def budget_of(store: Store, task_id: str) -> BudgetRecord:
    """Return the budget of a task's root, and what is spent of it.

    Raises:
        UsageError: it has none.
    """
    root_id = store.read(verbs.get_task(task_id)).root_id
    found = store.read(verbs.get_budget(root_id))
    if found is None:
        message = f"Task {root_id} has no budget. One is given when a task is submitted."
        raise errors.UsageError(message, task_id=root_id)
    return found


# -- consent --------------------------------------------------------------------------------------


async def approve(
    store: Store, entry: str, *, by: str | None = None, reason: str | None = None
) -> None:
    """Let go on what asks for an approval; durable when this returns.

    It holds for exactly the arguments that were asked about, and is used once.

    Args:
        store: the database.
        entry: `task:item:number`.
        by: who approves; this process's user when None.
        reason: for whoever reads it later.

    Raises:
        UsageError: nobody asks for it any more, it was answered, or it has expired.
    """
    await _decide(store, entry, "approved", by, reason)


async def reject(
    store: Store, entry: str, *, by: str | None = None, reason: str | None = None
) -> None:
    """Say no to what asks for an approval: whoever waits sees `ApprovalRejectedError`.

    Raises:
        UsageError: as `approve`.
    """
    await _decide(store, entry, "rejected", by, reason)


async def _decide(
    store: Store, entry: str, status: str, by: str | None, reason: str | None
) -> None:
    task_id, item_id, seq = parse_entry(entry)
    task_id = find_task(store, task_id).task_id
    decision = Decision(
        status, redact(by or _this_user()), None if reason is None else redact(reason)
    )
    await store.commit(verbs.decide_approval(task_id, item_id, seq, decision, store.now()))


def _this_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a user nobody has named
        return f"uid {os.getuid()}"


def approvals_of(store: Store, task_id: str | None = None) -> list[ApprovalRecord]:
    """Return what people are asked now, the oldest first: everything, or by a task and below it."""
    return store.read(verbs.waiting_approvals(task_id))


# -- queues ---------------------------------------------------------------------------------------


async def limit_queue(
    store: Store,
    name: str,
    *,
    running: int | None = None,
    rate: int | None = None,
    per: float = 1.0,
) -> None:
    """Set what a queue allows, for all workers on all machines; durable when this returns.

    It counts for every claim that begins afterwards; what runs goes on. Without any limit the
    queue is unlimited again.

    Args:
        store: the database.
        name: of the queue.
        running: items that may run at once; 0 holds the queue. One that waits doesn't run.
        rate: items that may start within any `per` seconds. An item that goes on after a wait, a
            retry or a crash starts again.
        per: seconds.

    Raises:
        UsageError: a limit makes no sense; nothing was changed.
    """
    if not name:
        message = "A queue needs a name."
        raise errors.UsageError(message)
    if running is not None and running < 0:
        message = f"{running} items can't run at once. Use 0 or more, or None for any number."
        raise errors.UsageError(message)
    if rate is not None and rate < 1:
        message = f"{rate} starts are no rate. Use 1 or more; running=0 holds the queue."
        raise errors.UsageError(message)
    if max(running or 0, rate or 0) > MOST:
        message = f"A limit is at most {MOST:,}; to lift it, don't give it."
        raise errors.UsageError(message)
    if not (math.isfinite(per) and per > 0):
        message = f"A rate is so many starts in so many seconds, more than 0, not {per}."
        raise errors.UsageError(message)
    await store.commit(verbs.limit_queue(name, running, rate, per))


# -- schedules ------------------------------------------------------------------------------------


async def change_schedule(store: Store, name: str, how: ScheduleChange) -> None:
    """Change a schedule for all workers; durable when this returns.

    Args:
        store: the database.
        name: of the schedule.
        how: `pause` (nothing is due any more), `resume` (it is due at its next time; what passed
            meanwhile isn't made up for), `run` (it is due now, beside its times), or `remove` (a
            program that still declares it records it anew when its worker starts).

    Raises:
        UsageError: there is no such schedule, or it is paused and was to run.
    """
    found = [each for each in store.read(verbs.list_schedules()) if each.name == name]
    if not found:
        message = f"No schedule is named {name!r}. `holdfast schedules` lists what there is."
        raise errors.UsageError(message)
    (schedule,) = found
    if how == "run" and schedule.paused:
        message = f"Schedule {name} is paused; nothing was changed. Resume it first."
        raise errors.UsageError(message)
    match how:
        case "remove":
            await store.commit(verbs.remove_schedule(name))
        case "run":
            await store.commit(verbs.set_schedule(name, store.now(), paused=False))
        case "pause":
            await store.commit(verbs.set_schedule(name, schedule.next_at, paused=True))
        case "resume":
            next_at = schedule.next_at
            if schedule.paused:
                next_at = Cron(schedule.cron, schedule.timezone).next_after(store.now())
            await store.commit(verbs.set_schedule(name, next_at, paused=False))


# -- settling what is in doubt --------------------------------------------------------------------


def parse_entry(named: str) -> tuple[str, str, int]:
    """Return (task, item, sequence number) from `task:item:seq`.

    Raises:
        UsageError: it isn't of that form.
    """
    task_id, _, rest = named.partition(":")
    item_id, _, seq = rest.rpartition(":")
    if not (task_id and item_id and seq.isdigit()):
        message = f"{named!r} names no entry. Entries are named task:item:number."
        raise errors.UsageError(message)
    return task_id, item_id, int(seq)


async def resolve(store: Store, entry: str, how: Resolution, value: object = None) -> None:
    """Settle a call in doubt; its item goes on once nothing of it is in doubt.

    Args:
        store: the database.
        entry: `task:item:number`.
        how: `done` (it happened, and returned `value`), `retry` (it did not happen: call it
            again), `new` (an edited handler's new call: let it through), or `fail` (let the
            handler see a failure with the text `value`).
        value: see `how`.

    Raises:
        UsageError: the entry isn't in doubt, or its item is being executed.
    """
    task_id, item_id, seq = parse_entry(entry)
    task_id = find_task(store, task_id).task_id
    for tried in range(_TRIES):
        await asyncio.sleep(_PAUSE * tried)
        item = store.read(verbs.get_item(task_id, item_id))
        doubtful = None if item is None else _doubtful(store, item, seq)
        if item is None or doubtful is None:
            message = f"Entry {entry} is not in doubt; nothing was changed."
            raise errors.UsageError(message)
        draft = _resolution(doubtful, how, value)
        append = append_to(item, [draft], store.now())
        if await store.commit(
            verbs.append_resolution(task_id, item_id, seq, append, how, store.now())
        ):
            return
    message = f"The item of entry {entry} is being executed; try again when it waits."
    raise errors.UsageError(message)


def _doubtful(store: Store, item: ItemRecord, seq: int) -> Entry | None:
    """Return the first entry of a call in doubt; None where `seq` isn't that entry."""
    first: Entry | None = None
    last: Entry | None = None
    for entry in store.read(verbs.read_journal(item.task_id, item.item_id, seq - 1)):
        if entry.seq == seq:
            first = last = entry
        elif entry.ref == seq and entry.kind is not EntryKind.MARKER:
            last = entry
    if first is None or last is None or last.status is not EntryStatus.DOUBT:
        return None
    if first.ref is not None:
        return None  # a note about a call, not the call: settling it would settle nothing
    return first


def _resolution(entry: Entry, how: Resolution, value: object) -> Draft:
    status, outcome = EntryStatus.RELEASED, make_payload(codec.encode(f"a person said {how}"))
    if how == "done":
        status, outcome = EntryStatus.DONE, encode_payload(value)
    elif how == "fail":
        status = EntryStatus.FAILED
        error = errors.CallFailedError(
            str(value or f"a person let {entry.name} fail"), error_type="resolved"
        )
        outcome = make_payload(codec.encode(error_codec.encode_error(error)))
    return Draft(
        entry.kind, entry.name, entry.identity, status, scope=entry.scope, effect=entry.effect,
        ref=entry.seq, outcome=outcome, keyed=how == "fail",
    )  # fmt: skip


def append_to(item: ItemRecord, drafts: list[Draft], now: float) -> Append:
    """Return drafts as an addition to the journal of an item nobody executes."""
    return addition(drafts, item.seq, item.chain_head, attempt=item.attempts, now=now)


def needs_of(store: Store, task_id: str) -> list[str]:
    """Return what a task, and what is below it, needs from a person, a line each."""
    return [need.text for need in find_needs(store, task_id)]


# -- checking -------------------------------------------------------------------------------------


class ChainReport(msgspec.Struct, frozen=True):
    """What checking the journals of a task gave.

    Args:
        entries: how many were checked.
        broken: a line for each chain that doesn't match its entries.
        damaged: a line for each large payload, kept beside the rows, that is missing or isn't
            what its digest says.
    """

    entries: int
    broken: tuple[str, ...]
    damaged: tuple[str, ...] = ()


def verify_chains(store: Store, task_id: str) -> ChainReport:
    """Check the hash chain of every item of a task, from its start or its oldest checkpoint.

    The chain covers payloads by their digests, so those that are kept beside the rows are read
    and compared too.
    """
    task = store.read(verbs.get_task(task_id))
    total, broken = 0, list[str]()
    payloads = [("the task's input", task.input), ("the task's result", task.result)]
    payloads += [
        (f"checkpoint {each.checkpoint_id}", each.state)
        for each in store.read(verbs.list_checkpoints(task_id))
    ]
    for item in store.read(verbs.list_items(task_id)):
        after, anchor = 0, None
        if item.pruned_seq:
            checkpoints = store.read(verbs.list_checkpoints(task_id, item.item_id))
            oldest = min(checkpoints, key=lambda each: each.number)
            after, anchor = oldest.journal_seq, oldest.anchor
        entries = store.read(verbs.read_journal(task_id, item.item_id, after))
        total += len(entries)
        try:
            verify_chain(entries, anchor, item.chain_head, item)
        except errors.ChainBrokenError as error:
            broken.append(str(error))
        payloads += [
            (f"the {part} of item {item.item_id}", data)
            for part, data in (("input", item.input), ("result", item.result))
        ]
        payloads += [
            (f"entry {task_id}:{item.item_id}:{entry.seq}", data)
            for entry in entries
            for data in (entry.request, entry.outcome)
            if data is not None and data[:1] == REFERENCE
        ]
    return ChainReport(total, tuple(broken), tuple(_damaged(store, task_id, payloads)))


def _damaged(
    store: Store, task_id: str, payloads: Iterable[tuple[str, bytes | None]]
) -> Iterator[str]:
    for name, column in payloads:
        if column is None or column[:1] != REFERENCE:
            continue
        try:
            load_payload(store, task_id, column)
        except errors.DecodingError:
            yield f"What is stored for {name} is missing or damaged."
