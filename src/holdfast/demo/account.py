"""What is due compared with what happened.

Nothing here takes Holdfast's word alone: calls that were paid for are counted in the provider's own
log, notifications in the outbox, reports and rows where they were written. The journal says what
was recorded; the two must fit.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from holdfast.demo.inspection import Inspection
from holdfast.demo.job import INDEX, REPORTS, RESULTS, read_outbox
from holdfast.demo.standin import ProviderCall, prompt_digest, provider_calls
from holdfast.models import MAIN, PLAN, Entry, ItemRecord
from holdfast.states import Effect, EntryKind, EntryStatus, TaskStatus
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload
from holdfast.usage import Usage


class Kill(msgspec.Struct, frozen=True):
    """One kill: when (seconds since the start), whom, and which items it was executing."""

    at: float
    worker: str
    pid: int
    items: tuple[str, ...]


class Account(msgspec.Struct):
    """The outcome of a run in numbers, and everything that is wrong with it.

    Args:
        replayed_outputs: outputs, and `replayed_tools` tool calls, that an attempt which came
            after a kill took from the journal; attempts that were killed themselves aren't counted.
        paid_in_vain: calls that were under way when their process was killed: paid, never received.
        paid_again: calls made although their output was recorded. Must be 0.
    """

    modules: int = 0
    audited: int = 0
    proven: int = 0
    quarantined: int = 0
    outputs: int = 0
    paid: int = 0
    paid_in_vain: int = 0
    paid_again: int = 0
    replayed_outputs: int = 0
    executed_tools: int = 0
    replayed_tools: int = 0
    tokens: int = 0
    cost: float = 0.0
    doubtful: int = 0
    found_done: int = 0
    found_not_done: int = 0
    by_a_person: int = 0
    notified: int = 0
    notified_twice: int = 0
    problems: list[str] = msgspec.field(default_factory=list[str])


def draw_up(
    store: Store, task_id: str, modules: list[str], directory: Path, kills: list[Kill]
) -> Account:
    """Compare what is due with what happened."""
    account = Account(modules=len(modules))
    items = {item.item_id: item for item in store.read(verbs.list_items(task_id))}
    task = store.read(verbs.get_task(task_id))
    if task.status is not TaskStatus.SUCCEEDED:
        account.problems.append(f"the task ended as {task.status}: {task.error}")
    recorded: dict[str, list[float]] = {}
    for item in items.values():
        if item.status == "quarantined":
            account.quarantined += 1
            account.problems.append(f"{item.item_id} was quarantined: {item.error}")
        entries = store.read(verbs.read_journal(task_id, item.item_id))
        _count_entries(account, item, entries)
        for entry in entries:
            if entry.kind is EntryKind.LLM and entry.status is EntryStatus.DONE:
                asked: Any = decode_payload(store, task_id, entry.request or b"")
                recorded.setdefault(prompt_digest(asked["prompt"]), []).append(entry.at)
                usage = Usage.decode(entry.usage)
                account.tokens += usage.input_tokens + usage.output_tokens
                account.cost += usage.cost or 0.0
    _check_items(account, items, modules)
    _check_payments(account, recorded, provider_calls(directory), {kill.pid for kill in kills})
    _check_outbox(account, directory, modules)
    _check_results(account, directory, modules)
    return account


def add_inspection(account: Account, inspection: Inspection) -> None:
    """Add what a fresh process found."""
    account.problems += [f"evidence: {line}" for line in inspection.failures]
    account.problems += [f"hash chain: {line}" for line in inspection.broken]
    due = 3 * account.modules + 1
    if sum(inspection.evidence.values()) != due:
        account.problems.append(
            f"{sum(inspection.evidence.values())} pieces of evidence, not {due}, are on record"
        )


def _count_entries(account: Account, item: ItemRecord, entries: list[Entry]) -> None:
    calls = {entry.seq: entry for entry in entries if entry.ref is None}
    last = dict(calls) | {entry.ref: entry for entry in entries if entry.ref in calls}
    for seq, call in calls.items():
        end = last[seq]
        replayed = end.attempt < item.attempts
        if call.effect is Effect.LLM and end.status is EntryStatus.DONE:
            account.outputs += 1
            account.replayed_outputs += replayed
        elif call.kind in {EntryKind.TOOL, EntryKind.STEP}:
            account.executed_tools += end.status is EntryStatus.DONE
            account.replayed_tools += replayed and end.status is EntryStatus.DONE
            _count_doubt(account, call, [entry for entry in entries if entry.ref == seq])


def _count_doubt(account: Account, call: Entry, settling: list[Entry]) -> None:
    """Count a `once` call whose process ended between its intent and its outcome."""
    if call.effect is not Effect.ONCE or all(e.attempt == call.attempt for e in settling):
        return
    account.doubtful += 1
    if any(entry.status is EntryStatus.DOUBT for entry in settling):
        account.by_a_person += 1
    elif settling[-1].status is EntryStatus.DONE:
        account.found_done += 1
    else:
        account.found_not_done += 1


def _check_items(account: Account, items: dict[str, ItemRecord], modules: list[str]) -> None:
    for name in (*modules, MAIN):
        item = items.get(name)
        if item is None or item.status != "succeeded":
            state = "was never planned" if item is None else f"is {item.status}: {item.error}"
            account.problems.append(f"{name} {state}")
            continue
        account.proven += item.proven
        account.audited += name != MAIN
        if not item.proven:
            account.problems.append(f"{name} succeeded without evidence")
    for name in set(items) - {*modules, MAIN, PLAN}:
        account.problems.append(f"{name} was planned and isn't due")


def _check_payments(
    account: Account, recorded: dict[str, list[float]], calls: list[ProviderCall], killed: set[int]
) -> None:
    account.paid = len(calls)
    by_prompt: dict[str, list[ProviderCall]] = {}
    for call in calls:
        by_prompt.setdefault(call.prompt, []).append(call)
    for prompt in recorded.keys() - by_prompt.keys():
        account.problems.append(f"an output is on record that nobody asked for ({prompt[:8]})")
    for prompt, made in by_prompt.items():
        kept = recorded.get(prompt, [])
        if len(kept) != 1:
            account.problems.append(f"{len(kept)} outputs, not 1, are on record for {prompt[:8]}")
        account.paid_again += sum(any(call.at > at for at in kept) for call in made)
        for lost in made[:-1]:
            account.paid_in_vain += 1
            if lost.pid not in killed:
                account.problems.append(f"paid in vain, and not for a kill: {prompt[:8]}")
    if account.paid_again:
        account.problems.append(f"{account.paid_again} recorded outputs were paid for again")


def _check_outbox(account: Account, directory: Path, modules: list[str]) -> None:
    sent = Counter(notice.module for notice in read_outbox(directory))
    account.notified = len(sent)
    for name in modules:
        if not sent[name]:
            account.problems.append(f"the notification about {name} was lost")
    for name, times in sent.items():
        if times > 1:
            account.notified_twice += times - 1
            account.problems.append(f"{times} notifications about {name} were sent")
        if name not in modules:
            account.problems.append(f"a notification about {name} was sent; none was due")


def _check_results(account: Account, directory: Path, modules: list[str]) -> None:
    """Check what the job was for: a report and a row a module, and the index over all of them."""
    index = directory / INDEX
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    connection = sqlite3.connect(directory / RESULTS)
    try:
        rows = {name for (name,) in connection.execute("SELECT module FROM modules")}
    except sqlite3.Error as error:
        rows = set[str]()
        account.problems.append(f"{RESULTS}: {error}")
    finally:
        connection.close()
    for name in modules:
        if not (directory / REPORTS / f"{name}.json").is_file():
            account.problems.append(f"the report on {name} is missing")
        if name not in rows:
            account.problems.append(f"the row of {name} is missing")
        if f"| [{name}](" not in text:
            account.problems.append(f"{name} is missing in the index")
    for name in rows - set(modules):
        account.problems.append(f"there is a row of {name}, which wasn't audited")
