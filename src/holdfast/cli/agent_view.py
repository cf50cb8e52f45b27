"""Shows what an agent does while it does it, from what is recorded: whoever executes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

import msgspec

from holdfast.cli.following import PAUSE, event_data
from holdfast.cli.output import Output, clock_time, short, text_of
from holdfast.cli.payloads import load_value, outcome_of
from holdfast.cli.plain import one_line, plain
from holdfast.models import MAIN, PLAN, ApprovalRecord, Entry, Event, ItemRecord, Task
from holdfast.states import EntryKind, EntryStatus
from holdfast.store import Store, verbs
from holdfast.usage import Usage

T = TypeVar("T")

_LABEL = 14
"""Characters that the name of an item has on a line."""

_SHORT = 100
"""Characters of arguments and outcomes on a line."""

_TOLD: dict[str, str] = {
    "item_failed": "failed: {error}",
    "attempt_failed": "failed, and is tried again: {error}",
    "item_in_doubt": "is in doubt: {reason}",
    "item_quarantined": "is quarantined: {reason}",
    "item_reopened": "is done again: {reason}",
    "taken_back": "was interrupted, and goes on",
    "progress": "{text}",
    "tool_refused": "{tool} refused: {reason}",
}
"""What is told of an event, by its type."""


class Tally(msgspec.Struct):
    """What model calls took: requests, tokens and US dollars.

    `priced` is False where the price of a call isn't known: then `cost` is what is known.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    priced: bool = True

    def add(self, usage: Usage) -> None:
        """Count one call."""
        self.requests += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cost += usage.cost or 0.0
        self.priced = self.priced and usage.cost is not None

    @property
    def text(self) -> str:
        """What it says, for people."""
        if not self.requests:
            return "nothing"
        outputs = f"{self.requests} output{'s' * (self.requests != 1)}"
        tokens = f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out"
        return f"{outputs}, {tokens}, {money(self.cost, priced=self.priced)}"


def money(cost: float, *, priced: bool) -> str:
    """Return US dollars for people; an unknown price isn't zero."""
    if priced:
        return f"${cost:,.4f}"
    return f"more than ${cost:,.4f}" if cost else "of unknown price"


class Line(msgspec.Struct, frozen=True):
    """One thing that happened: as text, and as facts for programs."""

    at: float
    label: str
    text: str
    facts: dict[str, Any]


