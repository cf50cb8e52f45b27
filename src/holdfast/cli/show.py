"""`show`: everything about one task, merged by time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import click

from holdfast.cli.following import describe, describe_event, event_data, events_of
from holdfast.cli.output import clock_time, duration, moment, status, table
from holdfast.cli.payloads import preview
from holdfast.cli.plain import clean, one_line
from holdfast.cli.report import Document, task_report
from holdfast.cli.session import Session, command
from holdfast.cli.waiting import Stopped, run_until_signal
from holdfast.models import Event, Task
from holdfast.operations import find_task
from holdfast.states import FINAL_TASK, TaskStatus
from holdfast.store import Store, verbs

_SETTLED = FINAL_TASK | {TaskStatus.BLOCKED}
_PAUSE = 0.2
"""Seconds between looks at whether a followed task has ended."""


@command("show")
@click.argument("task", metavar="TASK")
@click.option("--journal", is_flag=True, help="Also what each call was given and gave.")
@click.option("--follow", is_flag=True, help="Print the timeline as it grows, until the task ends.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    metavar="N",
    help="Lines of the timeline, the newest; 0 for all.",
)
def show_command(
    session: Session, task: str, *, journal: bool, follow: bool, limit: int
) -> int | None:
    """Show all about one task: items, journal, evidence, timeline.

    A call that was executed and recorded answers from the journal when its item is attempted
    again. Of an item's calls in the journal, "executed" are those that were made, in whatever
    attempt; "replayed" are those that answered from the journal in the attempt that finished it.
    "Recorded, not proven" means that an item ended without owing evidence.
    """
    with session.store() as store:
        found = find_task(store, task)
        if follow:
            return _follow(session, store, found)
        document = task_report(store, found, payloads=journal)
    session.output.answer(document, _lines(document, limit))
    return None


def _lines(document: Document, limit: int) -> Iterator[str]:
    yield from _head(document["task"])
    yield ""
    yield from _items(document["items"])
    if document["children"]:
        yield ""
        rows = [(each["task_id"], each["status"], each["name"]) for each in document["children"]]
        yield from table(("child", "status", "name"), rows)
    yield ""
    timeline = sorted(_timeline(document), key=lambda line: line[0])
    left_out = max(0, len(timeline) - limit) if limit else 0
    if left_out:
        yield f"… {left_out} earlier lines (--limit 0 shows them)"
    for at, text in timeline[left_out:]:
        yield f"{clock_time(at)}  {text}"


def _head(task: Document) -> Iterator[str]:
    yield f"task {task['task_id']}  {status(task['status'])}"
    facts = [
        ("function", task["name"]),
        ("key", task["key"]),
        ("input", preview(task["input"], 400)),
        ("result", None if task["result"] is None else preview(task["result"], 400)),
        ("error", task["error"] and one_line(task["error"])),
        ("child of", task["parent_id"]),
        ("fork of", task["forked_from"]),
        ("workspace", task["workspace"]),
        ("submitted", f"{moment(task['created_at'])} UTC"),
        ("ended", task["finished_at"] and f"{moment(task['finished_at'])} UTC"),
    ]
    for name, value in facts:
        if value is not None:
            yield clean(f"  {name:<10} {value}")
    for need in task["needs"]:
        yield clean(f"  {'needs':<10} {one_line(need)}")


_ITEM_COLUMNS = (
    "item", "status", "attempts", "calls", "executed", "replayed", "tokens", "cost", "time",
    "remark",
)  # fmt: skip


def _items(items: list[Document]) -> Iterator[str]:
    """Yield the table of items, without the columns nobody has anything in."""
    rows = [_item_row(item) for item in items]
    used = [at for at in range(len(_ITEM_COLUMNS)) if not rows or any(row[at] for row in rows)]
    names = [_ITEM_COLUMNS[at] for at in used]
    yield from table(names, (tuple(row[at] for at in used) for row in rows))


def _item_row(item: Document) -> tuple[str, ...]:
    tokens = f"{item['input_tokens']}+{item['output_tokens']}"
    began, ended = item["started_at"], item["finished_at"]
    return (
        item["item_id"],
        item["standing"],
        str(item["attempts"]),
        str(item["calls"]),
        *("" if count is None else str(count) for count in (item["executed"], item["replayed"])),
        tokens if tokens != "0+0" else "",
        "" if item["cost"] is None else f"${item['cost']:.4f}",
        duration(ended - began) if began and ended and ended >= began else "",
        _item_remark(item),
    )


def _item_remark(item: Document) -> str:
    remarks = [
        f"after {', '.join(item['after'])}" if item["after"] else "",
        f"held by {item['worker']}" if item["worker"] else "",
        _times("reopened", item["reopened"]),
        f"{item['crashes']} crashes without progress" if item["crashes"] else "",
        f"until {moment(item['wake_at'])}" if item["wake_at"] else "",
        one_line(item["error"])[:100] if item["error"] else "",
    ]
    return "; ".join(remark for remark in remarks if remark)


def _times(what: str, count: int) -> str:
    return f"{what} {count} times" if count > 1 else f"{what} once" if count else ""


# -- the timeline ---------------------------------------------------------------------------------


def _timeline(document: Document) -> Iterator[tuple[float, str]]:
    for event in document["events"]:
        yield event["at"], describe(event["item_id"], event["type"], event["data"])
    for call in document["calls"]:
        if call["kind"] != "checkpoint":
            yield call["at"], _call_line(call)
    for checkpoint in document["checkpoints"]:
        yield checkpoint["at"], _checkpoint_line(checkpoint)


def _call_line(call: Document) -> str:
    tokens = f"{call['input_tokens']}+{call['output_tokens']} tokens"
    parts = [
        call["item_id"],
        f"{call['kind']} {call['name']}" + (f" ({call['effect']})" if call["effect"] else ""),
        f"#{call['seq']}",
        call["meaning"],
        duration(call["seconds"]) if call["seconds"] else "",
        "" if tokens.startswith("0+0") else tokens,
        "" if call["cost"] is None else f"${call['cost']:.4f}",
        f"attempt {call['attempt']}" if call["attempt"] > 1 else "",
        f"holdfast resolve {call['entry']}" if call["status"] == "doubt" else "",
        f"holdfast approve {call['entry']}" if _is_asked(call) else "",
    ]
    line = clean("  ".join(part for part in parts if part))
    if "request" in call:
        line += f"\n                gave  {preview(call['request'])}"
        line += f"\n                got   {preview(call['outcome'])}"
    return line


def _is_asked(call: Document) -> bool:
    return call["kind"] == "approval" and call["status"] == "started"


def _checkpoint_line(checkpoint: Document) -> str:
    head = (
        f"{checkpoint['item_id']}  checkpoint {checkpoint['checkpoint']}  {checkpoint['type']}  "
        f"{_standing(checkpoint)}"
    )
    verdicts = [
        f"\n                {each['verdict']}  {each['subject']}  {one_line(each['detail'])}"
        for each in checkpoint["evidence"]
    ]
    return clean(head + "".join(verdicts), lines=True)


def _standing(checkpoint: Document) -> str:
    if checkpoint["status"] == "verified":
        return f"verified in {duration(checkpoint['seconds'])}"
    return "recorded, not proven" if checkpoint["status"] == "recorded" else checkpoint["status"]


# -- following ------------------------------------------------------------------------------------


def _follow(session: Session, store: Store, task: Task) -> int:
    try:
        run_until_signal(lambda: _print_events(session, store, task))
    except Stopped as stopped:
        return stopped.code
    return 0


async def _print_events(session: Session, store: Store, task: Task) -> None:
    watching = asyncio.ensure_future(_print_each(session, store, task))
    try:
        ended = False
        while not ended:  # one round more than needed, for the last events
            ended = store.read(verbs.get_task(task.task_id)).status in _SETTLED
            await asyncio.sleep(_PAUSE)
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def _print_each(session: Session, store: Store, task: Task) -> None:
    async for event in events_of(store, task.task_id):
        session.output.answer(_as_document(event), _as_lines(event))


def _as_document(event: Event) -> Document:
    return {"at": event.at, "item_id": event.item_id, "type": event.type, "data": event_data(event)}


def _as_lines(event: Event) -> Iterable[str]:
    return [f"{clock_time(event.at)}  {describe_event(event)}"]