class AgentView:
    """What is recorded about an agent's task and everything below it.

    Args:
        store: the database.
        root_id: the task.
    """

    def __init__(self, store: Store, root_id: str) -> None:
        self._store = store
        self._root_id = root_id
        self._events: dict[str, str] = {}
        self._entries: dict[tuple[str, str], int] = {}
        self._titles: dict[tuple[str, str], str] = {}
        self.paid = Tally()
        """What was paid for by this task."""
        self.shared = Tally()
        """What the cache had from other tasks."""
        self.changed: dict[str, None] = {}
        """Files that the agent's tools have written or edited, by path."""

    def news(self) -> list[Line]:
        """Return what was recorded since the last call, in the order of its time."""
        lines = [line for task in self.tasks() for line in self._of_task(task)]
        return sorted(lines, key=lambda line: line.at)

    def tasks(self) -> Iterator[Task]:
        """Yield the task, and those below it."""
        left = [self._store.read(verbs.get_task(self._root_id))]
        while left:
            task = left.pop(0)
            yield task
            left += self._store.read(verbs.list_children(task.task_id))

    def wanted(self, wanted: ApprovalRecord) -> Iterator[str]:
        """Yield for people what waits for their approval: a plan item by item, a call in full."""
        entries = self._store.read(
            verbs.read_journal(wanted.task_id, wanted.item_id, wanted.seq - 1)
        )
        request: Any = plain(load_value(self._store, wanted.task_id, entries[0].request))
        if wanted.item_id != PLAN:
            yield f"{wanted.name} waits for your approval: {text_of(request)}"
            return
        yield "The plan:"
        for number, each in enumerate(request, 1):
            item = each["input"]["item"]
            yield f"  {number}. {item['id']}: {item['title']} [{item['mode']}]"
            yield from (f"     {line}" for line in item["instructions"].splitlines())
            for owed in item["evidence"]:
                about = owed["path"] or owed["rev"] or " ".join(owed["argv"] or ())
                yield f"     owes {owed['kind']} {about}"

    def _of_task(self, task: Task) -> Iterator[Line]:
        items = {item.item_id: item for item in self._store.read(verbs.list_items(task.task_id))}
        last = self._events.get(task.task_id, "")
        for event in self._store.read(verbs.list_events(task.task_id, last)):
            self._events[task.task_id] = event.event_id
            yield from self._of_event(task, items, event)
        for item in items.values():
            key = (task.task_id, item.item_id)
            seen = self._entries.get(key, 0)
            if item.seq > seen:
                for entry in self._store.read(verbs.read_journal(*key, seen)):
                    self._entries[key] = entry.seq
                    yield from self._of_entry(task, item, entry)

    # -- events ----------------------------------------------------------------------------------

    def _of_event(self, task: Task, items: dict[str, ItemRecord], event: Event) -> Iterator[Line]:
        item = items.get(event.item_id or "")
        match event.type:
            case "planned":
                yield from self._plan(task, items, event.at)
            case "claimed" if item is not None and self._is_planned(item):
                yield _line(task, item, event.at, "item_started", f"begins: {self._title(item)}")
            case "item_succeeded" if item is not None and self._is_planned(item):
                data = event_data(event)
                text = f"done: {data['executed']} calls made, {data['replayed']} replayed"
                yield _line(task, item, event.at, "item_succeeded", text, **data)
            case kind if kind in _TOLD and item is not None:
                data = {"error": None, "reason": None, "text": None} | event_data(event)
                text = one_line(_TOLD[kind].format(**data))
                yield _line(task, item, event.at, kind, text, **data)
            case _:
                return

    def _plan(self, task: Task, items: dict[str, ItemRecord], at: float) -> Iterator[Line]:
        planned = [item for item in items.values() if self._is_planned(item)]
        for number, item in enumerate(planned, 1):
            given = self._given(item)
            text = f"{number}. {item.item_id}: {given['title']} [{given['mode']}]"
            yield _line(task, items[PLAN], at, "planned", text, planned=given)

    def _is_planned(self, item: ItemRecord) -> bool:
        return item.item_id not in {MAIN, PLAN}

    def _title(self, item: ItemRecord) -> str:
        return str(self._given(item)["title"])

    def _given(self, item: ItemRecord) -> dict[str, Any]:
        given: Any = plain(load_value(self._store, item.task_id, item.input))
        try:
            return {"title": "", "mode": "", **given["item"]}
        except (LookupError, TypeError):  # no item of ours, or one that can't be read here
            return {"title": "", "mode": ""}

    # -- entries ---------------------------------------------------------------------------------

    def _of_entry(self, task: Task, item: ItemRecord, entry: Entry) -> Iterator[Line]:
        match entry.kind:
            case EntryKind.LLM if entry.status is EntryStatus.DONE:
                yield self._paid(task, item, entry)
            case EntryKind.LLM if entry.status in {EntryStatus.FAILED, EntryStatus.RELEASED}:
                reason = short(outcome_of(self._store, task.task_id, entry), 2 * _SHORT)
                text = f"{entry.name}  {entry.status}: {reason}"
                yield _line(task, item, entry.at, "model_failed", text, model=entry.name)
            case EntryKind.TOOL:
                yield self._tool(task, item, entry)
            case EntryKind.STEP if entry.name == "gates" and entry.status is EntryStatus.DONE:
                yield from self._gates(task, item, entry)
            case _:
                return

    def _paid(self, task: Task, item: ItemRecord, entry: Entry) -> Line:
        usage = Usage.decode(entry.usage)
        (self.shared if usage.reused else self.paid).add(usage)
        price = money(usage.cost or 0.0, priced=usage.cost is not None)
        whence = "from the cache, saved" if usage.reused else "paid"
        text = (
            f"{entry.name}  {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out, "
            f"{whence} {price}"
        )
        facts = msgspec.structs.asdict(usage)
        return _line(task, item, entry.at, "model_answered", text, model=entry.name, **facts)

    def _tool(self, task: Task, item: ItemRecord, entry: Entry) -> Line:
        given = _arguments(load_value(self._store, task.task_id, entry.request))
        outcome = outcome_of(self._store, task.task_id, entry)
        text = entry.name
        if given:
            text += "  " + short(" ".join(f"{k}={_word(v)}" for k, v in given.items()), _SHORT)
        if entry.status is not EntryStatus.STARTED:
            first = str(outcome).partition("\n")[0] if outcome is not None else ""
            text += f"  → {'' if entry.status is EntryStatus.DONE else f'{entry.status}: '}"
            text += short(first, _SHORT)
        if entry.name in {"write_file", "edit_file"} and "path" in given:
            self.changed[str(given["path"])] = None
        return _line(
            task, item, entry.at, "tool", text,
            tool=entry.name, arguments=given, status=entry.status, effect=entry.effect,
        )  # fmt: skip

    def _gates(self, task: Task, item: ItemRecord, entry: Entry) -> Iterator[Line]:
        for gate in plain(load_value(self._store, task.task_id, entry.outcome)) or ():
            passed = "passed" if gate["passed"] else "failed"
            text = f"{gate['name']} {passed}: {short(gate['detail'], _SHORT)}"
            yield _line(task, item, entry.at, "gate", text, gate=gate)


def _arguments(request: object) -> dict[str, Any]:
    found = getattr(request, "arguments", request)  # a `once` call keeps more than its arguments
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, cast("list[object]", value)))
    return str(value)


def _line(task: Task, item: ItemRecord, at: float, kind: str, text: str, /, **facts: Any) -> Line:
    label = "agent" if task.parent_id is None else item.item_id
    named = {"event": kind, "task_id": task.task_id, "item_id": item.item_id, "at": at}
    return Line(at, label, text, {**named, **facts})


def show(output: Output, line: Line) -> None:
    """Print a line: on stderr for people, on stdout for programs."""
    if output.json:
        output.document(line.facts)
    else:
        output.note(f"{clock_time(line.at)}  {line.label:<{_LABEL}}  {line.text}")


async def watched(output: Output, view: AgentView, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await `call()` and show meanwhile what an agent does."""

    async def watch() -> None:
        while True:
            for line in view.news():
                show(output, line)
            await asyncio.sleep(PAUSE)

    watching = asyncio.ensure_future(watch())
    try:
        return await call()
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
        for line in view.news():
            show(output, line)
